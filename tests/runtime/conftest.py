"""Real clips made by ffmpeg, real probing by ffprobe, and an engine that changes nothing."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from measnet.image import Pixels
from measnet.runtime.frame import Mark, Restoration, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.sinks.part_folder import Header
from measnet.runtime.sinks.segmented import SegmentedVideoSink
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.video import VideoFile
from measnet.runtime.steady import Steady
from measnet.runtime.stream import RunFigures, run

from . import started_once
from .identity import IdentityRestorer

MakeClip = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        skip = pytest.mark.skip(reason="ffmpeg and ffprobe are not on PATH")
        for item in items:
            item.add_marker(skip)


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg; its complaint is the test's failure."""
    done = started_once.run("ffmpeg", "-v", "error", "-y", *map(str, arguments))
    assert done.returncode == 0, done.stderr.decode()


@dataclass
class Probed:
    """The answer of ffprobe about a file. ``times`` are of the frames that have one."""

    video: dict[str, Any]
    kinds: list[str]
    times: list[Fraction]
    rotation: int
    format: dict[str, Any]
    copied: list[tuple[str, str, int]]

    def tags(self) -> tuple[str, ...]:
        keys = ("color_space", "color_primaries", "color_transfer", "color_range")
        return tuple(self.video.get(key, "unknown") for key in keys)


def probe(path: Path) -> Probed:
    """Streams, exact frame times, and the hashes of every packet that is not video; a file that has not
    changed is asked once."""
    there = path.stat()
    return _probed(path, there.st_ino, there.st_mtime_ns, there.st_size)


@functools.cache
def _probed(path: Path, *_state: int) -> Probed:
    command = ["ffprobe", "-v", "quiet", "-of", "json", "-show_streams", "-show_format"]
    command += ["-show_packets", "-show_data_hash", "md5", "-show_frames"]
    found = json.loads(started_once.run(*command, str(path)).stdout)
    video = next(s for s in found["streams"] if s["codec_type"] == "video")
    both = found["packets_and_frames"]
    time_base = Fraction(video["time_base"])
    return Probed(
        video=video,
        kinds=[stream["codec_type"] for stream in found["streams"]],
        times=[
            f["best_effort_timestamp"] * time_base
            for f in both
            if f["type"] == "frame" and f["media_type"] == "video" and "best_effort_timestamp" in f
        ],
        rotation=next((d["rotation"] for d in video.get("side_data_list", []) if "rotation" in d), 0),
        format=found["format"],
        copied=sorted(
            (p["codec_type"], p["data_hash"], int(p["size"]))
            for p in both
            if p["type"] == "packet" and p["codec_type"] != "video"
        ),
    )


def decode(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All frames as ffmpeg itself sees them: uint8 N×H×W×3, RGB, not turned."""
    with av.open(str(path)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-noautorotate",
        "-i",
        str(path),
        "-fps_mode",
        "passthrough",
    ]
    command += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"]
    done = started_once.run(*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    """Makes a clip of moving colour bars, with a tone: ``clip("a.mp4", "-r", "25", ...)``.

    The same call gives the same file: tests must not change it.
    """
    folder = tmp_path_factory.mktemp("clips")
    made: dict[tuple[str, ...], Path] = {}

    def make(
        name: str, *arguments: str, size: str = "96x64", seconds: float = 0.8, audio: bool = True
    ) -> Path:
        key = (name, size, str(seconds), str(audio), *arguments)
        if key not in made:
            path = Path(tempfile.mkdtemp(dir=folder)) / name
            picture = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d={seconds}"]
            tone = ["-f", "lavfi", "-i", f"sine=d={seconds}"] if audio else []
            ffmpeg(*picture, *tone, "-preset", "ultrafast", *arguments, path)
            made[key] = path
        return made[key]

    return make


@pytest.fixture
def video(clip: MakeClip, tmp_path: Path) -> Path:
    """A video that a test may change: 20 frames and a tone."""
    return Path(shutil.copy(clip("plain.mp4"), tmp_path / "clip.mp4"))


class Each:
    """The first step of a stream: every frame for itself, by a function of its pixels."""

    name = "restore"

    def __init__(self, restore: Callable[[Pixels], Pixels] = lambda pixels: pixels) -> None:
        self._restore = restore

    def take(self, passing: Restoration) -> None:
        passing.pixels, passing.tiles = self._restore(passing.source.pixels), 1

    def mark(self, mark: Mark) -> Mark:
        return mark


class SteadyVideo:
    """A restorer that restores the frames of one video, held steady."""

    def __init__(self, restorer: Restorer, share: float) -> None:
        self.steady = Steady(share)
        self._restorer = restorer
        self._scenes = SceneCut()

    def restore(self, pixels: Pixels) -> RestoredFrame:
        new_scene = self._scenes.begins_with(pixels)
        return self.steady.restore(self._restorer, pixels, new_scene=new_scene)

    def go_on_from(self, other: SteadyVideo) -> None:
        self.steady.set_state(other.steady.state(), self._restorer.decisions_size)
        self._scenes.set_state(other._scenes.state())


@dataclass
class Outcome:
    """The outcome of a run whose engine changes nothing."""

    path: Path | None
    figures: RunFigures
    source: VideoFile
    sink: VideoSink | SegmentedVideoSink
    warnings: list[str] = field(default_factory=list)


def restore_unchanged(
    source: Path,
    target: Path,
    restore: Callable[[Pixels], Pixels] = lambda p: p,
    *,
    direct: bool = False,
    **options: Any,
) -> Outcome:
    """Source file to target file with an engine that changes nothing; in segments, as a file is, or
    ``direct``, as a live source is. ``reading`` are the source's options, the others those of Encoding."""
    video = VideoFile(source, options.pop("reading", None))
    encoding = Encoding(**{"preset": "ultrafast", **options})
    try:
        sink: VideoSink | SegmentedVideoSink
        if direct:
            sink = VideoSink(target, video.info, encoding)
        else:
            sink = SegmentedVideoSink(target, video.info, source, video.copied_packets, encoding)
            sink.begin(Header({}, {"encoder_threads": 2}), restart=False)
    except BaseException:
        video.close()
        raise
    try:
        figures = run(video, (Each(restore),), sink)
        path = sink.finish()
    finally:
        sink.abort()
        video.close()
    return Outcome(path, figures, video, sink, [*video.warnings, *sink.warnings])


@dataclass
class Answer:
    status: int
    out: str
    err: str


def run_here(*arguments: str | Path, engine: Callable[[], Any] = IdentityRestorer) -> Answer:
    """Runs ``measnet-run`` in this process, with an engine that changes nothing unless another is given."""
    from click.testing import CliRunner

    from measnet.runtime import cli

    result = CliRunner().invoke(cli.main, [*map(str, arguments)], obj=lambda options: engine())
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def measnet_run() -> Callable[..., Answer]:
    return run_here


IDENTITY_COMMAND = [sys.executable, str(Path(__file__).parent / "identity_run.py")]
"""``measnet-run`` in a process of its own, for signals; the first argument is seconds per frame."""


def still(info: StreamInfo) -> Pixels:
    return np.full((info.height, info.width, 3), 90, np.uint8)
