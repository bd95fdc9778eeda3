"""A live source's file in parts of equal length, each closed when it is full."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measnet.errors import OutputError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.times import rebased

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_WAITING = 2000
"""Packets of sound that may wait for the picture; then the oldest goes."""

_LATE_SOUND = 1
"""Seconds by which sound may come behind the picture; transport streams have it so."""


class PartsSink(Sink):
    """Writes ``door.mp4`` as ``door.0001.mp4``, ``door.0002.mp4`` and so on; times of each count from its
    first frame. Parts that are there already are left alone: numbers go on behind them.

    Args:
        target: names the parts.
        info: what belongs to the source's stream and is to survive.
        encoding: asked for.
        seconds: of each part, above 0.

    Raises:
        UsageError, OutputError: as VideoSink.
    """

    def __init__(self, target: Path, info: StreamInfo, encoding: Encoding, seconds: Fraction) -> None:
        super().__init__()
        self._target = target
        self._info = info
        self._encoding = encoding
        self._seconds = seconds
        self._number = _last_number(target)
        self._sound: deque[Packet[Stream]] = deque(maxlen=_WAITING)
        self._made: list[Path] = []
        self._origin: Fraction | None = None
        self._part: VideoSink | None = self._open()
        self._last: tuple[VideoSink, Fraction] | None = None

    def for_report(self) -> dict[str, Any]:
        return {} if self._part is None else self._part.for_report()

    def write(self, frame: Frame) -> None:
        at = frame.pts * frame.time_base
        if self._origin is None:
            self._origin = at
        self._copy_until(at)
        if at - self._origin >= _LATE_SOUND:
            self._close_last()
        # A clock that was set back begins a part, too.
        if not 0 <= at - self._origin < self._seconds:
            self._close_last()
            if self._part is not None:
                self._last = self._part, self._origin
            self._part, self._origin = self._open(), at
        if self._part is None:
            raise OutputError(f"{self._target} is closed already")
        shift = round(self._origin / frame.time_base)
        self._part.write(replace(frame, pts=frame.pts - shift))

    def copy(self, packet: Packet[Stream]) -> None:
        """See Sink.copy. Sound waits for the picture, to be in the same part."""
        if packet.pts is None or packet.dts is None:
            return
        if self._last is not None and self._origin is not None:
            if packet.pts * packet.time_base < self._origin:
                part, origin = self._last
                if rebased(packet, origin):
                    part.copy(packet)
                return
            self._close_last()
        self._sound.append(packet)

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish. Returns the first part."""
        if self._sound and (last := self._sound[-1]).pts is not None:
            self._copy_until(last.pts * last.time_base + 1)
        self._close_last()
        part, self._part = self._part, None
        if part is not None:
            self._close(part, partial=partial)
        if len(self._made) > 1:
            self.warnings.append(f"{len(self._made)} parts, the last is {self._made[-1].name}")
        return self._made[0] if self._made else None

    def abort(self) -> None:
        """See Sink.abort. Parts that are closed stay."""
        for part in (self._part, self._last and self._last[0]):
            if part is not None:
                part.abort()
        self._part = self._last = None

    def _copy_until(self, at: Fraction) -> None:
        """Copies the sound from before a moment."""
        while self._sound and (self._sound[0].pts or 0) * self._sound[0].time_base < at:
            packet = self._sound.popleft()
            if self._part is not None and self._origin is not None and rebased(packet, self._origin):
                self._part.copy(packet)

    def _open(self) -> VideoSink:
        self._number += 1
        part = VideoSink(_named(self._target, self._number), self._info, self._encoding)
        self._take_over(part)
        return part

    def _close_last(self) -> None:
        if self._last is not None:
            (part, _), self._last = self._last, None
            self._close(part)

    def _close(self, part: VideoSink, *, partial: bool = False) -> None:
        try:
            made = part.finish(partial=partial)
        finally:
            part.abort()
            self._take_over(part)
        if made is not None:
            self._made.append(made)


def _named(target: Path, number: int) -> Path:
    return target.with_name(f"{target.stem}.{number:04d}{target.suffix}")


def _last_number(target: Path) -> int:
    """The highest number of a part that is there, whole or not."""
    ending = re.escape(target.suffix)
    part = re.compile(rf"{re.escape(target.stem)}\.(\d{{4,}})(\.partial)?{ending}(\.part)?")
    return max(
        (int(found[1]) for path in target.parent.iterdir() if (found := part.fullmatch(path.name))), default=0
    )
