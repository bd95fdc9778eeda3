"""Waits: how long cameras, streams and receivers are waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds until a silence means something."""

    opening: float = 10.0
    """Until an address answers, or a receiver takes the stream; then half as long to find out why not."""

    silence: float = 8.0
    """Until FFmpeg ends a connection without a byte. The source has less patience, below."""

    stalled: float = 2.0
    """Without a picture, until a source is said to stall."""

    gone: float = 5.0
    """Without a picture, until its connection is given up."""

    delivery: float = 5.0
    """Until a receiver that takes nothing is given up, to be tried again."""

    unwritten: float = 2.0
    """Until a sink that frames wait for, and that takes none, is said to stall."""

    retry: float = 0.5
    """Before the first new connection."""

    longest_retry: float = 5.0
    """Before later ones, at most."""


USUAL = Waits()
