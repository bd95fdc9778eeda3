"""Board: all that is known of the cameras of a run, as values that JSON has, with ten minutes of history."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from measnet.runtime.live.events import KEPT, Event, Events
from measnet.runtime.live.telemetry import CameraFigures, Telemetry
from measnet.runtime.operations.pair_feed import LatestPair, PairFeed
from measnet.runtime.operations.plain import plain

OVER = ("ended", "failed")
"""States that a camera does not come out of."""

KEPT_OVER = 8
"""Cameras that are still shown when they are over and another one comes: a run may have a thousand inputs."""

MOMENTS = 600
"""Moments, a second apart, that the history goes back."""


@dataclass(frozen=True, slots=True)
class _CameraView:
    """A camera: its figures, and its pictures if they are to be seen."""

    telemetry: Telemetry
    feed: PairFeed | None

    @property
    def is_over(self) -> bool:
        """Says whether nothing more comes of it."""
        return self.telemetry.figures().state in OVER


class Board:
    """Collects what there is to show. Everything but ``live`` and ``tick`` may be called from any thread."""

    def __init__(self, events: Events) -> None:
        self.started = time.time()
        self._watched: dict[str, _CameraView] = {}
        self._changing = threading.Lock()
        # Kept by kind: frames that are late every few seconds are not to push out how a camera came and went.
        self._events: dict[str, deque[tuple[int, Event]]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._said = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._moments: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MOMENTS)
        self._tick = 0
        for event in events.recent():
            self._hear(event)
        self.leave = events.listen(self._hear)

    def watch(self, telemetry: Telemetry, pair: LatestPair | None = None) -> Callable[[], None]:
        """Shows a camera from now on, and calls it by the name in its figures; returns what ends that.

        Another one of the same name gives way, and the first of many that are over.
        """
        name = telemetry.figures().camera
        mine = _CameraView(telemetry, None if pair is None else PairFeed(pair))
        with self._changing:
            over = [known for known, other in self._watched.items() if known != name and other.is_over]
            forgotten = over[: max(0, len(over) - KEPT_OVER)]
            kept = {known: other for known, other in self._watched.items() if known not in forgotten}
            self._watched = {**kept, name: mine}  # one of this name keeps its place

        def leave() -> None:
            with self._changing:
                self._watched = {key: other for key, other in self._watched.items() if other is not mine}

        return leave

    def figures(self) -> list[CameraFigures]:
        """All cameras as they stand."""
        return [watched.telemetry.figures() for watched in self._watched.values()]

    def feed(self, camera: str) -> PairFeed | None:
        """Pictures of a camera; None where there is no such camera, or none to be seen."""
        watched = self._watched.get(camera)
        return None if watched is None else watched.feed

    def event_counts(self) -> dict[tuple[str, str], int]:
        """Number of events by camera and kind."""
        with self._changing:
            return dict(self._counts)

    def events(self, after: int = 0, camera: str | None = None) -> list[dict[str, Any]]:
        """Events with a number greater than ``after``, oldest first, of one camera or all."""
        with self._changing:
            known = sorted((one for kind in self._events.values() for one in kind), key=itemgetter(0))
        return [
            {"number": number, **plain(asdict(event))}
            for number, event in known
            if number > after and camera in (None, event.camera)
        ]

    def tick(self) -> None:
        """Adds the present to the history. Called about once a second."""
        self._tick += 1
        moment = {figures.camera: _in_short(figures) for figures in self.figures()}
        self._moments.append((self._tick, {"at": round(time.time(), 1), "cameras": moment}))

    def live(self, after: int = 0, event: int = 0) -> dict[str, Any]:
        """All that the page shows: the present, the history after a tick, the events after a number."""
        return {
            "started": self.started,
            "tick": self._tick,
            "cameras": [as_json(figures) for figures in self.figures()],
            "history": [moment for tick, moment in self._moments if tick > after],
            "events": self.events(event),
        }

    def _hear(self, event: Event) -> None:
        with self._changing:
            self._said += 1
            self._counts[event.camera, event.kind] += 1
            self._events[event.kind].append((self._said, event))


def as_json(figures: CameraFigures) -> dict[str, Any]:
    """Figures as values that JSON has: a parity without any difference is ``"identical"``."""
    return {**plain(asdict(figures)), "parity_db": _parity(figures.parity_db)}


def _parity(decibels: float | None) -> float | str | None:
    if decibels is None or math.isnan(decibels):
        return None
    return round(decibels, 2) if math.isfinite(decibels) else "identical"


def _in_short(figures: CameraFigures) -> dict[str, Any]:
    """A moment of the history: what the page draws over time."""
    latency = figures.latency
    return {
        "state": figures.state,
        "fps_in": round(figures.fps_in, 1),
        "fps_out": round(figures.fps_out, 1),
        "p50": None if latency is None else round(latency.p50, 3),
        "p95": None if latency is None else round(latency.p95, 3),
        "dropped": sum(figures.dropped.values()),
        "parity": _parity(figures.parity_db),
        "damage": {name: round(share, 3) for name, share in figures.damage.items()},
        "experts": [round(share, 3) for share in figures.experts],
    }
