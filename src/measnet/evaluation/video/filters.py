"""Classical tools for video: ffmpeg's denoisers, each in a small grid of settings.

A filter is credited with the one setting that gains most in the mean over all sequences, which a user could
not know beforehand. Filters get a video file's own planes, not pictures made of them, as ffmpeg itself would.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import IO, Any, Protocol

import av
import av.filter
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from measnet.errors import MEASNetError, first_line
from measnet.evaluation.classical import Tool
from measnet.evaluation.video.as_run import RgbReader, read_colour
from measnet.evaluation.video.degrade import RATE
from measnet.evaluation.video.sequences import Footage
from measnet.evaluation.video.stopwatch import Stopwatch, Taken
from measnet.image import Pixels

GRID = {
    "hqdn3d": ("hqdn3d=4", "hqdn3d=8:6:4:4", "hqdn3d=12:9:4:4"),
    "nlmeans": (
        "nlmeans=s=6",
        "nlmeans=s=5:p=5:r=5",
        "nlmeans=s=6:p=5:r=5",
        "nlmeans=s=8:p=7:r=5",
        "nlmeans=s=10:p=7:r=5",
        "nlmeans=s=13:p=7:r=5",
        "nlmeans=s=16:p=7:r=5",
    ),
    "atadenoise": ("atadenoise", "atadenoise=0a=0.04:0b=0.1:1a=0.04:1b=0.1:2a=0.04:2b=0.1"),
    "bm3d": ("bm3d=sigma=20", "bm3d=sigma=30", "bm3d=sigma=45", "bm3d=sigma=60"),
}
"""Settings that are tried, by filter, from light coded noise to plain noise of σ 25; bm3d looks for no like
blocks, which gained less and took longer."""


class VideoTool(Protocol):
    """A tool in one setting, over the frames of one sequence."""

    taken: Taken
    """Time so far, reading and judging left out."""

    def run(self, footage: Footage) -> Iterator[Pixels]:
        """The degraded frames as the tool gives them, H W 3, RGB; so many as there are."""
        ...


class FrameByFrame:
    """A tool for pictures (``measnet.evaluation.classical``) that takes every frame by itself."""

    def __init__(self, tool: Tool) -> None:
        self.taken = Taken(0.0, 0.0)
        self._tool = tool

    def run(self, footage: Footage) -> Iterator[Pixels]:
        for pixels in footage.degraded():
            with Stopwatch() as watch:
                done = self._tool.apply(pixels, None)
            self.taken += watch.taken
            yield done


class _Filter:
    """A filter of ffmpeg in one setting, on planes as they are decoded."""

    def __init__(self, setting: str, threads: int) -> None:
        self.taken = Taken(0.0, 0.0)
        self._setting = setting
        self._threads = threads

    def run(self, footage: Footage) -> Iterator[Pixels]:
        yield from _in_rgb(self._filtered(footage.planes()))

    def _filtered(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        raise NotImplementedError


class LibraryFilter(_Filter):
    """A filter of the FFmpeg that PyAV brings along. Raises ``MEASNetError`` for a setting it refuses."""

    def _filtered(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        graph: av.filter.Graph | None = None
        try:
            for frame in frames:
                graph = graph or self._graph(frame)
                yield from self._pass(frame, graph)
            if graph is not None:
                yield from self._pass(None, graph)
        except (av.FFmpegError, ValueError) as error:
            raise MEASNetError(f"the filter {self._setting} failed: {first_line(error)}") from None

    def _pass(self, frame: av.VideoFrame | None, graph: av.filter.Graph) -> list[av.VideoFrame]:
        """Pushes one frame more, or the end, and gives what comes out."""
        with Stopwatch() as watch:
            graph.push(frame)
            done = _pulled(graph)
        self.taken += watch.taken
        return done

    def _graph(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = self._threads
        name, _, arguments = self._setting.partition("=")
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1, RATE),
            ),
            graph.add(name, arguments or None),
            graph.add("buffersink"),
        ).configure()
        return graph


class ProgramFilter(_Filter):
    """A filter of the program ``ffmpeg``, where PyAV has it not. Raises ``MEASNetError`` when it fails.

    Frames go in and come out through pipes, which hold a few.
    """

    def _filtered(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        first = next(frames, None)
        if first is None:
            return
        name, width, height = first.format.name, first.width, first.height
        form = ["-f", "rawvideo", "-pix_fmt", name]
        few = ["-filter_threads", str(self._threads), "-threads", str(self._threads)]
        command = ["ffmpeg", "-v", "error", "-nostdin", *few, *form, "-s", f"{width}x{height}", "-i", "-"]
        process = subprocess.Popen(
            [*command, "-vf", self._setting, *form, "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None and process.stdout is not None
        feeder = _Feeder(first, frames, process.stdin)
        try:
            feeder.start()
            size = len(_packed(first))
            while len(data := process.stdout.read(size)) == size:
                yield _filled(feeder.written.popleft(), data)
            feeder.join()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.taken += Taken(usage.ru_utime + usage.ru_stime, None)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            feeder.join()
            process.stdout.close()
        if feeder.error is not None:
            raise feeder.error
        if process.returncode:
            raise MEASNetError(f"the filter {self._setting} failed: ffmpeg ended with {process.returncode}")


class _Feeder(threading.Thread):
    """Writes frames to a program as fast as it takes them."""

    def __init__(self, first: av.VideoFrame, rest: Iterator[av.VideoFrame], pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self.written: deque[av.VideoFrame] = deque()
        """Frames that the program has, and has not given back yet."""

        self._first, self._rest, self._pipe = first, rest, pipe

    def run(self) -> None:
        try:
            for frame in itertools.chain([self._first], self._rest):
                self.written.append(frame)
                self._pipe.write(_packed(frame))
            self._pipe.close()
        except BrokenPipeError:  # the program has ended; its exit status says why
            with contextlib.suppress(BrokenPipeError):
                self._pipe.close()
        except Exception as error:
            self.error = error
            self._pipe.close()


def new_filter(setting: str, threads: int) -> VideoTool:
    """One of ffmpeg's filters in a setting, from PyAV or else from the program.

    Raises ``MEASNetError`` where neither has it.
    """
    if _in_library(setting):
        return LibraryFilter(setting, threads)
    if shutil.which("ffmpeg") is None:
        raise MEASNetError("PyAV has no such filter, and the program ffmpeg is not installed")
    return ProgramFilter(setting, threads)


def _in_library(setting: str) -> bool:
    return setting.partition("=")[0] in av.filter.filters_available


def _pulled(graph: av.filter.Graph) -> list[av.VideoFrame]:
    done = []
    while True:
        try:
            done.append(graph.vpull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return done


def _in_rgb(frames: Iterable[av.VideoFrame]) -> Iterator[Pixels]:
    reader: RgbReader | None = None
    for frame in frames:
        reader = reader or RgbReader(read_colour(frame), frame.width, frame.height)
        yield reader.read(frame)


def _packed(frame: av.VideoFrame) -> bytes:
    """The planes without the padding of their rows."""
    return b"".join(_samples(plane, frame)[:, : plane.width].tobytes() for plane in frame.planes)


def _filled(frame: av.VideoFrame, data: bytes) -> av.VideoFrame:
    """The frame with other planes: all else it says of itself, as where its chroma lies, holds for these."""
    frame.make_writable()
    start = 0
    for plane in frame.planes:
        rows = _samples(plane, frame).copy()
        values = np.frombuffer(data, rows.dtype, plane.height * plane.width, start)
        rows[:, : plane.width] = values.reshape(plane.height, plane.width)
        plane.update(rows.tobytes())
        start += values.nbytes
    return frame


def _samples(plane: VideoPlane, frame: av.VideoFrame) -> NDArray[Any]:
    """A plane with the padding of its rows: height, at least width."""
    kind = np.dtype("<u2" if frame.format.components[0].bits > 8 else np.uint8)
    return np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)
