"""Live streams, over the loopback only."""

from __future__ import annotations

import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from measnet.errors import InputError
from measnet.runtime.pipeline import run
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.camera import Camera
from measnet.runtime.sources.live import LiveStream

from .conftest import MakeClip, probe
from .rtsp_server import rtsp_server


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


@contextmanager
def process(*command: str) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
    try:
        yield
    finally:
        running.kill()
        running.wait()


@contextmanager
def mpegts_over_tcp(clip: Path) -> Iterator[str]:
    url = f"tcp://127.0.0.1:{free_port()}"
    source = ["ffmpeg", "-v", "quiet", "-re", "-i", str(clip), "-c", "copy"]
    with process(*source, "-f", "mpegts", f"{url}?listen=1"):
        yield url


def open_when_up(url: str) -> LiveStream:
    for _ in range(50):
        try:
            return LiveStream(url)
        except InputError as error:
            if "cannot be opened" not in str(error):
                raise
            time.sleep(0.1)
    raise AssertionError(f"{url} never came up")


def record(source: LiveStream, target: Path, pause: float = 0) -> int:
    sink = VideoSink(target, source.info, preset="ultrafast")

    def restore(pixels: object) -> object:
        time.sleep(pause)
        return pixels

    try:
        figures = run(source, restore, sink)  # type: ignore[arg-type]
        sink.finish()
    finally:
        sink.abort()
        source.close()
    return figures.dropped


def test_stream_is_recorded_with_its_own_times(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)
    with mpegts_over_tcp(source) as url:
        record(open_when_up(url), tmp_path / "out.mp4")
    recorded = probe(tmp_path / "out.mp4")
    # What had piled up before the first look is overtaken by the newest of it.
    assert 0 <= recorded.times[0] < 1
    sent = probe(source).times
    assert len(recorded.times) > 10
    assert set(recorded.times) <= set(sent)
    assert "audio" in recorded.kinds


def test_a_stream_of_ten_bits_is_recorded_in_ten_bits(clip: MakeClip, tmp_path: Path) -> None:
    deep = ["-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error:bframes=0"]
    source = clip("live.mp4", "-g", "5", *deep, seconds=1.6)
    with mpegts_over_tcp(source) as url:
        record(open_when_up(url), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").video["pix_fmt"] == "yuv420p10le"


def test_slow_engine_drops_frames_instead_of_falling_behind(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)
    started = time.monotonic()
    with mpegts_over_tcp(source) as url:
        dropped = record(open_when_up(url), tmp_path / "out.mp4", pause=0.15)
    assert dropped > 5
    assert time.monotonic() - started < 6


def test_rtsp(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("cam.mp4", "-g", "5", "-bf", "0", seconds=3.0)
    with rtsp_server(source, tmp_path) as url:
        record(LiveStream(url), tmp_path / "out.mp4")
    recorded = probe(tmp_path / "out.mp4").times
    assert len(recorded) > 10
    # The clock of RTP counts in 1/90000 s.
    steps = {round((b - a) * 25, 2) for a, b in itertools.pairwise(recorded)}
    assert min(steps) == 1 and recorded[-1] <= 3


def test_nothing_there_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot be opened") as caught:
        LiveStream(f"tcp://127.0.0.1:{free_port()}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["camera:front", "camera:-1", "camera:"])
def test_camera_needs_a_number(spec: str) -> None:
    with pytest.raises(InputError, match="by its number"):
        Camera(spec)


def test_missing_camera_is_one_line() -> None:
    with pytest.raises(InputError, match="gives no picture"):
        Camera("camera:97")
