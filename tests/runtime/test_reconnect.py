"""Cameras and streams that go and come back, over the loopback, from real senders."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ports import free_port

from measnet.runtime.frame import Frame
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.live import LiveSource, letterboxed
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
from .watching import (
    HURRIED,
    PATIENT,
    Watching,
    has_srt,
    no_thread_is_left_behind,
    opened,
    rising,
    until,
    watched,
)

__all__ = ["no_thread_is_left_behind"]


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
    outages_wanted = 2 if kind == "tcp" else 1  # others take seconds for a connection
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


def test_over_udp_a_silence_is_a_stall_and_a_long_one_an_outage() -> None:
    sender, waits = over_udp(), replace(HURRIED, stalled=0.5)
    with sending(sender), watched(sender.url, waits=waits) as live:
        live.more()
        before = len(live.frames)
        sender.kill()
        time.sleep(0.8)  # so long it is silent
        live.heard("stalled")
        sender.start()
        live.more(10)
    steps = [float((b.pts - a.pts) * b.time_base) for a, b in itertools.pairwise(live.frames[before - 2 :])]
    assert max(steps) > 0.5  # the silence is one in the result, although the sender's clock began anew
    assert live.changes == ["running", "ended"] and rising(live.frames)
    with sending(sender), watched(sender.url, waits=replace(waits, gone=1.0)) as live:
        live.more()
        sender.kill()
        live.heard("reconnecting")
        sender.start()
        assert until(lambda: live.states[-1] == "running")
        live.more()
    assert live.states[live.states.index("reconnecting") - 1] == "stalled"
    assert live.changes[-1] == "ended" and rising(live.frames)


def test_an_rtsp_camera_that_is_cut_off_comes_back_in_other_sizes(clip: MakeClip, tmp_path: Path) -> None:
    small = clip("small.mp4", "-g", "5", "-bf", "0", audio=False)
    large = clip("large.mp4", "-g", "5", "-bf", "0", size="128x96", audio=False)
    with rtsp_camera(small, tmp_path) as camera, watched(camera.url) as live:
        for times, comes_back_as in enumerate((large, small), start=1):
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
    assert len(live.source.for_report()["outages"]) == 2
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
    picture = letterboxed(white, 64, 20)
    assert picture.shape == (20, 64, 3)
    assert (picture[:, 22:42] == 255).all() and (picture[:, :22] == 0).all() and (picture[:, 42:] == 0).all()
    deep = letterboxed(np.full((10, 40, 3), 65535, np.uint16), 20, 20)
    assert deep.dtype == np.uint16
    assert (deep[:7] == 0).all() and (deep[8:12] == 65535).all() and (deep[13:] == 0).all()
