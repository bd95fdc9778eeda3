"""Live sources: cameras and streams that come back when they were gone.

connecting ── running ⇄ stalled
    │            │         │
    │            └─────────┴── reconnecting ── running …
  failed       ended                └── failed
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isinf
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from measnet.errors import InputError, MEASNetError, StoppedError
from measnet.image import Pixels, eight_bits, sixteen_bits
from measnet.runtime.frame import Frame
from measnet.runtime.live.backoff import Backoff
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import RECONNECT
from measnet.runtime.sources import Source
from measnet.runtime.sources.camera import CAMERA_PREFIX, CameraConnection, camera_number, is_device
from measnet.runtime.sources.connection import Connection, Feed, Over
from measnet.runtime.sources.kept_streams import KeptStreams
from measnet.runtime.sources.network import NetworkConnection
from measnet.runtime.sources.times import rebased

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_FIRST_PICTURE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 1.0
_STEADY_SECONDS = 2.0
_LEAP_SECONDS = 10.0
_KEPT_OUTAGES = 1000
_KEPT_WARNINGS = 50


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without a picture that a new connection had to end."""

    at: float
    """Time of the last picture before, in seconds since 1970."""

    seconds: float
    why: str
    connections: int
    """Tried in it."""


class LiveSource(Source):
    """Frames of a camera or a stream, through outages.

    Times count from the first frame that is read, by the stream's own clock, and on by this machine's over an
    outage. Where the stream's has come ahead, as FFmpeg looks at three seconds of some before it gives them,
    the gap is shorter by that.
    All frames have the size and the depth of the first one; others are scaled, with bars where their shape
    differs. It drops none for being late: the queue behind it does.

    Args:
        spec: ``camera:N``, ``/dev/videoN`` or an address.
        patience: seconds that an outage may last; 0 ends at the first. The first connection must succeed.
        watch: hears of every change of state.
        stop: once set, the first picture is not waited for any longer.
        drain: lets frames go that come before ``read`` begins, but for the newest, so that the decoder is
            never held up.
        insecure: takes any certificate of an address that speaks TLS.
        waits: says which silences are stalls and outages.

    Raises:
        InputError: nothing answers, nothing arrives, or what arrives is not video.
        StoppedError: ``stop`` was set first.
    """

    def __init__(
        self,
        spec: str,
        patience: float = RECONNECT,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
        drain: bool = True,
        insecure: bool = False,
        waits: Waits = USUAL,
    ) -> None:
        super().__init__()
        self._spec = spec
        self._name = without_secrets(spec)
        self._patience = patience
        self._insecure = insecure
        self._waits = waits
        self._watch = watch or Watch(self._name)
        self._is_camera = spec.startswith(CAMERA_PREFIX) or is_device(spec)
        if self._is_camera:
            camera_number(spec)
        self._kept: KeptStreams | None = None
        self._backoff = Backoff(waits)
        self._outages: deque[Outage] = deque(maxlen=_KEPT_OUTAGES)
        self._scaled: dict[tuple[int, int], tuple[float, int]] = {}
        self._off = threading.Event()
        self._connection: Connection | None = None
        self._unheard: Connection | None = None
        self._watch.enter("connecting", "connecting")
        self._feed = Feed(self._connect)
        try:
            self._first = self._first_picture(stop or threading.Event())
            assert self._connection is not None
            self.info = self._connection.info
            self._drains: bool = drain and not self._connection.finished
            if self._drains:
                self._feed.idle()
        except BaseException as error:
            if isinstance(error, StoppedError):
                self._watch.enter("ended", "stopped")
            else:
                self._watch.enter("failed", str(error))
            self.close()
            raise
        rate = float(self.info.rate or 0)
        self._stalled_after: float = max(waits.stalled, 3 / rate if rate else 0)
        self._gone_after: float = max(waits.gone, 2 * self._stalled_after)
        self._size: tuple[int, int] = (self.info.width, self.info.height)
        self._shift: int = 0
        self._last_pts: int = -1
        self._zero_captured: float = self._first.captured
        self._last_captured: float = self._first.captured
        self._last_at: float = time.time()
        self._running_since: float = time.monotonic()

    def read(self) -> Iterator[Frame | Packet[Stream]]:
        """See Source.read. Ends when the stream ends, or is gone for longer than ``patience``."""
        assert self._connection is not None
        self._watch.enter("running", f"running: {self._connection.picture}")
        if not (self._drains and self._feed.has_more):
            yield self._placed(self._first)
        while (over := (yield from self._until_over())) is not None:
            if over.error is not None and not isinstance(over.error, MEASNetError):
                raise over.error
            if over.ended:
                self._watch.end(over.why)
                break
            if not self._patience:
                if not over.closed:
                    self._warn(f"{self._name}: {over.why}; it was taken to have ended")
                self._watch.end(over.why)
                break
            again = self._reconnect(over.why)
            if again is None:
                break
            yield self._placed(again)
        self._sum_up()

    def interrupt(self) -> None:
        self._off.set()
        self._feed.call_off()

    def for_report(self) -> dict[str, Any]:
        return {
            "outages": [
                {
                    "at": round(outage.at, 3),
                    "seconds": round(outage.seconds, 3),
                    "why": outage.why,
                    "connections": outage.connections,
                }
                for outage in self._outages
            ]
        }

    def close(self) -> None:
        self.interrupt()
        self._feed.end(_LEAVE_SECONDS)
        self._watch.end("stopped")

    def _connect(self) -> Connection:
        if self._is_camera:
            return CameraConnection(self._spec)
        connection = NetworkConnection(self._spec, self._kept, insecure=self._insecure, waits=self._waits)
        self._kept = connection.kept
        return connection

    def _first_picture(self, stop: threading.Event) -> Frame:
        until = time.monotonic() + _FIRST_PICTURE_SECONDS
        while time.monotonic() < until:
            if stop.is_set():
                raise StoppedError(f"stopped before {self._name} had sent a picture")
            item = self._feed.get(_POLL_SECONDS)
            if isinstance(item, Connection):
                self._connection = self._unheard = item
            elif isinstance(item, Frame):
                return item
            elif isinstance(item, Over):
                raise item.error or InputError(f"{self._name}: {item.why}")
        raise InputError(f"{self._name} sends no picture; is it the right address?")

    def _until_over(self) -> Generator[Frame | Packet[Stream], None, Over | None]:
        """Gives what a connection sends until it is over, and says why; None when it was interrupted."""
        heard = time.monotonic()
        while not self._off.is_set():
            running = self._watch.state == "running"
            limit = self._stalled_after if running else self._gone_after
            item = self._feed.get(heard + limit - time.monotonic())
            if isinstance(item, Over):
                return item
            if isinstance(item, Frame):
                if not running:
                    self._watch.enter("running", "running again")
                yield self._placed(item)
                heard = time.monotonic()
            elif item is not None and not isinstance(item, Connection):
                asked = time.monotonic()
                # Sound from before the first picture has nothing to go with.
                if self._last_pts >= 0 and rebased(item, -self._shift * self.info.time_base):
                    yield item
                heard += time.monotonic() - asked  # whoever took it may have had to wait
            elif item is None and time.monotonic() >= heard + limit and not self._off.is_set():
                if not running:
                    return Over(f"no picture for {self._gone_after:g} s")
                self._watch.enter("stalled", f"no picture for {self._stalled_after:g} s")
        return None

    def _reconnect(self, why: str) -> Frame | None:
        """Tries to connect until a picture comes, and gives it; None where the run is to end."""
        began, tries, first_why = time.monotonic(), 0, why
        if began - self._running_since > _STEADY_SECONDS:
            self._backoff.reset()
        limit = "" if isinf(self._patience) else f" for {self._patience:g} s"
        self._watch.enter("reconnecting", f"{why}; trying again{limit}")
        until = began + self._patience
        while (left := until - time.monotonic()) > 0:
            if self._off.wait(min(self._backoff.pause(), left)):
                return None
            tries += 1
            item = self._try(until)
            if isinstance(item, Frame):
                self._back(item, first_why, tries)
                return item
            if isinstance(item, Over):
                if item.ended:
                    self._watch.end(item.why)
                    return None
                if item.error is not None and not isinstance(item.error, MEASNetError):
                    raise item.error
                why = item.why.removeprefix(f"{self._name} ")
        if not self._off.is_set():
            self.lost = f"{self._name} was gone for {self._patience:g} s ({why})"
            self._watch.enter("failed", self.lost)
        return None

    def _try(self, until: float) -> Frame | Over | None:
        """Connects once; the first picture, or why there is none."""
        self._leave()
        self._feed = Feed(self._connect)
        before = self._connection
        assert before is not None
        while not self._off.is_set() and time.monotonic() < until:
            item = self._feed.get(_POLL_SECONDS)
            if isinstance(item, Connection):
                if item.finished and not before.finished:
                    return Over("it has ended", ended=True)
                self._connection = self._unheard = item
                if (item.codec, item.info.rate) != (before.codec, before.info.rate):
                    self._watch.say("picture", f"it sends {item.picture} now, it sent {before.picture}")
            elif isinstance(item, Frame | Over):
                return item
        self._feed.call_off()
        return None

    def _back(self, first: Frame, why: str, tries: int) -> None:
        """Notes the outage, and has the times go on behind it."""
        assert self._connection is not None
        gone = max(0.0, first.captured - self._last_captured)
        self._outages.append(Outage(self._last_at, gone, why, tries))
        unit = self.info.time_base
        ahead = self._last_pts * unit - Fraction(self._last_captured - self._zero_captured)
        self._shift = self._last_pts + max(1, round((Fraction(gone) - max(Fraction(0), ahead)) / unit))
        self._running_since = time.monotonic()
        self._watch.enter(
            "running",
            f"running again after {gone:.1f} s: {self._connection.picture}",
            outage=round(gone, 3),
            connections=tries,
        )

    def _placed(self, frame: Frame) -> Frame:
        """The frame at its time in the whole stream, in the size and the depth of the first."""
        unit = self.info.time_base
        pts, duration = frame.pts, frame.duration
        if frame.time_base != unit:
            pts = round(pts * frame.time_base / unit)
            duration = round(duration * frame.time_base / unit)
        if self._last_pts < 0:
            self._shift, self._zero_captured = -pts, frame.captured
        pts = self._in_order(pts + self._shift, frame.captured)
        self._last_pts, self._last_captured, self._last_at = pts, frame.captured, time.time()
        pixels = self._fitted(frame.pixels, float(pts * unit))
        return replace(frame, pixels=pixels, pts=pts, time_base=unit, duration=duration)

    def _in_order(self, pts: int, captured: float) -> int:
        """Has times rise. Damage can make them leap: then this machine's clock says how far they go on."""
        assert self._connection is not None
        unit = self.info.time_base
        gone = captured - self._last_captured
        step = (pts - self._last_pts) * unit
        if not self._connection.finished and (step > gone + _LEAP_SECONDS or step < -_LEAP_SECONDS):
            at = self._last_pts + max(1, round(gone / unit))
            self._shift += at - pts
            return at
        return max(pts, self._last_pts + 1)

    def _fitted(self, pixels: Pixels, seconds: float) -> Pixels:
        size = pixels.shape[1], pixels.shape[0]
        first = self.info.width, self.info.height
        if size != self._size:
            before, self._size = self._size, size
            self._watch.say(
                "picture",
                f"the picture is {size[0]}x{size[1]} now, it was {before[0]}x{before[1]}; "
                f"the result stays at {first[0]}x{first[1]}",
                width=size[0],
                height=size[1],
            )
        if size != first:
            if size in self._scaled or len(self._scaled) < _KEPT_WARNINGS:
                since, count = self._scaled.get(size, (seconds, 0))
                self._scaled[size] = since, count + 1
            pixels = letterboxed(pixels, *first)
        return sixteen_bits(pixels) if self.info.bits > 8 else eight_bits(pixels)

    def _leave(self) -> None:
        """Ends the connection, and takes over what it has to say."""
        self._feed.end(_LEAVE_SECONDS)
        connection, self._unheard = self._unheard, None
        if connection is not None:
            self.damaged += connection.damaged
            for line in connection.warnings:
                self._warn(line)

    def _sum_up(self) -> None:
        """Ends the last connection, and tells of all of them."""
        self._leave()
        for (width, height), (seconds, count) in self._scaled.items():
            self._warn(
                f"the picture changes its size on the way, from {self.info.width}×{self.info.height} to "
                f"{width}×{height} at {seconds:.2f} s: {count} frames were scaled to the first size"
            )
        if self.damaged:
            self._warn(f"{self.damaged} damaged frames were left out")

    def _warn(self, line: str) -> None:
        if line not in self.warnings and len(self.warnings) < _KEPT_WARNINGS:
            self.warnings.append(line)


def letterboxed(pixels: Pixels, width: int, height: int) -> Pixels:
    """H W 3 -> ``height`` ``width`` 3: as large as its shape lets it be, in the middle of black."""
    before_height, before_width = pixels.shape[:2]
    scale = min(width / before_width, height / before_height)
    inner_width, inner_height = round(before_width * scale), round(before_height * scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(pixels, (inner_width, inner_height), interpolation=how)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    bottom, right = height - inner_height - top, width - inner_width - left
    return np.asarray(cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_CONSTANT), pixels.dtype)
