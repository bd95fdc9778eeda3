"""What a user may ask of a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from measnet.errors import UsageError
from measnet.runtime.sources.excerpt import Excerpt
from measnet.runtime.sources.raw import RawVideo

Interlaced = Literal["deinterlace", "refuse", "keep"]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a video file is read. ``track`` is which of several video tracks is restored, from 1, None for the
    default one; ``keep_tracks`` copies the other ones."""

    excerpt: Excerpt = field(default_factory=Excerpt)
    raw: RawVideo | None = None
    interlaced: Interlaced = "deinterlace"
    track: int | None = None
    keep_tracks: bool = False

    def as_given(self) -> dict[str, Any]:
        """By the names that users know, ready for JSON."""
        start, duration = self.excerpt.start or None, self.excerpt.duration
        return {
            "--start": None if start is None else float(start),
            "--duration": None if duration is None else float(duration),
            "--raw": None if self.raw is None else str(self.raw),
            "--interlaced": self.interlaced,
            "--track": self.track,
            "--keep-tracks": self.keep_tracks,
        }

    def check_none_given(self, spec: str) -> None:
        """Raise UsageError where ``spec`` is no video file, but was asked for what only those have."""
        usual = SourceOptions()
        for option, flag in _FLAGS.items():
            if getattr(self, option) != getattr(usual, option):
                raise UsageError(f"{flag} is for video files only; {spec} is not one")


_FLAGS = {
    "excerpt": "--start or --duration",
    "raw": "--raw",
    "interlaced": "--interlaced",
    "track": "--track",
    "keep_tracks": "--keep-tracks",
}
