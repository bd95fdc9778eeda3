"""Live streams, over the loopback only."""

from __future__ import annotations

import shutil
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


def test_stream_is_recorded_with_its_own_times_from_zero(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)
    with mpegts_over_tcp(source) as url:
        record(open_when_up(url), tmp_path / "out.mp4")
    recorded = probe(tmp_path / "out.mp4")
    assert recorded.times[0] == 0
    sent = probe(source).times
    assert len(recorded.times) > len(sent) / 2
    # In steps of the stream's clock: every time is one that was sent, as seen from the first.
    assert {t - t % (1 / 25) for t in recorded.times} <= {t - t % (1 / 25) for t in sent}
    assert "audio" in recorded.kinds


def test_slow_engine_drops_frames_instead_of_falling_behind(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)
    started = time.monotonic()
    with mpegts_over_tcp(source) as url:
        dropped = record(open_when_up(url), tmp_path / "out.mp4", pause=0.15)
    assert dropped > 5
    assert time.monotonic() - started < 6


def test_rtsp(clip: MakeClip, tmp_path: Path) -> None:
    server = shutil.which("live555MediaServer")
    if server is None:
        pytest.skip("live555MediaServer (Debian: livemedia-utils) is not on PATH")
    stream = tmp_path / "cam.mkv"
    shutil.copy(clip("cam.mkv", "-g", "5", "-bf", "0", "-r", "25", seconds=1.6), stream)
    with process("sh", "-c", f"cd '{tmp_path}' && exec '{server}'"):
        source = None
        for port in ("554", "8554") * 20:
            try:
                source = LiveStream(f"rtsp://127.0.0.1:{port}/cam.mkv")
                break
            except InputError:
                time.sleep(0.1)
        assert source is not None, "the server never came up"
        record(source, tmp_path / "out.mp4")
    assert len(probe(tmp_path / "out.mp4").times) > 10


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
