"""Sinks of live streams against real receivers, over the loopback only."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port, is_up

from measnet.errors import OutputError, UsageError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Encoding
from measnet.runtime.sinks import Sink, hls, patient, push
from measnet.runtime.sinks.hls import LISTED, HlsSink
from measnet.runtime.sinks.loopback import LoopbackSink
from measnet.runtime.sinks.parts import PartsSink
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.push import PushSink
from measnet.runtime.sinks.several import Several
from measnet.runtime.sinks.target import Receiver
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources import Source
from measnet.runtime.stream import Pace, RunFigures, run

from .conftest import IDENTITY_COMMAND, Answer, Each, MakeClip, probe
from .test_live import mpegts_over_tcp, open_when_up, process
from .tls_proxy import inside_tls

ULTRAFAST = Encoding(preset="ultrafast")
GENEROUS = 60.0
"""Seconds within which whatever is waited for must have come, on a machine however busy."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no receiver that stalls."""
    monkeypatch.setattr(push, "ANSWER_SECONDS", GENEROUS)
    monkeypatch.setattr(push, "STALL_SECONDS", 30.0)
    monkeypatch.setattr(patient, "SILENT_SECONDS", 30.0)


class Camera(Source):
    """Moving pictures of 160x96, ``fps`` of them a second by their times, one every ``pause`` seconds."""

    def __init__(self, frames: int, fps: int = 10, pause: float = 0.0, *, noisy: bool = False) -> None:
        super().__init__()
        base = Fraction(1, 90_000)
        self.info = StreamInfo("camera", "live", 160, 96, base, Fraction(fps), pixel_format="yuv420p")
        self._frames, self._step, self._pause, self._noisy = frames, 90_000 // fps, pause, noisy
        self._stop = threading.Event()

    def read(self) -> Iterator[Frame]:
        random = np.random.default_rng(0)
        for number in range(self._frames):
            pixels = np.full((96, 160, 3), 60, np.uint8)
            if self._noisy:
                pixels = random.integers(0, 256, (96, 160, 3), np.uint8)
            pixels[:, number % 150 : number % 150 + 10] = 220
            yield Frame(pixels, number * self._step, self.info.time_base)
            if self._stop.wait(self._pause):
                return

    def interrupt(self) -> None:
        self._stop.set()


def send(camera: Camera, *sinks: Sink, pace: Pace | None = None) -> RunFigures:
    """From the camera into the sinks; nothing is dropped before them."""
    sink = sinks[0] if len(sinks) == 1 else Several(sinks)
    try:
        figures = run(camera, (Each(),), sink, pace=pace or Pace(4))
        sink.finish()
    finally:
        sink.abort()
    return figures


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + GENEROUS
    while not true():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


def opened_when_up(address: str, info: StreamInfo) -> PushSink:
    """As soon as the receiver is there."""
    until = time.monotonic() + GENEROUS
    while True:
        try:
            return PushSink(Receiver(address), info, ULTRAFAST)
        except UsageError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def receiver(*arguments: str, to: Path) -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg, that writes what it is sent; ended with the block."""
    command = ["ffmpeg", "-v", "error", "-y", *arguments, "-c", "copy", "-flush_packets", "1", str(to)]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


RECEIVERS = {
    "udp": ("udp://127.0.0.1:{}", ["-i", "udp://127.0.0.1:{}?timeout=5000000"]),
    "tcp": ("tcp://127.0.0.1:{}", ["-i", "tcp://127.0.0.1:{}?listen=1"]),
    "rtmp": ("rtmp://127.0.0.1:{}/live/key", ["-listen", "1", "-i", "rtmp://127.0.0.1:{}/live/key"]),
    "rtsp": ("rtsp://127.0.0.1:{}/yard", ["-rtsp_flags", "listen", "-i", "rtsp://127.0.0.1:{}/yard"]),
    "srt": (
        "srt://127.0.0.1:{}?passphrase=ten-letters-more",
        ["-i", "srt://127.0.0.1:{}?mode=listener&passphrase=ten-letters-more"],
    ),
}


@pytest.mark.parametrize("scheme", RECEIVERS)
def test_a_receiver_gets_the_stream_and_nothing_of_it_is_held_back(scheme: str, tmp_path: Path) -> None:
    if scheme == "srt" and b"srt" not in subprocess.check_output(["ffmpeg", "-v", "quiet", "-protocols"]):
        pytest.skip("this ffmpeg has no SRT")
    address, arguments = RECEIVERS[scheme]
    port, got = free_port(), tmp_path / "got.mkv"
    camera = Camera(45, pause=0.02)
    # One of datagrams gives up where none come for a while, and so begins when all else is ready.
    ready = opened_when_up(address.format(port), camera.info) if scheme == "udp" else None
    with receiver(*(part.format(port) for part in arguments), to=got) as running:
        wait_for(lambda: is_up(port))
        send(camera, ready or opened_when_up(address.format(port), camera.info))
        running.wait(GENEROUS)
    received = probe(got)
    assert received.video["codec_name"] == "h264" and received.video["has_b_frames"] == 0
    assert received.video["pix_fmt"] == "yuv420p"
    # Datagrams for which there is no room are lost.
    assert len(received.times) == 45 or (scheme == "udp" and len(received.times) > 20)
    command = ["ffprobe", "-v", "error", "-show_entries", "packet=flags", "-of", "csv=p=0", str(got)]
    keys = [n for n, flags in enumerate(subprocess.check_output(command).split()) if flags.startswith(b"K")]
    assert scheme == "udp" or keys == [0, 20, 40]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("scheme", ["rtmp", "rtsp"])
def test_a_receiver_inside_tls_gets_the_stream_if_its_certificate_is_trusted(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, arguments = RECEIVERS[scheme]
    port, got, camera = free_port(), tmp_path / "got.mkv", Camera(45, pause=0.02)
    with (
        receiver(*(part.format(port) for part in arguments), to=got) as running,
        inside_tls(port, tmp_path) as outside,
    ):
        wait_for(lambda: is_up(port))
        url = address.replace(scheme, f"{scheme}s", 1).format(outside)
        with pytest.raises(UsageError, match=r"certificate is not trusted \(self-signed certificate\); have"):
            PushSink(Receiver(url), camera.info, ULTRAFAST)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        send(camera, opened_when_up(url, camera.info))
        running.wait(GENEROUS)
    assert len(probe(got).times) == 45


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "tcp"])
def test_sound_goes_along(scheme: str, clip: MakeClip, tmp_path: Path) -> None:
    address, arguments = RECEIVERS[scheme]
    port, got = str(free_port()), tmp_path / "got.mkv"
    source = clip("live.mp4", "-g", "5", "-bf", "0", seconds=2.4)
    with (
        mpegts_over_tcp(source) as url,
        receiver(*(part.format(port) for part in arguments), to=got) as running,
    ):
        live = open_when_up(url)
        try:
            sink = opened_when_up(address.format(port), live.info)
            try:
                run(live, (Each(),), sink)
                sink.finish()
            finally:
                sink.abort()
        finally:
            live.close()
        running.wait(GENEROUS)
    # RTSP says what AAC is before the first packet, which a transport stream does not know.
    assert probe(got).kinds == (["video"] if scheme == "rtsp" else ["video", "audio"])
    left_out = any("aac audio" in line and "left out" in line for line in sink.warnings)
    assert left_out == (scheme == "rtsp")


def test_sound_that_says_what_it_is_goes_along_by_rtsp(
    clip: MakeClip, measnet_run: Callable[..., Answer], tmp_path: Path
) -> None:
    port, got = free_port(), tmp_path / "got.mkv"
    url = f"rtsp://127.0.0.1:{port}/yard"
    with receiver("-rtsp_flags", "listen", "-i", url, to=got) as running:
        wait_for(lambda: is_up(port))
        began = time.monotonic()
        answer = measnet_run(clip("plain.mp4", "-bf", "0", seconds=2.0), "-o", url)
        taken = time.monotonic() - began
        running.wait(GENEROUS)
    assert answer.status == 0, answer.err
    assert f"{url}  50 frames" in " ".join(answer.out.split("\n"))
    received = probe(got)
    assert received.kinds == ["video", "audio"] and len(received.times) == 50
    assert taken > 1.9  # at the pace it is shown at


@pytest.fixture
def rtsp_recorder(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """GStreamer's RTSP server, for ``me`` with the password ``right``: its port, and its recording."""
    python, got = "/usr/bin/python3", tmp_path / "recorded.mkv"
    there = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if subprocess.run([python, "-c", there], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)")
    command = [python, str(Path(__file__).with_name("gst_rtsp_recorder.py")), str(got), "me", "right"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield int(running.stdout.readline()), got
    finally:
        running.kill()
        running.communicate()


def test_a_real_rtsp_server_records_it_and_refuses_a_wrong_password(rtsp_recorder: tuple[int, Path]) -> None:
    port, got = rtsp_recorder
    camera = Camera(10_000, pause=0.02, noisy=True)
    with pytest.raises(UsageError, match="401 Unauthorized") as refused:
        PushSink(Receiver(f"rtsp://me:hush@127.0.0.1:{port}/yard"), camera.info)
    assert "hush" not in str(refused.value) and "me:" not in str(refused.value)
    sink = PushSink(Receiver(f"rtsp://me:right@127.0.0.1:{port}/yard"), camera.info, ULTRAFAST)
    sending = threading.Thread(target=send, args=(camera, sink))
    sending.start()
    try:
        wait_for(lambda: got.exists() and got.stat().st_size > 300_000)
    finally:
        camera.interrupt()
        sending.join(GENEROUS)
    assert len(probe(got).times) > 10


@pytest.mark.parametrize(
    "address",
    ["rtmp://u:hush@127.0.0.1:{}/live/hush", "rtsp://u:hush@127.0.0.1:{}/x", "tcp://127.0.0.1:{}?token=hush"],
)
def test_an_address_that_refuses_is_one_line_without_its_password_before_anything_starts(
    address: str, clip: MakeClip, measnet_run: Callable[..., Answer], tmp_path: Path
) -> None:
    beside = tmp_path / "out.mp4"
    answer = measnet_run(clip("plain.mp4"), "-o", beside, "-o", address.format(free_port()))
    assert answer.status == 2 and answer.err.count("\n") == 1
    assert "Connection refused" in answer.err and "hush" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_receiver_that_answers_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(UsageError, match="no answer within 1 s"):
            PushSink(Receiver(f"rtmp://127.0.0.1:{port}/live/x"), Camera(1).info)


def test_a_receiver_that_is_killed_and_comes_back_gets_the_rest_and_a_file_misses_nothing(
    tmp_path: Path,
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    camera, watch = Camera(10_000, pause=0.02, noisy=True), Watch("yard")
    first, second, file = tmp_path / "1.mkv", tmp_path / "2.mkv", tmp_path / "all.mkv"

    def said(words: str) -> bool:
        return any(words in event.words for event in watch.events.recent() if event.kind == "sink")

    def grown(path: Path) -> bool:
        return path.exists() and path.stat().st_size > 20_000

    with contextlib.ExitStack() as stack:
        running = stack.enter_context(receiver("-i", f"{address}?listen=1", to=first))
        opens = functools.partial(PushSink, Receiver(address), camera.info, ULTRAFAST)
        sinks = [
            PatientSink(Receiver(address), opened_when_up(address, camera.info), watch, opens),
            PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch),
        ]
        sending = threading.Thread(target=send, args=(camera, *sinks))
        sending.start()
        try:
            wait_for(lambda: grown(first))
            running.kill()
            running.wait()
            wait_for(lambda: said("is lost"))
            with receiver("-i", f"{address}?listen=1", to=second):
                wait_for(lambda: said("is back"))
                wait_for(lambda: grown(second))
                camera.interrupt()
                sending.join(GENEROUS)
        finally:
            camera.interrupt()
            sending.join(GENEROUS)
    assert not sending.is_alive()
    away, whole = (sink.figures()[0] for sink in sinks)
    assert away["failures"] >= 1 and whole["failures"] == 0
    assert watch.telemetry.figures().dropped["sink"] > 0
    assert len(probe(file).times) == whole["frames"] > away["frames"] > 0
    assert probe(second).times[0] < 1  # its times begin anew


def test_a_receiver_that_stalls_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(patient, "SILENT_SECONDS", 0.3)
    camera, watch = Camera(10_000, pause=0.005, noisy=True), Watch("yard")
    file = tmp_path / "all.mkv"
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # it takes one connection, and reads nothing
        address = Receiver(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        fine = Encoding(preset="ultrafast", crf=1)
        stuck = PushSink(address, camera.info, fine)
        sinks = [
            PatientSink(address, stuck, watch, lambda: PushSink(address, camera.info, fine)),
            PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch),
        ]
        sending = threading.Thread(target=send, args=(camera, *sinks))
        sending.start()
        wait_for(lambda: any("stalls" in event.words for event in watch.events.recent()))
        wait_for(lambda: any("takes nothing for 1 s" in event.words for event in watch.events.recent()))
        began, before = time.monotonic(), sinks[1].figures()[0]["frames"]
        wait_for(lambda: sinks[1].figures()[0]["frames"] > before + 50)
        camera.interrupt()
        sending.join(GENEROUS)
    assert not sending.is_alive() and time.monotonic() - began < GENEROUS
    assert sinks[0].figures()[0]["dropped"] > 0
    assert len(probe(file).times) == sinks[1].figures()[0]["frames"]


class Failing(Sink):
    """A disk that is full after so many frames."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self._left, self.aborted = frames, False

    def write(self, frame: Frame) -> None:
        self._left -= 1
        if self._left < 0:
            raise OutputError("no space left")

    def finish(self, *, partial: bool = False) -> Path | None:
        return Path("made")

    def abort(self) -> None:
        self.aborted = True


def test_a_live_run_goes_on_until_the_last_of_its_sinks_is_gone() -> None:
    watch, camera = Watch("yard"), Camera(100_000, pause=0.002)
    ends = [Failing(5), Failing(60)]
    sinks = [PatientSink(Path(f"{n}"), end, watch) for n, end in enumerate(ends)]
    with pytest.raises(OutputError, match="no space left"):
        send(camera, *sinks)
    assert [event.words for event in watch.events.recent() if event.kind == "sink"] == [
        "0 is lost: no space left",
        "1 is lost: no space left",
    ]
    assert [sink.figures()[0]["frames"] for sink in sinks] == [5, 60]
    assert all(end.aborted for end in ends)


def test_a_receiver_that_goes_at_the_very_end_is_an_event_and_no_failure() -> None:
    class GoneAtTheEnd(Failing):
        def finish(self, *, partial: bool = False) -> Path | None:
            raise OutputError("the connection is gone")

    watch, end = Watch("yard"), GoneAtTheEnd(1000)
    send(Camera(20, pause=0.01), PatientSink(Path("away"), end, watch, lambda: end))
    assert [event.words for event in watch.events.recent() if event.kind == "sink"] == [
        "away is lost at the end: the connection is gone"
    ]
    with pytest.raises(OutputError, match="the connection is gone"):
        send(Camera(20, pause=0.01), PatientSink(Path("file"), GoneAtTheEnd(1000), watch))


def test_one_result_that_fails_leaves_the_others_whole(tmp_path: Path) -> None:
    watch, camera = Watch("yard"), Camera(50, pause=0.01)
    file = tmp_path / "x.mp4"
    lost = PatientSink(Path("full"), Failing(3), watch)
    kept = PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch)
    send(camera, lost, kept)
    assert len(probe(file).times) == 50 - kept.figures()[0]["dropped"] > 0


def test_results_of_a_video_fail_together(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    camera = Camera(50)
    with pytest.raises(OutputError, match="no space left"):
        send(camera, Failing(3), VideoSink(file, camera.info, ULTRAFAST))


def test_a_video_has_several_results_at_once(
    clip: MakeClip, measnet_run: Callable[..., Answer], tmp_path: Path
) -> None:
    source = clip("plain.mp4", "-bf", "0", seconds=5.0)
    outs = [tmp_path / name for name in ("a.mp4", "b.mkv", "c.m3u8")]
    answer = measnet_run(source, *(word for out in outs for word in ("-o", out)), "--preset", "ultrafast")
    assert answer.status == 0, answer.err
    results = [probe(out) for out in (source, *outs)]
    assert [len(result.times) for result in results] == [125] * 4
    assert all(result.kinds == ["video", "audio"] for result in results)
    assert results[1].copied == results[0].copied
    assert results[2].copied == results[0].copied
    playlist = outs[2].read_text()
    assert playlist.rstrip().endswith("#EXT-X-ENDLIST") and "EVENT" in playlist
    assert playlist.count("#EXTINF") == len(list(tmp_path.glob("c.*.ts"))) == 3


def test_a_playlist_of_a_live_stream_slides_and_is_read_from_any_web_server(tmp_path: Path) -> None:
    camera = Camera(150, fps=5)
    (tmp_path / "cam.00007.ts").write_bytes(b"of an earlier run")
    target = tmp_path / "cam.m3u8"
    handler = functools.partial(Quiet, directory=str(tmp_path))
    sink = HlsSink(target, camera.info, ULTRAFAST)
    try:
        run(camera, (Each(),), sink, pace=Pace(4))
        playlist = target.read_text()
        assert "ENDLIST" not in playlist and playlist.count("#EXTINF") == LISTED
        assert len(list(tmp_path.glob("cam.*.ts"))) <= LISTED + 2
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            try:
                sink.finish()
                command = [
                    "ffprobe",
                    "-v",
                    "error",
                    "-count_frames",
                    "-show_entries",
                    "stream=nb_read_frames",
                ]
                url = f"http://127.0.0.1:{server.server_address[1]}/cam.m3u8"
                read = subprocess.check_output([*command, "-of", "csv=p=0", url], timeout=GENEROUS)
            finally:
                server.shutdown()
                serving.join()
    finally:
        sink.abort()
    assert int(read.split()[0].strip(b",")) >= (LISTED - 1) * 10
    assert not (tmp_path / "cam.00007.ts").exists()


def test_a_browser_plays_a_playlist_from_any_web_server(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    version = subprocess.check_output([browser, "--version"], stderr=subprocess.DEVNULL, text=True)
    if int(re.search(r"\d+", version)[0]) < 142:
        pytest.skip("chromium plays playlists by itself from version 142 on")
    camera = Camera(60)
    send(camera, HlsSink(tmp_path / "cam.m3u8", camera.info, ULTRAFAST))
    (tmp_path / "index.html").write_text(
        "<video src=cam.m3u8 muted autoplay onerror='fetch(`/error-${this.error.message}`)' "
        "ontimeupdate='if (this.currentTime > 1) fetch(`/shown-${this.videoWidth}`)'></video>"
    )
    asked: list[str] = []

    class Listening(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    handler = functools.partial(Listening, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={tmp_path}/profile"]
        try:
            with process(*command, f"http://127.0.0.1:{server.server_address[1]}/"):
                wait_for(lambda: any(path.startswith(("/shown", "/error")) for path in asked))
        finally:
            server.shutdown()
            serving.join()
    assert "/shown-160" in asked, asked


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_live_files_can_be_played_after_kill_9(tmp_path: Path) -> None:
    port = free_port()
    picture = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=20", "-f", "lavfi", "-i", "sine"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-bf", "0", "-c:a", "aac"]
    url = f"tcp://127.0.0.1:{port}"
    names = ["yard.mp4", "yard.mov", "yard.mkv", "yard.ts"]
    outs = [word for name in names for word in ("-o", str(tmp_path / name))]
    growing = [tmp_path / f"{name}.part" for name in names]
    with process("ffmpeg", "-v", "quiet", *picture, *codecs, "-f", "mpegts", f"{url}?listen=1"):
        wait_for(lambda: is_up(port))
        command = [*IDENTITY_COMMAND, "0", url, *outs, "--preset", "ultrafast"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            # Of two seconds each; the first may begin late on a busy machine.
            wait_for(lambda: running.poll() is not None or _fragments(growing[0]) > 1)
            os.kill(running.pid, signal.SIGKILL)
        finally:
            running.kill()
            _, complaint = running.communicate()
    for path in growing:
        assert path.exists(), complaint
        played = probe(path)
        assert played.times[-1] - played.times[0] > 1.5 and "audio" in played.kinds, path


def _fragments(path: Path) -> int:
    return path.read_bytes().count(b"moof") if path.exists() else 0


def test_a_live_file_in_parts(tmp_path: Path) -> None:
    camera, target = Camera(100), tmp_path / "yard.mp4"
    sink = PartsSink(target, camera.info, ULTRAFAST, Fraction(4))
    send(camera, sink)
    assert sink.warnings == ["3 parts, the last is yard.0003.mp4"]
    parts = [probe(tmp_path / f"yard.{number:04}.mp4") for number in (1, 2, 3)]
    assert [len(part.times) for part in parts] == [40, 40, 20]
    assert all(part.times[0] == 0 for part in parts)
    again = PartsSink(target, camera.info, ULTRAFAST, Fraction(4))
    send(Camera(3), again)
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "yard.0004.mp4"
    assert len(list(tmp_path.iterdir())) == 4


def test_sound_is_cut_where_parts_begin(clip: MakeClip, tmp_path: Path) -> None:
    with mpegts_over_tcp(clip("live.mp4", "-g", "5", "-bf", "0", seconds=4.0)) as url:
        live = open_when_up(url)
        sink = PartsSink(tmp_path / "x.mkv", live.info, ULTRAFAST, Fraction(1))
        try:
            run(live, (Each(),), sink, pace=Pace(200))  # a busy machine drops none of them
            sink.finish()
        finally:
            sink.abort()
            live.close()
    for part in (probe(tmp_path / f"x.{number:04}.mkv") for number in (1, 2)):
        sound = [size for kind, _, size in part.copied if kind == "audio"]
        assert 40 <= len(sound) <= 46  # 44100 samples a second, 1024 a packet


def test_a_live_recording_that_fails_keeps_what_had_come(tmp_path: Path) -> None:
    camera = Camera(40)
    sink = VideoSink(tmp_path / "x.mp4", camera.info, ULTRAFAST)

    def broken(pixels: Any) -> Any:
        if pixels[0, 30, 0] == 220:
            raise RuntimeError("the engine broke")
        return pixels

    with pytest.raises(RuntimeError):
        try:
            run(camera, (Each(broken),), sink, pace=Pace(4))
        finally:
            sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["x.partial.mp4"]
    assert len(probe(tmp_path / "x.partial.mp4").times) > 5


def test_a_full_disk_ends_that_file_where_it_is_and_no_other(tmp_path: Path) -> None:
    disk, watch, camera = tmp_path / "disk", Watch("yard"), Camera(10_000, pause=0.01, noisy=True)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    full, fine = disk / "x.mp4", tmp_path / "y.mkv"
    try:
        sinks = [PatientSink(path, VideoSink(path, camera.info, ULTRAFAST), watch) for path in (full, fine)]
        sending = threading.Thread(target=send, args=(camera, *sinks))
        sending.start()
        wait_for(lambda: any("is lost" in event.words for event in watch.events.recent()))
        before = sinks[1].figures()[0]["frames"]
        wait_for(lambda: sinks[1].figures()[0]["frames"] > before + 10)
        camera.interrupt()
        sending.join(GENEROUS)
        kept = disk / "x.partial.mp4"
        (said,) = [event.words for event in watch.events.recent() if event.kind == "sink"]
        assert "no space left" in said and str(kept) in said and [*disk.iterdir()] == [kept]
        assert len(probe(kept).times) > 1
    finally:
        camera.interrupt()
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert len(probe(fine).times) == sinks[1].figures()[0]["frames"]


def test_a_playlist_on_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "KEY_SECONDS", 0.1)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        camera = Camera(200, pause=0.01, noisy=True)
        with pytest.raises(OutputError, match=r"no space left while writing .*x\.m3u8"):
            send(camera, HlsSink(tmp_path / "x.m3u8", camera.info, ULTRAFAST))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("reader", ["leaves", "stalls"])
def test_a_pipe_that_nobody_reads_stops_no_live_stream(reader: str, clip: MakeClip, tmp_path: Path) -> None:
    out = tmp_path / "y.mkv"
    with mpegts_over_tcp(clip("live.mp4", "-g", "5", "-bf", "0", seconds=8.0)) as url:
        wait_for(lambda: is_up(int(url.rpartition(":")[2])))
        command = [*IDENTITY_COMMAND, "0", url, "-o", "-", "-o", str(out), "--preset", "ultrafast"]
        command += ["--report", str(tmp_path / "run.json"), "--reconnect", "0"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stdout is not None and running.stderr is not None
        if reader == "leaves":
            running.stdout.close()
        said = running.stderr.read().decode()
        status = running.wait(90)
        running.stdout.close()
        running.stderr.close()
    assert status == 0 and "Fatal" not in said, said
    (report,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    pipe, file = report["sinks"]
    assert len(probe(out).times) == file["frames"] > 5
    assert file["error"] is None and pipe["frames"] < file["frames"]
    assert ("has gone" in str(pipe["error"])) == (reader == "leaves")
    assert pipe["dropped"] or reader == "leaves"


@pytest.mark.parametrize(
    ("outs", "said"),
    [
        (["srt://127.0.0.1:1?mode=listener"], "have the receiver listen"),
        (["http://127.0.0.1/x"], "nothing that a result can be sent to"),
        (["a.mp4", "a.mp4"], "is given twice"),
        (["x.m3u8", "--codec vp9"], "streams and playlists take h264 or hevc"),
        (["/dev/video97"], "modprobe v4l2loopback"),
        (["a.mp4", "srt://u:hush@127.0.0.1:1?pass=hush"], "srt:// takes"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(
    outs: Sequence[str],
    said: str,
    clip: MakeClip,
    measnet_run: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for out in outs for word in (["-o", out] if "--" not in out else out.split())]
    answer = measnet_run(clip("plain.mp4"), *words)
    assert answer.status == 2 and said in answer.err and answer.err.count("\n") == 1
    assert "hush" not in answer.err and list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_camera_is_refused(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    with pytest.raises(UsageError, match="takes no pictures"):
        LoopbackSink(device, Camera(1).info)


def arguments_of_children() -> list[bytes]:
    """Command lines of the processes that this one has started, as anybody may read them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = re.search(r"^PPid:\t(\d+)", (place / "status").read_text(), re.MULTILINE)
            if parent is not None and int(parent[1]) == os.getpid():
                found.append((place / "cmdline").read_bytes())
    return found


def test_the_address_of_a_receiver_stands_in_no_process_title() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}?token=hush"
        sink = PushSink(Receiver(address), Camera(1).info)
        try:
            titles = arguments_of_children()
        finally:
            sink.abort()
    assert any(b"sender.py" in title for title in titles)
    assert not any(b"hush" in title for title in titles)


def test_a_frame_counts_as_delivered_once_its_sink_has_it() -> None:
    class Slow(Failing):
        def write(self, frame: Frame) -> None:
            assert go.wait(GENEROUS)
            super().write(frame)

    go, told = threading.Event(), list[Frame]()
    camera = Camera(1)
    frame = Frame(np.zeros((8, 8, 3), np.uint8), 0, Fraction(1, 25))
    patient = PatientSink(Path("x"), Slow(2), Watch("yard"))
    several = Several([patient, PatientSink(Path("y"), Slow(2), Watch("yard"))])
    several.deliver(frame, told.append)
    assert not told
    go.set()
    wait_for(lambda: told == [frame])
    several.finish()
    assert len(told) == 1 and camera
