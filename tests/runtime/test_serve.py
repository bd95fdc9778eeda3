"""Several cameras at once: their turns at the engine, and how little one can do to the rest."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ports import free_port

from measnet.image import Image
from measnet.runtime.backends import Inference
from measnet.runtime.frame import Restoration
from measnet.runtime.live.events import Event, Events
from measnet.runtime.live.waits import Waits
from measnet.runtime.options import RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.serve.cameras import read_cameras
from measnet.runtime.serve.service import Service
from measnet.runtime.stream import Observer
from measnet.runtime.turns import Turns
from measnet.testing import FakeBackend

from .cameras_file import identity, write
from .conftest import probe
from .identity import IdentityRestorer

PROGRAM = [sys.executable, "-c", "from measnet.runtime.serve.cli import main; main()"]
PICTURE = ["-re", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=10"]
CODEC = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "5", "-f", "mpegts"]
GENEROUS = 240.0
"""Seconds that a slow, busy machine may take for anything."""


def wait_until(condition: Callable[[], bool], seconds: float = GENEROUS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.02)


@contextlib.contextmanager
def sender(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A camera: ffmpeg that sends a moving picture until it is killed. Over TCP it waits for its viewer."""
    target = f"{url}?listen=1" if url.startswith("tcp:") else f"{url}?pkt_size=1316"
    running = subprocess.Popen(["ffmpeg", "-v", "quiet", *PICTURE, *CODEC, target])
    try:
        yield running
    finally:
        running.kill()
        running.wait()


class Count(Observer):
    """Counts the frames of one camera that go to its sinks."""

    def __init__(self) -> None:
        self.frames = 0

    def finished(self, passing: Restoration) -> None:
        self.frames += 1


def addresses() -> list[str]:
    return [*(f"tcp://127.0.0.1:{free_port()}" for _ in range(3)), f"udp://127.0.0.1:{free_port()}"]


def test_one_of_four_cameras_dies_and_the_others_go_on(tmp_path: Path) -> None:
    sources = addresses()
    names = ["door", "yard", "gate", "street"]
    listed = [
        {"name": name, "source": source, "sinks": [str(tmp_path / f"{name}.{end}") for end in ("mkv", "mp4")]}
        for name, source in zip(names, sources, strict=True)
    ]
    cameras = read_cameras(write(tmp_path / "cameras.yaml", listed, temporal=2))
    # A busy machine may hold up the others' senders: only one that hangs up is to be missed.
    waits = Waits(gone=GENEROUS, silence=GENEROUS)
    cameras = [
        replace(camera, options=replace(camera.options, live=replace(camera.options.live, waits=waits)))
        for camera in cameras
    ]
    events, stop = Events(), threading.Event()
    states: dict[str, list[str]] = {name: [] for name in names}
    events.listen(lambda event: states[event.camera].append(str(event.state)) if event.state else None)
    counts = {name: Count() for name in names}
    running = Service(cameras, events, lambda watch: [counts[watch.camera]])
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(sender(url)) for url in sources]
        serving = threading.Thread(target=running.run, args=(stop,))
        serving.start()
        try:
            wait_until(lambda: all("running" in found for found in states.values()))
            wait_until(lambda: all(count.frames for count in counts.values()))
            heard = {name: len(found) for name, found in states.items()}
            senders[1].kill()
            wait_until(lambda: "reconnecting" in states["yard"][heard["yard"] :])
            before = {name: counts[name].frames for name in names if name != "yard"}
            wait_until(lambda: all(counts[name].frames > frames + 2 for name, frames in before.items()))
            stack.enter_context(sender(sources[1]))
            wait_until(lambda: states["yard"][-1] == "running")
            assert not any("reconnecting" in states[name][heard[name] :] for name in before)
        finally:
            stop.set()
            serving.join(GENEROUS)
        assert not serving.is_alive()
    for name, report in zip(names, running.reports, strict=True):
        assert running.reports[1].live["reconnects"] >= 1
        assert states[name][0] == "connecting" and states[name][-1] == "ended"
        assert report.status == "complete" and report.engine["backend"] == "onnxruntime"
        for ending, told in zip(("mkv", "mp4"), report.sinks, strict=True):
            result = probe(tmp_path / f"{name}.{ending}")
            assert (result.video["width"], result.video["height"]) == (96, 64)
            # A busy machine may hold up a sink: what it then left out is counted.
            assert len(result.times) == told["frames"] > 0
            assert told["frames"] + told["dropped"] == report.frames and told["failures"] == 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("measnet-")]


def test_a_camera_that_is_not_there_is_tried_again_and_holds_nobody_up(tmp_path: Path) -> None:
    here, late = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    listed = [
        {"name": "here", "source": here, "sinks": [str(tmp_path / "here.mkv")], "frames": 3},
        {"name": "late", "source": late, "sinks": [str(tmp_path / "late.mkv")], "frames": 3},
    ]
    events, told = Events(), list[Event]()
    events.listen(told.append)
    running = Service(read_cameras(write(tmp_path / "c.yaml", listed)), events, opens=identity)
    serving = threading.Thread(target=running.run, args=(threading.Event(),), daemon=True)

    def heard(camera: str, what: str) -> bool:
        return any(event.camera == camera and what in (event.state, event.kind) for event in told)

    with sender(here):
        serving.start()
        wait_until(lambda: heard("here", "ended") and heard("late", "reconnecting"))
    assert running.reports[0].frames == 3 and not heard("late", "running")
    (again,) = [event.words for event in told if event.state == "reconnecting" and event.camera == "late"]
    assert again.endswith("it is tried again")
    with sender(late):
        serving.join(GENEROUS)
    assert not serving.is_alive() and running.reports[1].frames == 3
    states = [event.state for event in told if event.camera == "late" and event.state]
    states = [state for state in dict.fromkeys(states) if state != "stalled"]  # as a busy machine is
    assert states == ["connecting", "reconnecting", "running", "ended"]


def test_the_report_says_why_a_camera_was_never_seen(tmp_path: Path) -> None:
    listed = [{"name": "a", "source": f"tcp://127.0.0.1:{free_port()}", "sinks": [str(tmp_path / "a.mkv")]}]
    events, stop = Events(), threading.Event()
    events.listen(lambda event: stop.set() if event.state == "reconnecting" else None)
    running = Service(read_cameras(write(tmp_path / "c.yaml", listed)), events, opens=identity)
    assert running.run(stop)
    (report,) = running.reports
    assert report.error is not None and "Connection refused" in report.error


def test_a_camera_whose_sink_fails_fails_alone(tmp_path: Path) -> None:
    sources = addresses()[:2]
    listed = [
        {
            "name": "bad",
            "source": sources[0],
            "sinks": [str(tmp_path / "bad.mkv")],
            "codec": "prores",
            "frames": 3,
        },
        {"name": "good", "source": sources[1], "sinks": [str(tmp_path / "good.mkv")], "frames": 3},
    ]
    (tmp_path / "bad.mkv").mkdir()
    events, told = Events(), list[Event]()
    events.listen(told.append)
    running = Service(read_cameras(write(tmp_path / "c.yaml", listed)), events, opens=identity)
    with sender(sources[0]), sender(sources[1]):
        assert not running.run(threading.Event())
    (failed,) = [event for event in told if event.state == "failed"]
    assert failed.camera == "bad" and "\n" not in failed.words
    assert running.reports[0].error and running.reports[1].frames == 3


def test_ctrl_c_ends_all_of_them_tidily(tmp_path: Path) -> None:
    sources = addresses()[:2]
    listed = [
        {"name": f"cam{index}", "source": url, "sinks": [str(tmp_path / f"{index}.mkv")]}
        for index, url in enumerate(sources)
    ]
    report = tmp_path / "report.json"
    listening = ["--console", "0", "--log", "json"]
    config = write(tmp_path / "c.yaml", listed, temporal=0, crf=0)
    command = [*PROGRAM, str(config), "--report", str(report), *listening]
    with sender(sources[0]), sender(sources[1]):
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        grown = [tmp_path / f"{index}.mkv.part" for index in range(2)]
        wait_until(lambda: all(path.exists() and path.stat().st_size for path in grown))
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=GENEROUS)
    assert running.returncode == 0, said
    lines = [json.loads(line) for line in said.splitlines()]
    ended = {line["camera"] for line in lines if line.get("state") == "ended"}
    assert ended == {"cam0", "cam1"} and any("console: http" in line["words"] for line in lines), said
    results = [line["words"] for line in lines if line.get("kind") == "result"]
    assert results == ["cam0: complete", "cam1: complete"], said
    runs = json.loads(report.read_text())["runs"]
    assert [run["input"] for run in runs] == ["cam0", "cam1"]
    assert all(len(probe(tmp_path / f"{index}.mkv").times) == runs[index]["frames"] for index in range(2))


def test_a_receiver_that_comes_late_is_tried_until_it_is_there_and_holds_no_sink_up(tmp_path: Path) -> None:
    source, port, out = addresses()[0], free_port(), tmp_path / "yard.mkv"
    late = f"tcp://127.0.0.1:{port}"
    listed = [{"name": "yard", "source": source, "sinks": [late, str(out)]}]
    events, stop, told = Events(), threading.Event(), list[str]()
    events.listen(lambda event: told.append(event.words) if event.kind == "sink" else None)
    count = Count()
    cameras = read_cameras(write(tmp_path / "c.yaml", listed))
    running = Service(cameras, events, lambda watch: [count], opens=identity)
    with sender(source):
        serving = threading.Thread(target=running.run, args=(stop,))
        serving.start()
        try:
            wait_until(lambda: count.frames > 3)
            assert told[0].startswith(f"{late} does not take the stream") and "tried again" in told[0]
            with socket.create_server(("127.0.0.1", port)) as receiver:
                receiver.settimeout(GENEROUS)
                with receiver.accept()[0] as taken:
                    taken.settimeout(GENEROUS)
                    assert taken.recv(1) == b"\x47"  # as packets of MPEG-TS begin
                    wait_until(lambda: f"{late} is back" in told)
                    stop.set()
                    while taken.recv(65_536):
                        pass
        finally:
            stop.set()
            serving.join(GENEROUS)
    (report,) = running.reports
    assert report.status == "complete" and not serving.is_alive()
    pushed, file = report.sinks
    assert 0 < pushed["frames"] < file["frames"] == len(probe(out).times)


class SlowBackend(FakeBackend):
    """Begins a frame only once every other camera waits for its own, and notes whose frame it is."""

    def __init__(self, turns: Turns, cameras: int) -> None:
        super().__init__()
        self.order: list[int] = []
        self.cameras = cameras
        self._turns = turns

    def infer(self, images: Image) -> Inference:
        wait_until(lambda: len(self._turns._threads) >= self.cameras)
        self.order.append(round(255 * float(images[0, 0, 0, 0])))
        return super().infer(images)


def test_cameras_take_turns_at_a_slow_engine() -> None:
    turns, frames = Turns(), 5
    slow = SlowBackend(turns, 3)
    shared, own = (Restorer(backend=slow, turns=turns) for _ in range(2))

    def camera(number: int) -> None:
        engine = own if number == 1 else shared
        for _ in range(frames + 10 * (number == 0)):  # the first camera has many more
            if len(slow.order) >= 3 * frames:
                slow.cameras = 1
            engine.restore(np.full((4, 4, 3), number, np.uint8))

    threads = [threading.Thread(target=camera, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(slow.order) >= 3 * frames - 2)
    slow.cameras = 1
    for thread in threads:
        thread.join(GENEROUS)
    rounds = np.array(slow.order[: 3 * (frames - 1)]).reshape(-1, 3)
    assert all(sorted(one) == [0, 1, 2] for one in rounds.tolist())
    assert len({tuple(one) for one in rounds.tolist()}) == 1


def test_cameras_of_one_model_share_one_engine(tmp_path: Path) -> None:
    opened = []

    def counted(options: RunOptions, turns: Turns) -> Any:
        opened.append(options.engine.model)
        return IdentityRestorer()

    listed = [
        {"name": f"{number}", "source": "camera:9", "sinks": ["x.mkv"], "model": model}
        for number, model in enumerate(["nano", "small", "nano"])
    ]
    for number, camera in enumerate(listed):
        camera |= {"source": f"tcp://127.0.0.1:{number + 1}", "sinks": [str(tmp_path / f"{number}.mkv")]}
    Service(read_cameras(write(tmp_path / "c.yaml", listed)), Events(), opens=counted)
    assert opened == ["nano", "small"]
