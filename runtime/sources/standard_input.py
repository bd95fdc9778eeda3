"""Standard input as a file that FFmpeg reads, which a run can stop waiting for."""

from __future__ import annotations

import contextlib
import os
import select
import stat

from measnet.errors import InputError

STANDARD_INPUT = "-"
"""Stands for it on a command line."""

_FD = 0


class StandardInput:
    """A file object over standard input; it can be sought in where a file was redirected into it.

    Raises:
        InputError: a terminal is at the other end.
    """

    name = "standard input"

    def __init__(self) -> None:
        if os.isatty(_FD):
            raise InputError("standard input is a terminal; pipe a video into it: ffmpeg ... | measnet-run -")
        self._regular = stat.S_ISREG(os.fstat(_FD).st_mode)
        self._woken, self._wake = os.pipe()

    def __str__(self) -> str:
        return self.name

    def read(self, size: int) -> bytes:
        """Reads at most ``size`` bytes; none at the end, or once ``stop_waiting`` was called."""
        ready, _, _ = select.select([_FD, self._woken], [], [])
        return b"" if self._woken in ready else os.read(_FD, size)

    def seekable(self) -> bool:
        """Says whether a file was redirected, not a pipe."""
        return self._regular

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seeks as in any file."""
        return os.lseek(_FD, offset, whence)

    def tell(self) -> int:
        """Tells the place as of any file."""
        return os.lseek(_FD, 0, os.SEEK_CUR)

    def stop_waiting(self) -> None:
        """End a ``read`` that waits in another thread, and every later one, as at the end of the file."""
        with contextlib.suppress(OSError):
            os.write(self._wake, b"\0")
