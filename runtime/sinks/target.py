"""Targets: where one result goes, a place on disk or a receiver in the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from measnet.runtime.live.credentials import without_secrets


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver in the network. As text it has no credentials; ``url`` is to be shown to nobody."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.url)

    @property
    def scheme(self) -> str:
        """``rtmp``, ``udp`` and so on."""
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """For people, as paths have one."""
        return str(self)


@dataclass(frozen=True, slots=True)
class Watched:
    """A result that is kept nowhere: it is looked at while it comes, on the page or in a preview."""

    name: str = "shown"

    def __str__(self) -> str:
        return "shown, not written"


@dataclass(frozen=True, slots=True)
class Window:
    """A window on this machine's screen."""

    name: str = "window"

    def __str__(self) -> str:
        return self.name


Target: TypeAlias = Path | Receiver | Watched | Window


def named(target: Target) -> str:
    """Words for all things of a target's kind: ``.mp4 files``, ``rtmp streams``."""
    if isinstance(target, Path):
        return f"{target.suffix} files"
    return f"{target.scheme} streams" if isinstance(target, Receiver) else target.name
