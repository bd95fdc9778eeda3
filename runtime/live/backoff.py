"""Pauses between tries that grow, and differ by chance, so that many do not come back all at once."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST, LONGEST = 0.5, 5.0
"""Seconds."""


class Backoff:
    """Lengthens its pauses by half, from ``FIRST`` to ``LONGEST``; each is cut by chance, to half at least.

    Args:
        chance: gives numbers from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._next = FIRST

    def pause(self) -> float:
        """Seconds until the next try."""
        pause, self._next = self._next, min(1.5 * self._next, LONGEST)
        return pause * (1 - self._chance() / 2)

    def reset(self) -> None:
        """Begins anew, after a time in which all was well."""
        self._next = FIRST
