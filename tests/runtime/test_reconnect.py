"""Cameras and streams that go and come back, over the loopback, from real senders."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ports import free_port

from measnet.errors import InputError, StoppedError
from measnet.runtime.frame import Frame
from measnet.runtime.live import interrupt
from measnet.runtime.live.events import Event, Events
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.live import LiveSource, fitted
from measnet.runtime.sources.network import NetworkConnection
from measnet.runtime.stream import run

from .conftest import Each, MakeClip, probe
from .rtsp_server import rtsp_camera
from .senders import (
    HlsSender,
    Sender,
    over_rtmp,
    over_srt,
    over_tcp,
    over_udp,
    sending,
    serving,
    single_pictures_over_http,
)
from .test_stream import Kept

PATIENT = 60.0
"""Seconds that a slow machine may take for anything."""


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measnet.runtime.live.backoff.FIRST", 0.1)
    monkeypatch.setattr("measnet.runtime.live.backoff.LONGEST", 0.4)
    # A busy machine may hold up a stream that is sent for longer than the five seconds of everyday.
    monkeypatch.setattr("measnet.runtime.sources.live.GONE_SECONDS", 20.0)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert until(lambda: set(threading.enumerate()) <= before)


def until(condition: Callable[[], Any], seconds: float = PATIENT) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def opened(url: str, **options: Any) -> LiveSource:
    """Connects as soon as the sender, which has just been started, is there."""
    end = time.monotonic() + PATIENT
    while True:
        try:
            return LiveSource(url, **options)
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Watching:
    """A stream that runs, and all that is heard of it."""

    def __init__(self, url: str, patience: float = PATIENT, opened: Any = opened) -> None:
        self.events: list[Event] = []
        events = Events()
        self.watch = Watch("door", events)
        self.source: LiveSource = opened(url, patience=patience, watch=self.watch)
        self.connecting = self.watch.events.recent()
        events.listen(self.events.append)
        self.frames: list[Frame] = []
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def states(self) -> list[str]:
        return [str(event.state) for event in self.events if event.kind == "state"]

    @property
    def changes(self) -> list[str]:
        """States without stalls, which a machine may have of its own when it is busy."""
        states = [state for state in self.states if state != "stalled"]
        return [state for state, _ in itertools.groupby(states)]

    def more(self, count: int = 5) -> None:
        """Waits for so many more frames."""
        wanted = len(self.frames) + count
        assert until(lambda: len(self.frames) >= wanted), (len(self.frames), wanted, self.events)

    def heard(self, state: str, times: int = 1) -> None:
        assert until(lambda: self.states.count(state) >= times), self.events

    def end(self) -> float:
        """Stops it; the seconds that this took."""
        began = time.monotonic()
        self.stop.set()
        self._thread.join(PATIENT)
        assert not self._thread.is_alive()
        self.source.close()
        return time.monotonic() - began

    def ended(self) -> None:
        """Waits for its own end."""
        self._thread.join(PATIENT)
        assert not self._thread.is_alive(), self.events
        self.source.close()

    def _run(self) -> None:
        class All(Kept):
            def write(sink, frame: Frame) -> None:  # noqa: N805 - self is the other one
                self.frames.append(frame)

        run(self.source, (Each(),), All(), stop=self.stop, watch=self.watch)


@contextlib.contextmanager
def watched(url: str, **options: Any) -> Iterator[Watching]:
    watching = Watching(url, **options)
    try:
        yield watching
    finally:
        watching.end()


def rising(frames: list[Frame]) -> bool:
    return all(a.pts * a.time_base < b.pts * b.time_base for a, b in itertools.pairwise(frames))


def has_srt() -> bool:
    protocols = subprocess.run(["ffmpeg", "-v", "quiet", "-protocols"], capture_output=True, text=True)
    return "srt" in protocols.stdout.split()


def test_a_camera_of_two_frames_a_second_is_opened_in_time_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("measnet.runtime.sources.network.OPEN_SECONDS", 7.0)
    sender = over_tcp()
    sender.rate = 2
    with sending(sender), watched(sender.url) as watching:
        watching.more(14)
        assert "reconnecting" not in watching.states


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "tcp", "http"])
def test_who_takes_the_call_and_says_nothing_is_told_from_who_sends_something_else(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("measnet.runtime.sources.network.OPEN_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address}/x/.* did not answer within 1 s"):
            NetworkConnection(f"{address}/x/y")


def test_time_in_which_the_program_got_no_processor_is_not_counted_as_silence() -> None:
    told: list[float] = []

    def read() -> None:
        called_off = threading.Event()
        interrupt.end_calls_when(called_off)
        told.append(interrupt._Clock.monotonic())
        time.sleep(1)  # nobody asks meanwhile: as where Python's lock is waited for
        told.append(interrupt._Clock.monotonic())
        called_off.set()
        told.append(interrupt._Clock.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    assert 0.15 < told[1] - told[0] < 0.3
    assert told[2] - told[1] > 1e6
    assert abs(interrupt._Clock.monotonic() - time.monotonic()) < 60  # which others keep


@pytest.mark.parametrize("kind", ["tcp", "http mjpeg", "hls", "rtmp", "srt"])
def test_a_sender_that_is_killed_and_started_again_goes_on(kind: str, tmp_path: Path) -> None:
    if kind == "srt" and not has_srt():
        pytest.skip("ffmpeg has no SRT")
    senders: dict[str, Callable[[], Any]] = {
        "tcp": over_tcp,
        "rtmp": over_rtmp,
        "srt": over_srt,
        "http mjpeg": single_pictures_over_http,
        "hls": lambda: HlsSender(tmp_path / "hls"),
    }
    sender = senders[kind]()
    outages_wanted = 1 if kind == "srt" else 2  # its receiver waits for 5 seconds of its own
    with sending(sender), watched(sender.url) as live:
        began = time.monotonic()
        for times in range(1, outages_wanted + 1):
            live.more()
            sender.kill()
            live.heard("reconnecting", times)
            sender.start()
            live.heard("running", times + 1)
        live.more()
        ran = time.monotonic() - began
    assert live.changes == ["running", *["reconnecting", "running"] * outages_wanted, "ended"]
    assert rising(live.frames)
    outages = live.source.for_report()["outages"]
    assert len(outages) == outages_wanted == live.watch.telemetry.figures().reconnects
    assert all(outage["seconds"] > 0 and outage["connections"] >= 1 for outage in outages)
    shown_for = float(live.frames[-1].pts * live.frames[-1].time_base)
    # A stream of segments is read ahead of its time; FLV is looked at for 3 s before its first picture. That
    # counts once, however many connections there are.
    assert sum(outage["seconds"] for outage in outages) < shown_for < ran + 5
    assert all("s3cret" not in event.words for event in live.events)


def test_over_udp_a_silence_is_a_stall_and_a_long_one_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measnet.runtime.sources.live.STALLED_SECONDS", 0.5)
    sender = over_udp()
    with sending(sender), watched(sender.url) as live:
        live.more()
        before = len(live.frames)
        sender.kill()
        time.sleep(1.5)  # so long it is silent
        live.heard("stalled")
        sender.start()
        live.more(10)
    steps = [float((b.pts - a.pts) * b.time_base) for a, b in itertools.pairwise(live.frames[before - 2 :])]
    assert max(steps) > 0.5  # the silence is one in the result, although the sender's clock began anew
    assert live.changes == ["running", "ended"] and rising(live.frames)
    monkeypatch.setattr("measnet.runtime.sources.live.GONE_SECONDS", 1.0)
    with sending(sender), watched(sender.url) as live:
        live.more()
        sender.kill()
        live.heard("reconnecting")
        sender.start()
        assert until(lambda: live.states[-1] == "running")
        live.more()
    assert live.states[live.states.index("reconnecting") - 1] == "stalled"
    assert live.changes[-1] == "ended" and rising(live.frames)


def test_an_rtsp_camera_is_cut_off_three_times_and_comes_back_in_other_sizes(
    clip: MakeClip, tmp_path: Path
) -> None:
    small = clip("small.mp4", "-g", "5", "-bf", "0", audio=False)
    large = clip("large.mp4", "-g", "5", "-bf", "0", size="128x96", audio=False)
    with rtsp_camera(small, tmp_path) as camera, watched(camera.url) as live:
        for times, comes_back_as in enumerate((None, large, small), start=1):
            live.more()
            camera.cut()
            live.heard("reconnecting", times)
            camera.restore(comes_back_as)
            live.heard("running", times + 1)
        live.more()
    assert {frame.pixels.shape for frame in live.frames} == {(64, 96, 3)}
    assert rising(live.frames)
    sizes = [event.words for event in live.events if event.kind == "picture"]
    assert ["now, it was 96x64" in sizes[0], "now, it was 128x96" in sizes[1]] == [True, True]
    assert len(live.source.for_report()["outages"]) == 3
    (line,) = [line for line in live.source.warnings if "changes its size" in line]
    assert "from 96×64 to 128×96" in line


def test_infinite_patience_never_gives_up() -> None:
    sender = over_tcp()
    with sending(sender), watched(sender.url, patience=float("inf")) as live:
        live.more()
        sender.kill()
        live.heard("reconnecting")
        sender.start()
        live.heard("running", 2)
    (said,) = [event.words for event in live.events if event.state == "reconnecting"]
    assert said.endswith("; trying again")


def test_rate_and_codec_may_change_on_the_way(tmp_path: Path) -> None:
    sender = over_tcp()
    with sending(sender), watched(sender.url) as live:
        live.more()
        sender.kill()
        sender.codec, sender.rate = ["-c:v", "mpeg2video", "-g", "5", "-bf", "0"], 30
        live.heard("reconnecting")
        sender.start()
        live.heard("running", 2)
        live.more()
    (changed,) = [event.words for event in live.events if event.kind == "picture"]
    assert changed == "it sends 96x64, 30 fps, mpeg2video now, it sent 96x64, 25 fps, h264"
    assert rising(live.frames)


def test_sound_goes_on_behind_an_outage(tmp_path: Path) -> None:
    sender = over_tcp()
    sender.sound = True
    heard: list[float] = []
    watch = Watch("door")

    def said(state: Any) -> int:
        return [event.state for event in watch.events.recent()].count(state)

    with sending(sender):
        source = opened(sender.url, patience=PATIENT, watch=watch)
        sink = VideoSink(tmp_path / "out.mkv", source.info, Encoding(preset="ultrafast"))

        class Recording(type(sink)):  # type: ignore[misc]  # a class of that very object
            def copy(self, packet: Any) -> None:
                heard.append(float(packet.pts * packet.time_base))
                super().copy(packet)

        sink.__class__ = Recording
        stop = threading.Event()
        running = threading.Thread(
            target=run, args=(source, (Each(),), sink), kwargs={"stop": stop}, daemon=True
        )
        running.start()
        assert until(lambda: len(heard) > 10)
        sender.kill()
        assert until(lambda: said("reconnecting"))
        before, ran = len(heard), said("running")
        time.sleep(0.5)
        sender.start()
        assert until(lambda: said("running") > ran)
        after = len(heard)
        assert until(lambda: len(heard) > after + 20)
        stop.set()
        running.join(PATIENT)
        source.close()
        sink.finish()
    recorded = probe(tmp_path / "out.mkv")
    packets = [kind for kind, _, _ in recorded.copied]
    assert packets == ["audio"] * len(packets) and len(packets) > before + 10
    assert max(heard) - min(heard) > 1


@pytest.mark.parametrize("growing", [True, False], ids=["a growing one", "a whole one"])
def test_a_stream_of_segments_ends_when_its_list_says_so(growing: bool, tmp_path: Path) -> None:
    sender = HlsSender(tmp_path / "hls")
    with sending(sender):
        if growing:
            live = Watching(sender.url)
            live.more()
            sender.finish()
        else:
            assert until(lambda: len(list(sender.folder.glob("*.ts"))) > 3)
            sender.finish()
            live = Watching(sender.url)
        live.ended()
    assert live.states[-1] == "ended" and "failed" not in live.states
    assert live.source.lost is None and live.frames


@pytest.mark.parametrize("drain", [True, False])
def test_of_a_file_over_http_nothing_is_lost_before_it_is_read_and_it_ends(
    drain: bool, clip: MakeClip
) -> None:
    film = clip("film.mp4", "-bf", "0")
    watch = Watch("door")
    with serving(film.parent) as base:
        source = LiveSource(f"{base}/film.mp4", drain=drain, watch=watch)
        time.sleep(0.3)
        frames = [item for item in source.read() if isinstance(item, Frame)]
        source.close()
    assert [frame.pts * frame.time_base for frame in frames] == probe(film).times
    assert source.lost is None and not source.warnings
    assert [event.state for event in watch.events.recent()] == ["connecting", "running", "ended"]


def test_an_outage_that_lasts_too_long_is_lost_and_what_was_sent_is_there() -> None:
    sender = over_tcp()
    with sending(sender):
        live = Watching(sender.url, patience=1.0)
        live.more()
        sender.kill()
        began = time.monotonic()
        live.ended()
    assert live.changes == ["running", "reconnecting", "failed"]
    assert live.source.lost is not None and "was gone for 1 s" in live.source.lost
    assert "Connection refused" in live.source.lost
    assert time.monotonic() - began > 0.9
    assert live.frames


def test_without_patience_the_first_outage_is_the_end() -> None:
    sender = over_tcp()
    with sending(sender):
        live = Watching(sender.url, patience=0)
        live.more()
        sender.kill()
        live.ended()
    assert live.changes == ["running", "ended"] and live.source.lost is None


QUICK = 8.0
"""Seconds that a stop may take on a loaded machine; usually it is a tenth of one. Where it is not heard, it
takes the ten that are waited for an answer, or more."""


@contextlib.contextmanager
def answers_nothing() -> Iterator[int]:
    """A port where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "udp"])
def test_stops_while_connecting(scheme: str) -> None:
    stop = threading.Event()
    events = Events()
    with answers_nothing() as port:
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(StoppedError, match="before"):
            LiveSource(f"{scheme}://127.0.0.1:{port}/a/b", watch=Watch("door", events), stop=stop)
        assert time.monotonic() - began < 0.5 + QUICK
        timer.join()
    assert [event.state for event in events.recent()] == ["connecting", "ended"]


def test_stops_while_running_stalled_and_reconnecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measnet.runtime.sources.live.STALLED_SECONDS", 0.3)
    sender = over_udp()
    with sending(sender):
        live = Watching(sender.url)
        live.more()
        assert live.end() < QUICK
        assert live.changes == ["running", "ended"]
        live = Watching(sender.url)
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
    import av

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
            av.open(f"udp://127.0.0.1:{free_port()}", timeout=(2.0, 2.0))
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
    assert lasted[0] > 1.9


def test_an_address_that_nobody_answers_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measnet.runtime.sources.network.OPEN_SECONDS", 0.5)
    with answers_nothing() as port, pytest.raises(InputError, match="did not answer within"):
        LiveSource(f"tcp://127.0.0.1:{port}")


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
            live.more(100)
    finally:
        over.set()
        passing.join()
    assert "failed" not in live.states and rising(live.frames)
    assert float(live.frames[-1].pts * live.frames[-1].time_base) < 60
    assert {frame.pixels.shape for frame in live.frames} == {(240, 320, 3)}
    assert live.source.damaged > 0


def test_a_time_that_damage_made_leap_costs_neither_the_order_nor_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leaping(self: NetworkConnection, frame: Any, captured: float) -> Frame:
        made = honest(self, frame, captured)
        numbers.append(len(numbers))
        wrong = {12: 20 * 3600, 20: -3600, 25: -1}.get(numbers[-1], 0)
        return replace(made, pts=made.pts + round(wrong / made.time_base))

    honest, numbers = NetworkConnection._frame, list[int]()
    monkeypatch.setattr(NetworkConnection, "_frame", leaping)
    sender = over_tcp()
    with sending(sender), watched(sender.url) as live:
        live.more(50)
    assert rising(live.frames)
    assert 1 < float(live.frames[-1].pts * live.frames[-1].time_base) < 60


def test_while_nobody_reads_yet_the_decoder_is_emptied_and_the_newest_is_kept() -> None:
    sender = over_tcp()
    with sending(sender):
        source = opened(sender.url)
        up = time.monotonic()
        time.sleep(2)  # as when an engine is loaded
        first = next(item for item in source.read() if isinstance(item, Frame))
        source.close()
    assert first.captured > up + 0.75  # and not the one that was there first
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


def test_a_sender_that_calls_is_waited_for() -> None:
    if not has_srt():
        pytest.skip("ffmpeg has no SRT")
    address = f"srt://127.0.0.1:{free_port()}"
    sender = Sender(f"{address}?mode=listener", "-f", "mpegts", f"{address}?connect_timeout=60000")
    with sending(sender), watched(sender.url) as live:
        live.more()


class FakeDevice:
    """A camera of OpenCV that can be unplugged."""

    plugged = True
    opened = 0

    def __init__(self, number: int) -> None:
        type(self).opened += 1
        self.number = number

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.plugged

    def read(self) -> tuple[bool, np.ndarray[Any, Any] | None]:
        time.sleep(0.01)
        return (True, np.full((24, 32, 3), (200, 100, 50), np.uint8)) if self.plugged else (False, None)

    def get(self, what: int) -> float:
        return 25.0

    def release(self) -> None:
        pass


@pytest.mark.parametrize("spec", ["camera:3", "/dev/video3"])
def test_a_camera_that_is_unplugged_and_plugged_in_again_goes_on(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeDevice)
    monkeypatch.setattr(FakeDevice, "plugged", True)
    with watched(spec) as live:
        live.more()
        FakeDevice.plugged = False
        live.heard("reconnecting")
        FakeDevice.plugged = True
        live.heard("running", 2)
        live.more()
    assert live.changes == ["running", "reconnecting", "running", "ended"]
    assert rising(live.frames)
    assert (live.frames[0].pixels == (50, 100, 200)).all()


def test_another_shape_is_put_between_bars() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    picture = fitted(white, 64, 20)
    assert picture.shape == (20, 64, 3)
    assert (picture[:, 22:42] == 255).all() and (picture[:, :22] == 0).all() and (picture[:, 42:] == 0).all()
    deep = fitted(np.full((10, 40, 3), 65535, np.uint16), 20, 20)
    assert deep.dtype == np.uint16
    assert (deep[:7] == 0).all() and (deep[8:12] == 65535).all() and (deep[13:] == 0).all()
