"""Pauses between tries that grow, and differ by chance, so that many do not come back all at once."""

from __future__ import annotations

import random
from collections.abc import Callable

from measnet.runtime.live.waits import USUAL, Waits


class Backoff:
    """Lengthens its pauses by half up to the longest; each is cut by chance, to half at least.

    Args:
        waits: has the first and the longest pause.
        chance: gives numbers from 0 to 1.
    """

    def __init__(self, waits: Waits = USUAL, chance: Callable[[], float] = random.random) -> None:
        self._waits = waits
        self._chance = chance
        self._next = self._waits.retry

    def pause(self) -> float:
        """Seconds until the next try."""
        pause, self._next = self._next, min(1.5 * self._next, self._waits.longest_retry)
        return pause * (1 - self._chance() / 2)

    def reset(self) -> None:
        """Begins anew, after a time in which all was well."""
        self._next = self._waits.retry
