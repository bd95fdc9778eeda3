"""Interlaced pictures, found by what the decoder says of each, and made whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.filter import Graph

from measnet.errors import InputError
from measnet.runtime.options import Interlaced

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_Moment = tuple[int, Fraction, int]


class Fields:
    """Deals with the interlaced frames of one stream, from the first that the decoder marks.

    Headers are not asked: they are often wrong, and a stream may be interlaced in part. With
    ``deinterlace`` each marked frame becomes one whole picture with its own time (FFmpeg's
    bwdif, which looks at the frames before and after); others pass as they are.

    Args:
        how: ``deinterlace``, ``refuse`` or ``keep``.
        name: what messages call the source.

    ``warnings`` are lines for the user.
    """

    def __init__(self, how: Interlaced, name: str) -> None:
        self.warnings: list[str] = []
        self._how = how
        self._name = name
        self._found = False

    def whole(
        self, items: Iterator[av.VideoFrame | Packet[Stream]]
    ) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """``items`` with every frame whole. Every frame must have its time.

        Raises InputError for an interlaced frame that is to be refused.
        """
        weaver: _Deinterlacer | None = None
        for item in items:
            if not isinstance(item, av.VideoFrame):
                yield item
                continue
            if item.interlaced_frame and not self._found:
                self._found = True
                self._speak()
            if self._how != "deinterlace" or not self._found:
                yield item
                continue
            if weaver is not None and not weaver.takes(item):
                yield from weaver.rest()
                weaver = None
            weaver = weaver or _Deinterlacer(item)
            yield from weaver.after(item)
        if weaver is not None:
            yield from weaver.rest()

    def _speak(self) -> None:
        if self._how == "refuse":
            raise InputError(
                f"{self._name} is interlaced; use --interlaced deinterlace, or keep to leave its fields alone"
            )
        if self._how == "deinterlace":
            self.warnings.append(
                "interlaced video was deinterlaced, one picture for each frame; --interlaced keep leaves it"
            )
        else:
            self.warnings.append(
                "interlaced video is restored and written as whole frames, which no longer say that they "
                "are interlaced"
            )


class _Deinterlacer:
    """FFmpeg's filter for frames of one size and format. It gives out a frame once it has seen the next."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._shape = _shape(first)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base
        )
        # "interlaced" leaves frames alone that are not marked.
        filtered = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(source, filtered, self._graph.add("buffersink")).configure()
        self._moments: deque[_Moment] = deque()

    def takes(self, frame: av.VideoFrame) -> bool:
        return _shape(frame) == self._shape

    def after(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Takes the next frame, and yields those that are deinterlaced with it."""
        self._moments.append((frame.pts or 0, frame.time_base or Fraction(1), frame.duration))
        self._graph.push(frame)
        yield from self._pulled()

    def rest(self) -> Iterator[av.VideoFrame]:
        """Yields the last frames, at the end."""
        self._graph.push(None)
        yield from self._pulled()

    def _pulled(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # One frame in, one frame out: the filter's own clock runs at twice the pace.
            frame.pts, frame.time_base, frame.duration = self._moments.popleft()
            yield frame


def _shape(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
