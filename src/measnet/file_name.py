"""Names of files, as FFmpeg takes them."""

from __future__ import annotations

from pathlib import Path


def for_ffmpeg(path: Path) -> str:
    """The path from the root on: FFmpeg takes ``12:30.mp4`` for an address, with the protocol ``12``."""
    return str(path.absolute())
