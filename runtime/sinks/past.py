"""The frames before, on disk: what a video's fusion over time has to know to go on behind a segment.

It is as large as some frames, so it lies beside its segment, and only that of the last segment and of the one
before are kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from measnet.runtime.sinks.manifest import is_count
from measnet.runtime.sinks.part_folder import is_plain_file
from measnet.whole_file import write_whole

KEPT = 2
"""How many segments' pasts lie on disk; were the last one damaged, a run could go on one segment earlier."""

LARGEST_PAST = 1 << 31


def write_past(folder: Path, number: int, past: bytes) -> dict[str, Any]:
    """Writes the past behind segment ``number``; what the manifest has to say of it. Raises
    OutputError."""
    write_whole(_path(folder, number), past)
    return {"bytes": len(past), "sha256": hashlib.sha256(past).hexdigest()}


def read_past(folder: Path, number: int, said: Any) -> bytes | None:
    """The past behind segment ``number``; None unless it is there and as the manifest ``said``. Raises
    OSError."""
    if not isinstance(said, dict) or not is_count(said.get("bytes"), 1, LARGEST_PAST):
        return None
    path = _path(folder, number)
    if not is_plain_file(path, said["bytes"]):
        return None
    past = path.read_bytes()
    return past if hashlib.sha256(past).hexdigest() == said.get("sha256") else None


def drop_past(folder: Path, number: int) -> None:
    """Removes a past that no run will need again. Raises OSError."""
    _path(folder, number).unlink(missing_ok=True)


def _path(folder: Path, number: int) -> Path:
    return folder / f"past-{number:05}"
