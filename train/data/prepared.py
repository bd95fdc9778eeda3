"""A folder that is filled once, by one process, and used by all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from measnet.errors import OutputError
from measnet.whole_file import write_whole

MARK = "complete"
PATIENCE = 0.2  # seconds between looks


def prepare(folder: Path, fill: Callable[[], None], *, leads: bool) -> None:
    """Calls ``fill`` unless ``folder`` was filled before; a process that does not lead waits for the one that
    does.

    If the leader fails, whoever started the processes ends those that wait. Raises ``OutputError`` when the
    folder cannot be made.
    """
    mark = folder / MARK
    while not mark.is_file():
        if leads:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None
            fill()
            write_whole(mark, b"")
        else:
            time.sleep(PATIENCE)
