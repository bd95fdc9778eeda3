"""Ends a call of FFmpeg that waits for a network, from another thread, within a tenth of a second.

FFmpeg asks while it waits whether it is to go on, and PyAV answers by its clock: no, once the time limit has
passed. There is no other way in. So threads that ask for it are given a clock that leaps ahead when they are
called off; all others keep their own. Should a later PyAV read its clock elsewhere, its time limits remain.
"""

from __future__ import annotations

import threading
import time

import av.container.core

_LEAP = 1e9

_here = threading.local()


def is_called_off() -> bool:
    """Says whether what this thread does is not wanted any more."""
    called_off: threading.Event | None = getattr(_here, "called_off", None)
    return called_off is not None and called_off.is_set()


class _Clock:
    """Stands in for the module ``time`` in PyAV's containers, which use nothing but ``monotonic`` of it."""

    @staticmethod
    def monotonic() -> float:
        """Seconds; ever further ahead in a thread that was called off, so that every limit has passed."""
        if not is_called_off():
            return time.monotonic()
        _here.leaps = getattr(_here, "leaps", 0) + 1
        return time.monotonic() + _LEAP * float(_here.leaps)


av.container.core.time = _Clock  # type: ignore[attr-defined]  # PyAV's stubs leave it out


def end_calls_when(called_off: threading.Event) -> None:
    """Has calls of this thread to containers that were opened with a ``timeout`` raise ``av.error.ExitError``
    once ``called_off`` is set."""
    _here.called_off = called_off
