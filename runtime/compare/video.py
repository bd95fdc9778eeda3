"""A video of source and result beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from measnet.errors import InputError
from measnet.runtime.compare.layout import Layout, laid_out
from measnet.runtime.frame import Frame, Pixels, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.orientation import turn_of, turned
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources import Source
from measnet.runtime.sources.video import VideoFile

Shown = Callable[[Pixels], Pixels]


def compare_videos(
    source: Source,
    restored: Path,
    target: Path,
    layout: Layout,
    encoding: Encoding | None = None,
    *,
    on_progress: Callable[[int], None] = lambda frames: None,
    stop: threading.Event | None = None,
) -> bool:
    """Writes a video of both, with the source's sound and times, turned the way it is shown.

    Every frame of the result stands beside the source's frame of the same moment. ``source`` must have been
    opened as for the run that made ``restored``; it is read and closed here.

    Returns whether it is whole: False when ``stop`` was set, and nothing is left then.

    Raises:
        MEASNetError: one of them cannot be read, or ``target`` not be written; nothing is left behind.
    """
    stop = stop or threading.Event()
    result = VideoFile(restored)
    try:
        shown = _turning(source.info)
        sink = VideoSink(target, _layout_info(source.info, layout), encoding)
        try:
            frames = 0
            moments = _Moments(result.read(), source.info.rate)
            for item in source.read():
                if stop.is_set():
                    return False
                if not isinstance(item, Frame):
                    sink.copy(item)
                    continue
                match = moments.at(item)
                if match is None:
                    continue
                pixels = laid_out(shown(item.pixels), shown(match.pixels), layout)
                sink.write(replace(item, pixels=pixels))
                frames += 1
                on_progress(frames)
            if sink.finish() is None:
                raise InputError(f"{restored}: no frame of it is one of {source.info.name}")
            return True
        finally:
            sink.abort()
    finally:
        result.close()
        source.close()


class _Moments:
    """The result's frames, found by the time they are shown.

    Times count from the first frame on either side: some containers move all of them by the sound's run-up.
    They also round, so half a frame's length either way is the same moment.
    """

    def __init__(self, items: Iterator[object], rate: Fraction | None) -> None:
        self._frames = (item for item in items if isinstance(item, Frame))
        self._next = next(self._frames, None)
        self._start = _time(self._next) if self._next else Fraction(0)
        self._source_start: Fraction | None = None
        self._usual = 1 / (rate or 50)

    def at(self, frame: Frame) -> Frame | None:
        """The frame shown at the same moment as ``frame``, if there is one; call in order of time."""
        if self._source_start is None:
            self._source_start = _time(frame)
        moment = _time(frame) - self._source_start + self._start
        near = (frame.duration * frame.time_base or self._usual) / 2
        while self._next is not None and _time(self._next) < moment - near:
            self._next = next(self._frames, None)
        found = self._next
        if found is None or _time(found) > moment + near:
            return None
        self._next = next(self._frames, None)
        return found


def _time(frame: Frame) -> Fraction:
    return frame.pts * frame.time_base


def _turning(info: StreamInfo) -> Shown:
    turn = turn_of(info.display_matrix) if info.display_matrix else None
    return (lambda pixels: turned(pixels, turn)) if turn else (lambda pixels: pixels)


def _layout_info(info: StreamInfo, layout: Layout) -> StreamInfo:
    """The source's properties, for the picture that is shown."""
    width, height, aspect = info.width, info.height, info.sample_aspect
    turn = turn_of(info.display_matrix) if info.display_matrix else None
    if turn is not None and turn[0]:
        width, height, aspect = height, width, 1 / aspect if aspect else None
    return replace(
        info,
        width=width * 2 if layout == "side" else width,
        height=height,
        sample_aspect=aspect,
        display_matrix=None if turn else info.display_matrix,
    )
