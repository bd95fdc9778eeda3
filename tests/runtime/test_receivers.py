"""Results that are sent to real receivers, over the loopback only."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ports import free_port, is_up

from measnet.errors import UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.waits import Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.push import PushSink
from measnet.runtime.sinks.target import Receiver
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.stream import run

from . import started_once
from .conftest import Answer, Each, MakeClip, probe
from .live_camera import GENEROUS, PATIENT, ULTRAFAST, Camera, send, wait_for
from .test_live import mpegts_over_tcp, open_when_up
from .tls_proxy import inside_tls


def opened_when_up(address: str, info: StreamInfo) -> PushSink:
    """As soon as the receiver is there."""
    until = time.monotonic() + GENEROUS
    while True:
        try:
            return PushSink(Receiver(address), info, ULTRAFAST, waits=PATIENT)
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
    "udp": ("udp://127.0.0.1:{}", ["-i", "udp://127.0.0.1:{}?timeout=3000000"]),
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
    keys = [n for n, flags in enumerate(started_once.run(*command).stdout.split()) if flags.startswith(b"K")]
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
        mpegts_over_tcp(source, endless=True) as url,
        receiver(*(part.format(port) for part in arguments), to=got) as running,
    ):
        live = open_when_up(url)
        try:
            sink = opened_when_up(address.format(port), live.info)
            try:
                run(live, (Each(),), sink, limit=40)
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
    sink = PushSink(Receiver(f"rtsp://me:right@127.0.0.1:{port}/yard"), camera.info, ULTRAFAST, waits=PATIENT)
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


def test_a_receiver_that_answers_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(UsageError, match="no answer within 1 s"):
            PushSink(Receiver(f"rtmp://127.0.0.1:{port}/live/x"), Camera(1).info, waits=Waits(opening=1.0))
    assert time.monotonic() - began < 9  # where nothing is said of it, it is ten


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
        opens = functools.partial(PushSink, Receiver(address), camera.info, ULTRAFAST, waits=PATIENT)
        sinks = [
            PatientSink(Receiver(address), opened_when_up(address, camera.info), watch, opens, PATIENT),
            PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch, waits=PATIENT),
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


def test_a_receiver_that_stalls_holds_up_nobody(tmp_path: Path) -> None:
    waits = replace(PATIENT, delivery=1.0, unwritten=0.3)
    camera, watch = Camera(10_000, pause=0.005, noisy=True), Watch("yard")
    file = tmp_path / "all.mkv"
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # it takes one connection, and reads nothing
        address = Receiver(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        fine = Encoding(preset="ultrafast", crf=1)
        opens = functools.partial(PushSink, address, camera.info, fine, waits=waits)
        sinks = [
            PatientSink(address, opens(), watch, opens, waits),
            PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch, waits=waits),
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
