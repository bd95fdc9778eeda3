"""Watch: the events and figures of one camera, as its stream reports them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from measnet.runtime.live.events import Event, EventKind, Events, State
from measnet.runtime.live.telemetry import Telemetry


@dataclass(slots=True)
class Watch:
    """Voice of a stream: its events and its figures. Thread-safe.

    >>> watch = Watch("door", events)
    >>> Job("rtsp://door/stream", options, watch=watch)
    """

    camera: str
    """Name for people, without credentials."""

    events: Events = field(default_factory=Events)
    late_every: float = 10.0
    """Seconds between two events that say how many frames had to go."""

    telemetry: Telemetry = field(init=False)

    _dropped: Counter[str] = field(init=False, default_factory=Counter)
    _told_at: float = field(init=False, default=float("-inf"))
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    _state: State | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(self.camera)

    @property
    def state(self) -> State | None:
        """The state it is in; None before the first."""
        return self._state

    def enter(self, state: State, words: str, **values: float | int | str) -> None:
        """Changes its state, and tells so; does nothing where it is in that state already."""
        with self._lock:
            if state == self._state:
                return
            self._state = state
            self.telemetry.enter(state)
            self.events.say(Event(self.camera, "state", words, state, values))

    def end(self, words: str) -> None:
        """Tells that it has ended, unless it has ended or failed already."""
        with self._lock:
            if self._state not in (None, "ended", "failed"):
                self.enter("ended", words)

    def say(self, kind: EventKind, words: str, **values: float | int | str) -> None:
        """Tells of anything else."""
        self.events.say(Event(self.camera, kind, words, values=values))

    def drop(self, reason: str) -> None:
        """Counts a frame that had to go; now and then an event says how many did."""
        self.telemetry.dropped(reason)
        with self._lock:
            self._dropped[reason] += 1
            now = time.monotonic()
            if now < self._told_at + self.late_every:
                return
            self._told_at = now
            gone, self._dropped = self._dropped, Counter()
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(gone.items()))
        self.say("late", f"frames left out: {listed}", **gone)
