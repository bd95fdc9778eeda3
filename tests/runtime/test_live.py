"""Live streams, over the loopback only."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from docs.pages import ROOT, blocks
from ports import free_port

from measnet.errors import InputError
from measnet.runtime.console import Console
from measnet.runtime.live.waits import Waits
from measnet.runtime.options import Encoding, RunOptions
from measnet.runtime.session import Session
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.live import LiveSource
from measnet.runtime.stream import run

from .conftest import Each, MakeClip, ffmpeg, probe
from .identity import IdentityRestorer
from .rtsp_server import rtsp_server


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
def mpegts_over_tcp(clip: Path, *, endless: bool = False) -> Iterator[str]:
    """Its address. An ``endless`` one begins again and again: for whoever may be ready after its end."""
    url = f"tcp://127.0.0.1:{free_port()}"
    again = ["-stream_loop", "-1"] if endless else []
    source = ["ffmpeg", "-v", "quiet", "-re", *again, "-i", str(clip), "-c", "copy"]
    with process(*source, "-f", "mpegts", f"{url}?listen=1"):
        yield url


def two_modes(folder: Path, second_start: float) -> list[bytes]:
    """MPEG-TS: 1.6 s of 96×64, and 1.6 s of 128×96 that begin at ``second_start``."""
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
    parts = []
    for size, start in (("96x64", 0.0), ("128x96", second_start)):
        picture = f"testsrc2=s={size}:r=25:d=1.6"
        ffmpeg("-f", "lavfi", "-i", picture, *codec, "-output_ts_offset", start, folder / "mode.ts")
        parts.append((folder / "mode.ts").read_bytes())
    return parts


@contextmanager
def camera_that_comes_back(parts: list[bytes]) -> Iterator[tuple[str, threading.Event]]:
    """A camera's address. It sends the first part at once, the second when the event is set."""
    come_back = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(parts[0])
            come_back.wait(20)
            client.sendall(parts[1])

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", come_back
    finally:
        come_back.set()
        serving.join(20)
        listener.close()


def open_when_up(url: str) -> LiveSource:
    until = time.monotonic() + 60
    while True:
        try:
            return LiveSource(url, patience=0)
        except InputError as error:
            if "cannot be opened" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.1)


def record(
    source: LiveSource, target: Path, pause: float = 0, on_frame: Callable[[], None] = lambda: None
) -> int:
    sink = VideoSink(target, source.info, Encoding(preset="ultrafast"))

    def restore(pixels: object) -> object:
        on_frame()
        time.sleep(pause)
        return pixels

    try:
        figures = run(source, [Each(restore)], sink)  # type: ignore[arg-type]
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
    assert 0 <= recorded.times[0] < 1.6
    sent = probe(source).times
    assert len(recorded.times) > 2  # a busy machine sees less of it
    assert set(recorded.times) <= set(sent)
    assert "audio" in recorded.kinds


def test_a_program_stops_its_session_and_has_what_came_until_then(tmp_path: Path) -> None:
    options = RunOptions(out=(str(tmp_path / "out.mp4"),))
    session = Session(Console(quiet=True), options, opens=lambda options: IdentityRestorer())  # type: ignore[arg-type,return-value]
    with camera_that_comes_back(two_modes(tmp_path, 1.6)) as (url, _), ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, (url,))
        until = time.monotonic() + 60
        while not (session.watches and session.watches[0].telemetry.figures().frames_out):
            assert time.monotonic() < until
            time.sleep(0.05)
        session.stop()
        assert running.result(20) == 0
    (report,) = session.reports
    assert report.status == "complete" and len(probe(tmp_path / "out.mp4").times) == report.frames > 0


def test_the_program_on_the_page_takes_pictures_out_of_a_stream_with_sound(
    clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = blocks(ROOT / "docs/live.md", "python")
    with mpegts_over_tcp(clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)) as url:
        named = 'LiveSource("camera:0", patience=3600, watch=watch)'
        assert named in program
        program = program.replace(named, f'open_when_up("{url}")')
        exec(compile(program, "live.md", "exec"), {"open_when_up": open_when_up})
    assert "(64, 96, 3)" in capsys.readouterr().out


def test_a_stream_of_ten_bits_is_recorded_in_ten_bits(clip: MakeClip, tmp_path: Path) -> None:
    deep = ["-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error:bframes=0"]
    source = clip("live.mp4", "-g", "5", *deep, seconds=1.6)
    with mpegts_over_tcp(source) as url:
        record(open_when_up(url), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").video["pix_fmt"] == "yuv420p10le"


def test_slow_engine_drops_frames_instead_of_falling_behind(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=1.6)
    with mpegts_over_tcp(source) as url:
        dropped = record(open_when_up(url), tmp_path / "out.mp4", pause=0.15)
    assert dropped > 5


def test_rtsp(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("cam.mp4", "-g", "5", "-bf", "0", seconds=3.0)
    with rtsp_server(source, tmp_path) as url:
        record(LiveSource(url, patience=0), tmp_path / "out.mp4")
    recorded = probe(tmp_path / "out.mp4").times
    assert len(recorded) > 10
    # The clock of RTP counts in 1/90000 s.
    steps = {round((b - a) * 25, 2) for a, b in itertools.pairwise(recorded)}
    assert min(steps) == 1 and recorded[-1] <= 3


@pytest.mark.parametrize("second_start", [1.6, 0.0], ids=["its clock goes on", "its clock begins anew"])
def test_a_camera_that_comes_back_in_another_size_is_scaled_to_the_first_and_said(
    second_start: float, tmp_path: Path
) -> None:
    with camera_that_comes_back(two_modes(tmp_path, second_start)) as (url, come_back):
        source = LiveSource(url, patience=0, drain=False)  # so that zero is its first frame
        assert not come_back.is_set()
        record(source, tmp_path / "out.mp4", on_frame=come_back.set)
    recorded = probe(tmp_path / "out.mp4")
    assert (recorded.video["width"], recorded.video["height"]) == (96, 64)
    assert recorded.times[-1] == pytest.approx(3.16)
    (said,) = [line for line in source.warnings if "changes its size" in line]
    assert "from 96×64 to 128×96 at 1.60 s: 40 frames were scaled to the first size" in said
    jumped = [line for line in source.warnings if "jump back" in line]
    assert len(jumped) == (second_start == 0) == len(source.warnings) - 1


def test_a_camera_in_another_size_over_rtsp_is_scaled_to_the_first_and_said(tmp_path: Path) -> None:
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(two_modes(tmp_path, second_start=1.6)))
    with rtsp_server(both, tmp_path) as url:
        source = LiveSource(url, patience=0)
        record(source, tmp_path / "out.mp4")
    recorded = probe(tmp_path / "out.mp4")
    assert (recorded.video["width"], recorded.video["height"]) == (96, 64)
    (said,) = source.warnings
    assert "from 96×64 to 128×96 at" in said and "scaled to the first size" in said


def test_a_stream_that_falls_silent_has_ended_and_that_is_said(tmp_path: Path) -> None:
    with camera_that_comes_back(two_modes(tmp_path, second_start=1.6)) as (url, _):
        source = LiveSource(url, patience=0, waits=Waits(stalled=0.2, gone=0.5))
        record(source, tmp_path / "out.mp4")
    assert source.warnings == [f"{url}: no picture for 0.5 s; it was taken to have ended"]


def test_nothing_there_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot be opened") as caught:
        LiveSource(f"tcp://127.0.0.1:{free_port()}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["camera:front", "camera:-1", "camera:"])
def test_camera_needs_a_number(spec: str) -> None:
    with pytest.raises(InputError, match="by its number"):
        LiveSource(spec)


def test_missing_camera_is_one_line() -> None:
    with pytest.raises(InputError, match="gives no picture"):
        LiveSource("camera:97")
