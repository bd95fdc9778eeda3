"""Names of files, as libraries take them."""

from __future__ import annotations

from pathlib import Path

from measnet.errors import UsageError


def for_ffmpeg(path: Path) -> str:
    """The path from the root on: FFmpeg takes ``12:30.mp4`` for an address, with the protocol ``12``."""
    return str(path.absolute())


def in_utf8(path: Path) -> str:
    """The path for libraries that know names in UTF-8 alone. Raises ``UsageError`` for others."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path} cannot be loaded: its name is not in UTF-8; rename it") from None
    return str(path)
