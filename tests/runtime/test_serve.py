"""Several cameras at once: their file, their turns at the engine, and how little one can do to the rest."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from ports import free_port

from measnet.image import Image
from measnet.runtime.backends import Inference
from measnet.runtime.frame import Restoration
from measnet.runtime.live.events import Event, Events
from measnet.runtime.options import RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.serve.cameras import Camera, CamerasError, read_cameras
from measnet.runtime.serve.cli import main
from measnet.runtime.serve.service import Service
from measnet.runtime.stream import Observer
from measnet.runtime.turns import Turns
from measnet.testing import FakeBackend

from .conftest import probe
from .identity import IdentityRestorer

EXAMPLE = Path(__file__).parents[2] / "examples" / "cameras.yaml"
PROGRAM = [sys.executable, "-c", "from measnet.runtime.serve.cli import main; main()"]
PICTURE = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=10"]
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


def identity(options: RunOptions, turns: Turns) -> Any:
    return IdentityRestorer()


class Count(Observer):
    """Counts the frames of one camera that go to its sinks."""

    def __init__(self) -> None:
        self.frames = 0

    def finished(self, passing: Restoration) -> None:
        self.frames += 1


def addresses() -> list[str]:
    return [*(f"tcp://127.0.0.1:{free_port()}" for _ in range(3)), f"udp://127.0.0.1:{free_port()}"]


def write(path: Path, cameras: list[dict[str, Any]], **shared: Any) -> Path:
    path.write_text(
        yaml.safe_dump({"all": {"preset": "ultrafast", "threads": 1, **shared}, "cameras": cameras})
    )
    return path


def test_one_of_four_cameras_dies_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may hold up the others' senders: only one that hangs up is to be missed.
    monkeypatch.setattr("measnet.runtime.sources.live.GONE_SECONDS", GENEROUS)
    monkeypatch.setattr("measnet.runtime.sources.network.SILENCE_SECONDS", GENEROUS)
    sources = addresses()
    names = ["door", "yard", "gate", "street"]
    listed = [
        {"name": name, "source": source, "sinks": [str(tmp_path / f"{name}.{end}") for end in ("mkv", "mp4")]}
        for name, source in zip(names, sources, strict=True)
    ]
    cameras = read_cameras(write(tmp_path / "cameras.yaml", listed, temporal=2))
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
            assert (result.video["width"], result.video["height"]) == (160, 96)
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


WRONG = """\
all:
  strenght: 0.5
  temporal: 99
cameras:
  - name: door
    source: rtsp://viewer:secret@10.0.0.5/stream
    sinks: [/nowhere/door.mkv]
    modle: nano
    crf: excellent
    start: 10
  - name: door
    source: camera:0
    sinks: []
  - name: yard
    sinks: [yard.mkv, yard.mkv]
    source: rtsp://viewer:${NO_SUCH_PASSWORD}@10.0.0.5/stream
  - source: camera:0
    sinks: one.mkv
    tile: off
    tile: 512
  - just a word
"""


def test_everything_that_is_wrong_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(WRONG)
    result = CliRunner().invoke(main, ["--check", str(path)])
    assert result.exit_code == 2
    said = [line.removeprefix(f"error: {path}:") for line in result.stderr.splitlines()]
    assert said == [
        "2: all cameras: nothing is called 'strenght'; did you mean strength?",
        "3: all cameras: temporal: 99 is not a whole number from 0 to 64",
        "8: camera door: nothing is called 'modle'; did you mean model?",
        "9: camera door: crf: excellent is not a whole number from 0 to 63",
        "10: camera door: start is not for cameras",
        "11: two cameras are called door, see line 5 too",
        "13: camera door: sinks is empty; name at least one place for its picture",
        "16: camera yard: source: the environment has no NO_SUCH_PASSWORD",
        "17: camera number 4 has no name",
        "20: camera number 4: tile stands here twice",
        "21: camera number 5: this is to be a list of 'key: value' lines",
        "5: camera door: the folder /nowhere does not exist; create it or choose another --out",
    ]
    assert "secret" not in result.output


def test_what_the_machine_has_not_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.mkv").touch()
    listed = [
        {"name": "a", "source": "camera:0", "sinks": ["/nowhere/a.mkv"]},
        {"name": "b", "source": "tcp://127.0.0.1:1", "sinks": ["there.mkv"], "model": "absent.onnx"},
        {"name": "c", "source": "rstp://u:secret@10.0.0.5/stream", "sinks": ["c.mkv"]},
        {"name": "d", "source": "camera:front", "sinks": ["d.mkv"]},
        {"name": "e", "source": "srt://127.0.0.1:1?pass=secret", "sinks": ["srt://h:1?passphrase=secret"]},
    ]
    result = CliRunner().invoke(main, [str(write(tmp_path / "c.yaml", listed, preset="veryfast"))])
    assert result.exit_code == 2
    said = result.stderr.splitlines()
    assert len(said) == 7 and "secret" not in result.stderr
    assert "camera e: srt://127.0.0.1:1?pass=*** is not an address: srt:// takes" in said[5]
    assert "camera e: srt://h:1?passphrase=*** is not an address: passphrase is to have 10 to 79" in said[6]
    assert "camera c: rstp://***@10.0.0.5/stream: addresses begin with rtsp://" in said[3]
    assert "camera d: camera:front: a camera is named by its number" in said[4]
    assert "camera a: the folder /nowhere does not exist" in said[0]
    assert "camera b: the model 'absent.onnx' is neither" in said[1]
    assert "camera b: there.mkv exists already" in said[2]


WRONG_FOR_A_RUN = """\
all: {preset: ultrafast, overwrite: yes}
cameras:
  - {name: a, source: "rtsp://h:99999/x", sinks: [a.mkv], task: nonsense}
  - {name: b, source: "tcp://", sinks: [b.xyz, b.m3u8], tile: 3}
  - {name: c, source: "tcp://h:1", sinks: [c.mkv], pixel-format: rgb99}
  - {name: d, source: "tcp://h:2", sinks: ["http://x/y", "rtmp://", "udp://h:1?listen=1", "tcp://h"]}
  - {name: e, source: "tcp://h:3", sinks: [e.mkv], codec: nonsense, checkpoint: absent.ckpt}
  - {name: f, source: "tcp://h:4", sinks: [f.webm, f.m3u8], codec: h264, bits: 16, crf: 99}
  - {name: g, source: "tcp://h:4", sinks: [g.webm], codec: h264}
  - {name: h, source: "absent.mp4", sinks: [h.mkv], preset: hasty}
  - {name: i, source: "tcp://h:5", sinks: [i.mkv, i.m3u8, "rtmp://h/x", "-"]}
  - {name: j, source: "tcp://h:6", sinks: [/nowhere/j.mkv, k.mkv], bits: 16, preset: hasty, parts: 0}
  - {name: k, source: photo.jpg, sinks: [photo.png]}
"""


def test_check_refuses_all_that_a_run_would_refuse_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(WRONG_FOR_A_RUN)
    Path("photo.jpg").touch()
    result = CliRunner().invoke(main, ["--check", "c.yaml"])
    assert result.exit_code == 2 and {str(path) for path in Path().iterdir()} == {"c.yaml", "photo.jpg"}
    said = [line.removeprefix("error: c.yaml:") for line in result.stderr.splitlines()]
    expected = [
        "8: camera f: crf: 99",
        "12: camera j: --parts 0",
        "3: camera a: rtsp://h:99999/x is not an address",
        "3: camera a: the weights of nano do not know the task 'nonsense'",
        "4: camera b: tcp:// is not an address: it names no machine",
        "4: camera b: tiles of 3 pixels are too small",
        "4: camera b: b.xyz: cannot tell what to write",
        "5: camera c: --pixel-format rgb99 is not known",
        "6: camera d: http://x/y is nothing that a result can be sent to",
        "6: camera d: rtmp:// is not an address",
        "6: camera d: udp://h:1?listen=1: receivers are called",
        "6: camera d: tcp://h is not an address: it has no port",
        "7: camera e: the checkpoint absent.ckpt",
        "7: camera e: --codec nonsense is not known",
        "8: camera f: .webm files cannot hold libx264",
        "8: camera f: libx264 takes no 16 bits here",
        "9: camera g: .webm files cannot hold libx264",
        "10: camera h: absent.mp4 does not exist",
        "10: camera h: --preset hasty is none of libx264",
        "12: camera j: the folder /nowhere does not exist",
        "12: camera j: --preset hasty is none of libx264",
        "12: camera j: libx265 takes no 16 bits here",
        "13: camera k: photo.jpg is no camera and no video; pictures are restored by: measnet-run photo.jpg",
        "13: camera k: photo.png",
    ]
    assert [line[: len(words)] for line, words in zip(said, expected, strict=True)] == expected


def test_options_that_would_do_nothing_are_refused_unless_another_camera_uses_them(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    path = tmp_path / "c.yaml"
    path.write_text(
        "all:\n  insecure: yes\n  reconnect: 5\n  ladder: no\n"
        "cameras:\n"
        f"  - {{name: a, source: {clip}, sinks: [{tmp_path}/a.mkv], ladder: no}}\n"
        f"  - {{name: b, source: 'rtsp://h/s', sinks: [{tmp_path}/b.mkv]}}\n"
        f"  - {{name: c, source: {clip}, sinks: [{tmp_path}/c.mkv], reconnect: 7, insecure: yes}}\n"
    )
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2
    assert [line.removeprefix(f"error: {path}:") for line in result.stderr.splitlines()] == [
        "4: all cameras: --no-ladder goes with --max-latency; leave it away, or add that",
        "6: camera a: --no-ladder goes with --max-latency; leave it away, or add that",
        "8: camera c: --insecure is for addresses; leave it away, or add that",
        "8: camera c: --reconnect is for cameras and streams; leave it away, or add that",
    ]


@pytest.mark.parametrize("report", ["c.yaml", "./a.mkv", "clip.mp4"])
def test_a_report_replaces_nothing_that_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_text("a clip")
    write(Path("c.yaml"), [{"name": "a", "source": "clip.mp4", "sinks": ["a.mkv"]}])
    before = {path: path.read_bytes() for path in Path().iterdir()}
    result = CliRunner().invoke(main, ["c.yaml", "--report", report])
    assert result.exit_code == 2 and re.search("give it a(nother)? name", result.stderr)
    assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "/dev/video0", ["y.mkv"])],
            "a and b both read /dev/video0, which only",
        ),
        ([("a", "-", ["x.mkv"]), ("b", "-", ["y.mkv"])], "a and b both read -, which only"),
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "camera:0", ["y.mkv"])],
            "a and b both read camera:0, which only",
        ),
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "camera:1", ["./x.mkv"])],
            r"a and b both write to \./x\.mkv$",
        ),
        (
            [("a", "camera:0", ["rtmp://h/l/key"]), ("b", "camera:1", ["rtmp://h/l/key"])],
            r"a and b both write to rtmp://h/l/\*\*\*$",
        ),
        ([("a", "camera:0", ["x.mkv", "x.mkv"])], r"a writes twice to x\.mkv$"),
        ([("a\nb", "camera:0", ["x.mkv"])], "a name is one line"),
        ([], "there are no cameras"),
    ],
)
def test_cameras_that_are_in_each_others_way_are_refused(
    cameras: list[tuple[str, str, list[str]]], message: str, tmp_path: Path
) -> None:
    listed = [dict(zip(("name", "source", "sinks"), one, strict=True)) for one in cameras]
    with pytest.raises(CamerasError, match=message) as caught:
        read_cameras(write(tmp_path / "c.yaml", listed))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2",
        "cameras: 5",
        "- a\n- b",
        "cameras:\n  - [1]\n",
        "\x00",
        "a: &a [*a]",
        "[" * 5000,
        "{" * 5000,
    ],
)
def test_what_is_no_list_of_cameras_ends_in_a_line_and_status_2(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {path}")
    assert "Traceback" not in result.output


def test_options_are_those_of_measnet_run_and_a_cameras_own_go_before_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "p:w")
    path = tmp_path / "c.yaml"
    path.write_text(
        "all: {tile: off, strength: 0.5, bits: 8}\n"
        "cameras: [{name: a, source: 'rtsp://u:${PASSWORD}@h/s', sinks: a.mkv, strength: 1, on-fault: stop}]"
    )
    (camera,) = read_cameras(path)
    assert camera.source == "rtsp://u:p:w@h/s" and camera.sinks == ("a.mkv",)
    options = camera.options
    assert (options.engine.tile, options.strength, options.encoding.bits) == ("off", 1.0, 8)
    assert options.checks.on_fault == "stop"


def test_a_key_is_named_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "all:\n  on-fualt: stop\n  on_fault: maybe\n  max-latency: [1]\n  raw-out: rgb24\n"
        "cameras: [{name: a, source: 'tcp://h:1', sinks: a.mkv, pixel-format: a, pixel_format: b}]"
    )
    with pytest.raises(CamerasError) as caught:
        read_cameras(path)
    assert [line.partition(": ")[2] for line in caught.value.problems] == [
        "all cameras: nothing is called 'on-fualt'; did you mean on-fault?",
        "all cameras: on_fault: 'maybe' is not one of 'fallback', 'stop', 'ignore'.",
        "all cameras: max-latency needs one value",
        "all cameras: raw-out is not for cameras",
        "camera a: pixel_format stands here twice",
    ]


def test_the_example_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--check", str(EXAMPLE)])
    assert result.exit_code == 0, result.output
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "door",
        "yard",
        "gate",
        "street",
    ]
    assert all(isinstance(camera, Camera) for camera in read_cameras(EXAMPLE))
