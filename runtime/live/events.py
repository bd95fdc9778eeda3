"""Events: all that happens to a live stream, as values, for logs, reports, metrics and the console alike."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["connecting", "running", "stalled", "reconnecting", "ended", "failed"]

EventKind = Literal["state", "late", "ladder", "sink", "picture", "note"]
"""``state``: it changed. ``late``: frames had to go. ``ladder``: less work per second, or more again.
``sink``: one came, went or stalls. ``picture``: size, rate or codec changed. ``note``: anything else."""

KEPT = 1000
"""Events that ``Events`` remembers."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one camera. Never holds credentials."""

    camera: str
    kind: EventKind
    words: str
    """For people, one line."""

    state: State | None = None
    """The state it is in from now on, of kind ``state``."""

    values: dict[str, float | int | str] = field(default_factory=dict)
    """For programs."""

    at: float = field(default_factory=time.time)
    """Seconds since 1970."""


class Events:
    """Collects events from all threads and hands each to whoever listens, in order. Thread-safe."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Callable[[Event], None]] = []
        self._lock = threading.RLock()

    def say(self, event: Event) -> None:
        """Tells everyone. Listeners must be quick and must not raise: a stream waits for them."""
        with self._lock:
            self._recent.append(event)
            for listener in self._listeners:
                listener(event)

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Has ``listener`` hear all that comes; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def leave() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return leave

    def recent(self) -> list[Event]:
        """The last events of all cameras, oldest first."""
        with self._lock:
            return list(self._recent)
