"""Ends a call of FFmpeg that waits for a network, from another thread, within a tenth of a second.

FFmpeg asks while it waits whether it is to go on, and PyAV answers by its clock: no, once the time limit has
passed. There is no other way in. So threads that ask for it are given a clock that leaps ahead when they are
called off; all others keep their own. Should a later PyAV read its clock elsewhere, its time limits remain.

That clock also counts the network's time alone. FFmpeg asks every tenth of a second; what lies between two
questions beyond that was spent waiting for Python's lock or for a processor, for which no sender is to blame.
"""

from __future__ import annotations

import threading
import time

import av.container.core

_LEAP = 1e9
_LONGEST_WAIT = 0.2

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
        now = time.monotonic()
        if not hasattr(_here, "called_off"):
            return now
        _here.clock += min(now - _here.asked, _LONGEST_WAIT) + (_LEAP if is_called_off() else 0)
        _here.asked = now
        return float(_here.clock)


av.container.core.time = _Clock  # type: ignore[attr-defined]  # PyAV's stubs leave it out


def end_calls_when(called_off: threading.Event) -> None:
    """Has calls of this thread to containers that were opened with a ``timeout`` raise ``av.error.ExitError``
    once ``called_off`` is set."""
    _here.called_off, _here.clock, _here.asked = called_off, 0.0, time.monotonic()
