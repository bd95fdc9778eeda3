"""Telemetry: figures of one camera while it runs, as plain values.

The stream and its observers write, metrics, console and reports read; neither knows the other.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from measnet.runtime.live.events import State
from measnet.runtime.live.latencies import Latencies, Latency

_OUT = ("stalled", "reconnecting")

WINDOW = 10.0
"""Seconds over which rates and latencies are told."""


@dataclass(frozen=True, slots=True)
class CameraFigures:
    """One camera as it stands. Counts are since it was started, rates and latency of the last ``WINDOW``."""

    camera: str
    state: State
    state_seconds: float
    """Since when it is in this state."""

    width: int
    height: int
    frames_in: int
    """Decoded."""

    frames_out: int
    """Given to the sinks."""

    dropped: Mapping[str, int]
    """Frames that had to go, by reason: ``newer`` (one overtook it), ``full`` (one waited), ``late``,
    ``ladder``, ``sink``."""

    fps_in: float
    fps_out: float
    latency: Latency | None
    """None before the first frame."""

    reconnects: int
    outage_seconds: float
    """Spent stalled or reconnecting."""

    rung: str
    """Step of the ladder: ``full``, or in words how the work was made less."""

    parity_db: float | None = None
    """PSNR of the last frame held against PyTorch; infinite when equal."""

    damage: Mapping[str, float] = field(default_factory=dict)
    """Shares of noise, rain and so on in the last frame's damage, where the engine tells."""

    experts: tuple[float, ...] = ()
    """Shares of the last frame's pixels that each expert restored, where the engine tells."""


class Telemetry:
    """Figures of one camera. Every method is quick and may be called from any thread."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._lock = threading.Lock()
        self._state: State = "connecting"
        self._since = self._outage_since = time.monotonic()
        self._outages = 0.0
        self._reconnects = 0
        self._size = (0, 0)
        self._in, self._out = 0, 0
        self._dropped: Counter[str] = Counter()
        self._arrivals: deque[float] = deque()
        self._deliveries: deque[tuple[float, float]] = deque()
        self._latencies = Latencies()
        self._rung = "full"
        self._parity: float | None = None
        self._damage: Mapping[str, float] = {}
        self._experts: tuple[float, ...] = ()

    def enter(self, state: State) -> None:
        """Notes the state it is in from now on."""
        now = time.monotonic()
        with self._lock:
            if state == self._state:
                return
            if self._state in _OUT and state not in _OUT:
                self._outages += now - self._outage_since
            if state in _OUT and self._state not in _OUT:
                self._outage_since = now
            self._reconnects += state == "reconnecting"
            self._state, self._since = state, now

    def arrived(self, width: int, height: int) -> None:
        """Counts a decoded frame of this size in pixels."""
        with self._lock:
            self._in += 1
            self._size = width, height
            self._arrivals.append(time.monotonic())
            _forget(self._arrivals, self._arrivals[-1] - WINDOW)

    def dropped(self, reason: str) -> None:
        """Counts a frame that had to go."""
        with self._lock:
            self._dropped[reason] += 1

    def delivered(self, latency: float) -> None:
        """Counts a frame that reached the sinks, ``latency`` seconds after it was captured."""
        now = time.monotonic()
        with self._lock:
            self._out += 1
            self._latencies.add(latency)
            self._deliveries.append((now, latency))
            while self._deliveries[0][0] < now - WINDOW:
                self._deliveries.popleft()

    def climbed(self, rung: str) -> None:
        """Notes the step of the ladder."""
        with self._lock:
            self._rung = rung

    def verified(self, psnr: float) -> None:
        """Notes the parity of the last frame that was checked, dB."""
        with self._lock:
            self._parity = psnr

    def restored_by(self, experts: tuple[float, ...], damage: Mapping[str, float]) -> None:
        """Notes who restored the last frame, and what its damage was taken for."""
        with self._lock:
            self._experts, self._damage = experts, damage

    def latency(self) -> Latency | None:
        """Latency since it was started; None before the first frame."""
        with self._lock:
            return self._latencies.latency()

    def figures(self) -> CameraFigures:
        """All of it, as it stands now."""
        now = time.monotonic()
        with self._lock:
            _forget(self._arrivals, now - WINDOW)
            while self._deliveries and self._deliveries[0][0] < now - WINDOW:
                self._deliveries.popleft()
            return CameraFigures(
                camera=self._camera,
                state=self._state,
                state_seconds=now - self._since,
                width=self._size[0],
                height=self._size[1],
                frames_in=self._in,
                frames_out=self._out,
                dropped=dict(self._dropped),
                fps_in=_rate(self._arrivals, now),
                fps_out=_rate([at for at, _ in self._deliveries], now),
                latency=_latency([seconds for _, seconds in self._deliveries]),
                reconnects=self._reconnects,
                outage_seconds=self._outages + (now - self._outage_since if self._state in _OUT else 0.0),
                rung=self._rung,
                parity_db=self._parity,
                damage=dict(self._damage),
                experts=self._experts,
            )


def _forget(times: deque[float], before: float) -> None:
    while times and times[0] < before:
        times.popleft()


def _rate(times: deque[float] | list[float], now: float) -> float:
    """Events per second of the window, or of the part of it since the first event."""
    return len(times) / max(now - times[0], 1.0) if times else 0.0


def _latency(seconds: list[float]) -> Latency | None:
    if not seconds:
        return None
    ranked = sorted(seconds)

    def percentile(share: float) -> float:
        return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]

    return Latency(percentile(0.5), percentile(0.95), percentile(0.99), ranked[-1])
