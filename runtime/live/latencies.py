"""Latencies of a whole run, of whatever length, in little memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

_STEP = math.log(1.02)
_LEAST, _MOST = 1e-4, 1e5


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from capture to sink: percentiles, and the largest."""

    p50: float
    p95: float
    p99: float
    largest: float


class Latencies:
    """Counts latencies in classes that are 2 % wide, about a thousand of them."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self._count = 0
        self._largest = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._classes[round(math.log(min(max(seconds, _LEAST), _MOST)) / _STEP)] += 1
        self._count += 1
        self._largest = max(self._largest, seconds)

    def latency(self) -> Latency | None:
        """Percentiles, to 1 %; None before the first."""
        if not self._count:
            return None
        return Latency(self._percentile(0.5), self._percentile(0.95), self._percentile(0.99), self._largest)

    def _percentile(self, share: float) -> float:
        wanted = share * self._count
        for place, count in sorted(self._classes.items()):
            wanted -= count
            if wanted <= 0:
                return min(math.exp(place * _STEP), self._largest)
        return self._largest
