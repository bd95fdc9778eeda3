"""Streams that are refused, stopped, damaged or not read yet, over the loopback, from real senders."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from ports import free_port

from measnet.errors import InputError, StoppedError
from measnet.runtime.frame import Frame
from measnet.runtime.live import interrupt
from measnet.runtime.live.events import Events
from measnet.runtime.live.waits import Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.sources.connection import Connection
from measnet.runtime.sources.live import LiveSource
from measnet.runtime.sources.network import NetworkConnection

from .conftest import MakeClip, ffmpeg
from .rtsp_server import rtsp_camera
from .senders import (
    Sender,
    over_tcp,
    over_udp,
    sending,
)
from .watching import (
    HURRIED,
    PATIENT,
    Watching,
    answers_nothing,
    has_srt,
    no_thread_is_left_behind,
    opened,
    rising,
    until,
    watched,
)

__all__ = ["no_thread_is_left_behind"]


def test_a_camera_of_two_frames_a_second_is_opened_in_time_and_goes_on(
    tmp_path: Path,
) -> None:
    """Seven of the ten seconds of what it sends are enough to open it, however long that takes here: nothing
    more comes before it is open."""
    slow = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=2:d=10", *slow, tmp_path / "slow.ts")
    content = (tmp_path / "slow.ts").read_bytes()
    with av.open(str(tmp_path / "slow.ts")) as container:
        begins = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    is_open, over = threading.Event(), threading.Event()

    def send() -> None:
        with listener, listener.accept()[0] as camera:
            camera.sendall(content[: begins[14]])
            is_open.wait(PATIENT)
            camera.sendall(content[begins[14] :])
            over.wait(PATIENT)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        camera = threading.Thread(target=send)
        camera.start()
        try:
            address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            # Times count from the first frame that is read: none may be let go before.
            waits = replace(HURRIED, opening=PATIENT)
            with watched(address, opened=partial(opened, drain=False), waits=waits) as watching:
                is_open.set()
                # Of those that came at once, older ones are left out; one is whole once the next has come.
                assert until(lambda: any(frame.pts * frame.time_base >= 8 for frame in watching.frames))
                assert "reconnecting" not in watching.states
        finally:
            is_open.set()
            over.set()
            camera.join()


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "tcp", "http"])
def test_who_takes_the_call_and_says_nothing_is_told_from_who_sends_something_else(
    scheme: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address}/x/.* did not answer within 1 s"):
            NetworkConnection(f"{address}/x/y", waits=Waits(opening=0.6))  # which is said as 1 s


def test_time_in_which_the_program_got_no_processor_is_not_counted_as_silence() -> None:
    told: list[float] = []

    def read() -> None:
        called_off = threading.Event()
        interrupt.end_calls_when(called_off)
        told.append(interrupt._Clock.monotonic())
        time.sleep(0.5)  # nobody asks meanwhile: as where Python's lock is waited for
        told.append(interrupt._Clock.monotonic())
        called_off.set()
        told.append(interrupt._Clock.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    assert 0.15 < told[1] - told[0] < 0.3
    assert told[2] - told[1] > 1e6
    assert abs(interrupt._Clock.monotonic() - time.monotonic()) < 60  # which others keep


QUICK = 8.0
"""Seconds that a stop may take on a loaded machine; usually it is a tenth of one. Where it is not heard, it
takes the ten that are waited for an answer, or more."""


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "udp"])
def test_stops_while_connecting(scheme: str) -> None:
    stop = threading.Event()
    events = Events()
    with answers_nothing() as port:
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(StoppedError, match="before"):
            LiveSource(f"{scheme}://127.0.0.1:{port}/a/b", watch=Watch("door", events), stop=stop)
        assert time.monotonic() - began < 0.2 + QUICK
        timer.join()
    assert [event.state for event in events.recent()] == ["connecting", "ended"]


def test_stops_while_running_stalled_and_reconnecting() -> None:
    sender = over_udp()
    with sending(sender):
        live = Watching(sender.url)
        live.more()
        assert live.end() < QUICK
        assert live.changes == ["running", "ended"]
        live = Watching(sender.url, waits=replace(HURRIED, stalled=0.3))
        live.more()
        sender.kill()
        live.heard("stalled")
        assert live.end() < QUICK
        assert live.changes == ["running", "ended"]
    sender = over_tcp()
    with sending(sender):
        live = Watching(sender.url)
        live.more()
        sender.kill()
        live.heard("reconnecting")
        assert live.end() < QUICK
        assert live.changes == ["running", "reconnecting", "ended"]


def test_stops_while_a_new_connection_is_not_answered() -> None:
    sender = over_tcp()
    with sending(sender):
        live = Watching(sender.url)
        live.more()
        sender.kill()
    port = int(sender.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as silent:
        accepted, _ = silent.accept()
        with accepted:
            assert live.end() < QUICK
    assert live.states[-1] == "ended"


def test_a_call_of_ffmpeg_is_interrupted_and_no_other_thread_notices() -> None:
    """The one place where PyAV's inside is relied upon."""
    from measnet.runtime.live.interrupt import end_calls_when

    called_off, done = threading.Event(), threading.Event()

    def open_it() -> None:
        end_calls_when(called_off)
        with contextlib.suppress(av.error.ExitError):
            av.open(f"udp://127.0.0.1:{free_port()}", timeout=(PATIENT, PATIENT))
        done.set()

    def open_other() -> None:
        began = time.monotonic()
        with contextlib.suppress(av.error.ExitError):
            av.open(f"udp://127.0.0.1:{free_port()}", timeout=(1.0, 1.0))
        lasted.append(time.monotonic() - began)

    lasted: list[float] = []
    threads = [threading.Thread(target=open_it), threading.Thread(target=open_other)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert not done.is_set()
    called_off.set()
    assert done.wait(QUICK)
    for thread in threads:
        thread.join()
    assert lasted[0] > 0.9


def test_an_address_that_nobody_answers_is_refused_in_time() -> None:
    began = time.monotonic()
    with answers_nothing() as port, pytest.raises(InputError, match="did not answer within"):
        LiveSource(f"tcp://127.0.0.1:{port}", waits=Waits(opening=0.5))
    assert time.monotonic() - began < 0.5 + QUICK


def test_wrong_credentials_are_refused_in_one_line_that_does_not_tell_them(
    clip: MakeClip, tmp_path: Path
) -> None:
    picture = clip("a.mp4", "-g", "5", "-bf", "0", audio=False)
    events = Events()
    with rtsp_camera(picture, tmp_path, login="bob:s3cret") as camera:
        wrong = camera.url.replace("://", "://bob:gu3ssed@")
        with pytest.raises(InputError, match="refuses this user and password") as caught:
            LiveSource(wrong, watch=Watch("door", events))
        right = camera.url.replace("://", "://bob:s3cret@")
        source = LiveSource(right)
        source.close()
    everything = f"{caught.value} {events.recent()} {source.info} {source.warnings}"
    assert "gu3ssed" not in everything and "s3cret" not in everything and "***@" in everything


def test_datagrams_that_are_lost_damaged_and_reordered_cost_frames_and_nothing_else() -> None:
    sender = over_udp()
    sender.size = "320x240"
    port = int(sender.url.rpartition(":")[2])
    receiver = f"udp://127.0.0.1:{free_port()}"
    target = ("127.0.0.1", int(receiver.rpartition(":")[2]))
    random, over = np.random.default_rng(5), threading.Event()

    def pass_on() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as network:
            network.bind(("127.0.0.1", port))
            network.settimeout(0.2)
            held = b""
            while not over.is_set():
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    data = network.recv(65_536)
                    fate = random.random()
                    if fate < 0.03:
                        continue
                    if fate < 0.06:
                        data = data[:700] + random.bytes(100) + data[800:]
                    elif fate < 0.1:
                        data, held = held, data
                    network.sendto(data, target)

    passing = threading.Thread(target=pass_on)
    passing.start()
    try:
        with sending(sender), watched(receiver) as live:
            live.more(50)
    finally:
        over.set()
        passing.join()
    assert "failed" not in live.states and rising(live.frames)
    assert float(live.frames[-1].pts * live.frames[-1].time_base) < 60
    assert {frame.pixels.shape for frame in live.frames} == {(240, 320, 3)}
    assert live.source.damaged > 0


def test_a_time_that_damage_made_leap_costs_neither_the_order_nor_hours() -> None:
    numbers = list[int]()

    class Leaping(NetworkConnection):
        def _frame(self, frame: av.VideoFrame, captured: float) -> Frame:
            made = super()._frame(frame, captured)
            numbers.append(len(numbers))
            wrong = {12: 20 * 3600, 20: -3600, 25: -1}.get(numbers[-1], 0)
            return replace(made, pts=made.pts + round(wrong / made.time_base))

    class Damaged(LiveSource):
        def _connect(self) -> Connection:
            return Leaping(self._spec)

    sender = over_tcp()
    with sending(sender), watched(sender.url, opened=partial(opened, source=Damaged)) as live:
        live.more(35)
    assert rising(live.frames)
    assert 1 < float(live.frames[-1].pts * live.frames[-1].time_base) < 60


def test_while_nobody_reads_yet_the_decoder_is_emptied_and_the_newest_is_kept() -> None:
    sender = over_tcp()
    with sending(sender):
        source = opened(sender.url)
        up = time.monotonic()
        time.sleep(1)  # as when an engine is loaded
        first = next(item for item in source.read() if isinstance(item, Frame))
        source.close()
    assert first.captured > up + 0.5  # and not the one that was there first
    assert first.pts == 0


def test_sound_alone_is_refused(clip: MakeClip) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    sender = Sender(url, "-map", "1:a", "-f", "mpegts", f"{url}?listen=1", sound=True)
    sender.codec = []
    with sending(sender):
        end = time.monotonic() + PATIENT
        while True:
            with pytest.raises(InputError) as caught:
                LiveSource(url)
            if "cannot be opened" not in str(caught.value) or time.monotonic() > end:
                break
            time.sleep(0.1)
    assert "holds audio but no video" in str(caught.value)


@pytest.mark.parametrize("ending", ["?passphrase=s3cret-s3cret", "?pass=s3cret", "?latency=s3cret"])
def test_an_srt_address_where_nobody_answers_or_that_is_wrong_is_refused_in_one_line(ending: str) -> None:
    if not has_srt():
        pytest.skip("there is no libsrt here")
    with pytest.raises(InputError, match="cannot be opened: ") as caught:
        LiveSource(f"srt://127.0.0.1:{free_port()}{ending}")
    assert "s3cret-" not in str(caught.value)


def test_it_says_so_where_libsrt_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(InputError, match="srt:// needs libsrt, which is not installed"):
        LiveSource("srt://127.0.0.1:1")
