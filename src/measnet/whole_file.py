"""A file appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from measnet.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Writes ``content`` beside ``path`` and renames it; a file that stood there survives a failure.

    Raises ``OutputError`` with the reason (disk full, folder missing or closed).
    """
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave the name with nothing behind it
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
