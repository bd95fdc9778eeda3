"""What a result is made of, so that a later run goes on with it only if it would have made the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import av
import cv2
import PIL

from measnet.errors import InputError

# A file up to this size is read whole, which takes a second or two. Reading 50 GB would hold a run up for
# minutes: of a larger one the head, the tail, the size and the time of the last change have to do.
_WHOLE = 256 << 20
_END = 16 << 20

# The engine's own words for what changes its results -> ours. A driver or a path does not.
_ENGINE = {
    "weights_sha256": "weights",
    "precision": "precision",
    "backend": "backend",
    "version": "backend's version",
    "provider": "computed on",
    "built_for": "engine built for",
}


def of_input(path: Path) -> dict[str, Any]:
    """What tells one input file from another, and from itself before it was changed. Raises InputError."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size <= _WHOLE:
                return {"input's SHA-256": hashlib.file_digest(file, "sha256").hexdigest()}
            ends = hashlib.sha256(file.read(_END))
            file.seek(-_END, os.SEEK_END)
            ends.update(file.read(_END))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return {
        "input's size": found.st_size,
        "input's time of change": found.st_mtime_ns,
        "input's head and tail": ends.hexdigest(),
    }


def of_engine(description: dict[str, Any]) -> dict[str, Any]:
    """The network and what computes it, from a restorer's description of itself."""
    known = {word: description[key] for key, word in _ENGINE.items() if key in description}
    if "weights" in known:
        return known  # under another name they are the same
    return {"model": description.get("model"), **known}


def of_programs() -> dict[str, Any]:
    """The programs whose versions change a result."""
    return {
        "measnet": importlib.metadata.version("measnet"),
        "PyAV": av.__version__,
        "FFmpeg": av.ffmpeg_version_info,
        "OpenCV": cv2.__version__,
        "Pillow": PIL.__version__,
    }
