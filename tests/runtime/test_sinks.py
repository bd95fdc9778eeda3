"""Sinks of live streams: several at once, one of which fails, stalls or cannot be."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from ports import is_up

from measnet.errors import OutputError, UsageError
from measnet.runtime.frame import Frame
from measnet.runtime.live.watch import Watch
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.loopback import LoopbackSink
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.several import Several
from measnet.runtime.sinks.video import VideoSink

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, probe
from .live_camera import GENEROUS, PATIENT, ULTRAFAST, Camera, send, wait_for
from .test_live import mpegts_over_tcp


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
    sinks = [PatientSink(Path(f"{n}"), end, watch, waits=PATIENT) for n, end in enumerate(ends)]
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
    send(Camera(20, pause=0.01), PatientSink(Path("away"), end, watch, lambda: end, PATIENT))
    assert [event.words for event in watch.events.recent() if event.kind == "sink"] == [
        "away is lost at the end: the connection is gone"
    ]
    with pytest.raises(OutputError, match="the connection is gone"):
        send(Camera(20, pause=0.01), PatientSink(Path("file"), GoneAtTheEnd(1000), watch, waits=PATIENT))


def test_one_result_that_fails_leaves_the_others_whole(tmp_path: Path) -> None:
    watch, camera = Watch("yard"), Camera(50, pause=0.01)
    file = tmp_path / "x.mp4"
    lost = PatientSink(Path("full"), Failing(3), watch, waits=PATIENT)
    kept = PatientSink(file, VideoSink(file, camera.info, ULTRAFAST), watch, waits=PATIENT)
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


@pytest.mark.parametrize("reader", ["leaves", "stalls"])
def test_a_pipe_that_nobody_reads_stops_no_live_stream(reader: str, clip: MakeClip, tmp_path: Path) -> None:
    out = tmp_path / "y.mkv"
    with mpegts_over_tcp(clip("live.mp4", "-g", "5", "-bf", "0", seconds=4.0)) as url:
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


def test_a_frame_counts_as_delivered_once_its_sink_has_it() -> None:
    class Slow(Failing):
        def write(self, frame: Frame) -> None:
            assert go.wait(GENEROUS)
            super().write(frame)

    go, told = threading.Event(), list[Frame]()
    camera = Camera(1)
    frame = Frame(np.zeros((8, 8, 3), np.uint8), 0, Fraction(1, 25))
    patient = PatientSink(Path("x"), Slow(2), Watch("yard"), waits=PATIENT)
    several = Several([patient, PatientSink(Path("y"), Slow(2), Watch("yard"), waits=PATIENT)])
    several.deliver(frame, told.append)
    assert not told
    go.set()
    wait_for(lambda: told == [frame])
    several.finish()
    assert len(told) == 1 and camera
