"""Comparisons of source and result: side by side, half and half, or on a page with a slider."""

from __future__ import annotations

import html
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal
from urllib.parse import quote

import cv2
import numpy as np

from measnet.errors import InputError, MEASNetError, OutputError, UsageError
from measnet.image import Pixels, eight_bits, sixteen_bits
from measnet.image_header import orientation, result_name
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Comparing, Encoding, RunOptions
from measnet.runtime.sinks.aside import Aside, check_target
from measnet.runtime.sinks.orientation import EXIF_TURNS, turn_of, turned
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT
from measnet.runtime.sinks.target import Target
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources import Source
from measnet.runtime.sources.choose import open_source
from measnet.runtime.sources.images import Images
from measnet.runtime.sources.standard_input import STANDARD_INPUT
from measnet.runtime.sources.video import VideoFile
from measnet.whole_file import write_whole

Layout = Literal["side", "split"]

LINE = 2
"""Width of the white line between the halves, in pixels."""

PLAYED = (".mp4", ".m4v", ".mov", ".webm")
"""Endings of videos that browsers play."""

SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Endings of pictures that browsers show."""


def laid_out(source: Pixels, restored: Pixels, layout: Layout) -> Pixels:
    """Two pictures of H×W×3 as one: ``side`` is H×2W×3 with the source on the left; ``split`` is H×W×3, its
    left half of the source and its right half of the result, with a line between them. Where only one is
    uint16, the other becomes so.

    Raises:
        InputError: they differ in size.
    """
    if source.shape != restored.shape:
        raise InputError(
            f"source and result cannot be compared: {source.shape[1]}×{source.shape[0]} and "
            f"{restored.shape[1]}×{restored.shape[0]} pixels"
        )
    if source.dtype != restored.dtype:
        source, restored = sixteen_bits(source), sixteen_bits(restored)
    if layout == "side":
        return np.concatenate([source, restored], axis=1)
    middle = source.shape[1] // 2
    picture = np.concatenate([source[:, :middle], restored[:, middle:]], axis=1)
    picture[:, max(0, middle - LINE // 2) : middle + LINE // 2] = np.iinfo(picture.dtype).max
    return picture


def compare_pictures(source: Path, restored: Path, target: Path, layout: Layout) -> None:
    """Writes one picture of two image files, as a viewer would show them (EXIF orientation applied).

    Raises:
        InputError: one of them cannot be read.
        OutputError: ``target`` cannot be written.
    """
    picture = laid_out(_upright(source), _upright(restored), layout)
    written, data = cv2.imencode(target.suffix, picture)
    if not written:
        raise OutputError(f"a picture of {picture.shape[1]}×{picture.shape[0]} cannot be {target.suffix}")
    write_whole(target, data.tobytes())


def _upright(path: Path) -> Pixels:
    for frame in Images(path).read():
        assert frame.picture is not None
        turn = EXIF_TURNS[orientation(frame.picture.metadata.exif)]
        return turned(eight_bits(frame.pixels), turn)[..., ::-1]
    raise InputError(f"{path} cannot be read; it was there a moment ago")


Turning = Callable[[Pixels], Pixels]


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

    Every frame of the result is paired with the source's frame of the same moment. ``source`` must have been
    opened as for the run that made ``restored``; it is read and closed here.

    Returns whether it is whole: False when ``stop`` was set, and nothing is left then.

    Raises:
        MEASNetError: one of them cannot be read, or ``target`` not be written; nothing is left behind.
    """
    stop = stop or threading.Event()
    result = VideoFile(restored)
    source.settle_clock([target.suffix.lower()])
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


def _turning(info: StreamInfo) -> Turning:
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


def check_page(source: Path, result: Path) -> None:
    """Raises ``UsageError`` for a file that no browser shows."""
    for file in (source, result):
        if file.suffix.lower() not in (*PLAYED, *SHOWN):
            another = "" if file == source else ", or an --out ending in .mp4"
            raise UsageError(
                f"browsers do not show {file.suffix or 'such'} files ({file.name}): "
                f"use --compare side{another}"
            )


def write_page(source: Path, restored: Path, target: Path, *, rate: float | None = None) -> None:
    """Writes a page beside ``restored`` that shows both files from where they lie; it holds nothing of them.

    ``rate`` is the frames per second of a video, for stepping by the arrow keys.
    Raises ``OutputError`` when it cannot be written.
    """
    video = restored.suffix.lower() in PLAYED
    values = {
        "title": html.escape(f"{source.name} and {restored.name}"),
        "source": _element(video, "source", _address(source, target.parent)),
        "restored": _element(video, "restored", _address(restored, target.parent)),
        "controls": _CONTROLS if video else "",
        "frame": json.dumps(1 / rate if rate else 0.04),
    }
    page = files("measnet.runtime").joinpath("slider.html").read_text("utf-8")
    write_whole(target, Template(page).substitute(values))


def _address(file: Path, folder: Path) -> str:
    """Gives the address of ``file``, seen from ``folder``."""
    relative = os.path.relpath(file.resolve(), folder.resolve())
    return quote(os.fsencode(Path(relative).as_posix()), safe="/")


def _element(video: bool, name: str, address: str) -> str:
    address = html.escape(address)
    if video:
        muted = " muted" if name == "restored" else ""
        return f'<video id="{name}" src="{address}" preload="auto" playsinline{muted}></video>'
    return f'<img id="{name}" src="{address}" alt="{name}">'


_CONTROLS = """<p class="controls">
<button id="play">Play</button>
<input id="moment" type="range" min="0" max="1" step="any" value="0" aria-label="Moment">
<output id="clock">0.00 s</output>
</p>"""


class Comparison:
    """The comparison of one input with its result, made once that is whole: it reads both again.

    Args:
        spec: the input: a video, a picture, or a folder of pictures.
        info: what was found in it.
        targets: of the run; the results need not exist yet.
        options: of the run; ``compare`` says how.

    Raises:
        UsageError: there is nothing to compare such an input by.
    """

    def __init__(self, spec: str, info: StreamInfo, targets: Sequence[Target], options: RunOptions) -> None:
        result, how = targets[0], options.compare
        assert how is not None
        piped = spec == STANDARD_INPUT or result == STANDARD_OUTPUT
        if piped or len(targets) != 1 or not isinstance(result, Path):
            raise UsageError("--compare needs the source in a file, and one result in a file")
        if how == "slider" and options.reading.start:
            raise UsageError(
                "--compare slider shows the source from its beginning, not from --start; use side or split"
            )
        if info.kind == "live":
            raise UsageError("--compare needs a file: a live source is gone once it has been restored")
        source = Path(spec)
        if how == "slider":
            if source.is_dir():
                raise UsageError(
                    "--compare slider takes one video or picture; for a folder use side or split"
                )
            check_page(source, result)
        self.target = _target(result, how, source.is_dir())
        check_target(self.target, [source], overwrite=options.overwrite or options.dry_run)
        self._spec, self._source, self._info, self._result = spec, source, info, result
        self._how, self._options = how, options

    def make(
        self,
        on_progress: Callable[[int], None] = lambda frames: None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Compares the result with its source, read as it was read for the run.

        Returns whether it is whole; nothing is left when ``stop`` was set.
        Raises ``MEASNetError``, and leaves nothing.
        """
        stop = stop or threading.Event()
        if self._how == "slider":
            rate = float(self._info.rate or 25)
            write_page(self._source, self._result, self.target, rate=rate)
        elif self._info.kind == "video":
            source = open_source(self._spec, self._options.reading)
            asked = self._options.encoding
            # The result lies there by now: sound that has no place is no reason to end without this one.
            encoding = Encoding(crf=asked.crf, sound="none" if asked.sound == "none" else "convert")
            return compare_videos(
                source, self._result, self.target, self._how, encoding, on_progress=on_progress, stop=stop
            )
        elif self._source.is_dir():
            return self._pictures(on_progress, stop)
        else:
            compare_pictures(self._source, self._result, self.target, self._how)
        return True

    def _pictures(self, on_progress: Callable[[int], None], stop: threading.Event) -> bool:
        assert self._how != "slider"
        aside = Aside(self.target)
        aside.discard()
        try:
            aside.path.mkdir()
        except OSError as error:
            raise OutputError(f"the folder {aside.path} cannot be made: {error.strerror}") from None
        try:
            there = {picture.name: picture for picture in self._result.iterdir()}
            sources = [path for path in Images(self._source).paths if result_name(path) in there]
            for number, source in enumerate(sources, start=1):
                if stop.is_set():
                    aside.discard()
                    return False
                picture = there[result_name(source)]
                compare_pictures(source, picture, aside.path / picture.name, self._how)
                on_progress(number)
            aside.keep()
        except MEASNetError:
            aside.discard()
            raise
        return True


def _target(result: Path, how: Comparing, folder: bool) -> Path:
    """``clip.restored.mp4`` -> ``clip.restored.compare.mp4``, or ``.html`` for a page."""
    if folder:
        return result.with_name(f"{result.name}.compare")
    return result.with_name(f"{result.stem}.compare{'.html' if how == 'slider' else result.suffix}")
