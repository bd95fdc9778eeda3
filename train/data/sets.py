"""Data sets: pictures of one task, each with its degraded form where that is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TASKS = ("denoise", "derain", "dehaze", "deblur", "lowlight")

CLEAN = "clean"
"""The task of clean pictures that any task's degradation may be made from."""


class Pair(NamedTuple):
    """One picture of a set."""

    degraded: Path | None
    """``None``: made from the clean picture when it is needed."""

    clean: Path


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one task under one name."""

    name: str
    """As the field says it: ``SOTS outdoor``, ``Rain100L``; or the folder's own name."""

    task: str
    """One of ``TASKS``, or ``CLEAN``."""

    pairs: tuple[Pair, ...]

    @property
    def synthetic(self) -> bool:
        """Tells whether any degraded picture has to be made."""
        return any(pair.degraded is None for pair in self.pairs)
