"""Upkeep of a process that restores for days."""

from __future__ import annotations

import time

from measnet.runtime.frame import Restoration
from measnet.runtime.memory import give_back_freed_memory
from measnet.runtime.stream import Observer

EVERY = 60.0  # seconds


class Upkeep(Observer):
    """Gives freed memory back to the system once a minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def finished(self, passing: Restoration) -> None:
        if (now := time.monotonic()) - self._last >= EVERY:
            self._last = now
            give_back_freed_memory()
