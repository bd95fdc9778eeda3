"""``measnet-run`` with cameras and streams: what it prints, reports and ends with."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from measnet.runtime.live.credentials import without_secrets

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, probe
from .rtsp_server import rtsp_camera
from .senders import over_tcp, sending, single_pictures_over_http
from .watching import answers_nothing

Run = Callable[..., Answer]


def when_up(run: Run, *arguments: str | Path) -> Answer:
    """Runs it until the sender, which has just been started, is there."""
    until = time.monotonic() + 60
    while True:
        answer = run(*arguments)
        if answer.status != 2 or "cannot be opened" not in answer.err or time.monotonic() > until:
            return answer
        time.sleep(0.1)


def report(path: Path) -> dict[str, Any]:
    (only,) = json.loads(path.read_text())["runs"]
    return dict(only)


def test_a_lost_stream_ends_with_status_1_and_its_result_is_kept(measnet_run: Run, tmp_path: Path) -> None:
    sender = over_tcp()
    sender.seconds = 1.5
    out, figures = tmp_path / "out.mkv", tmp_path / "run.json"
    with sending(sender):
        answer = when_up(measnet_run, sender.url, "-o", out, "--reconnect", "1", "--report", figures)
    assert answer.status == 1
    lines = answer.err.splitlines()
    assert lines[0] == f"{sender.url}: connecting"
    assert any("running: 96x64, 25 fps, h264" in line for line in lines)
    assert any("the connection was closed; trying again for 1 s" in line for line in lines)
    assert sum("was gone for 1 s" in line for line in lines) == 1
    said = report(figures)
    assert said["status"] == "complete" and said["sinks"][0]["frames"] == len(probe(out).times) > 2
    assert "was gone for 1 s" in said["error"]
    live = said["live"]
    assert (live["state"], live["reconnects"], live["outages"]) == ("failed", 1, [])
    assert live["decoded"] == said["frames"] + said["dropped"] + said["skipped"]
    assert sum(live["dropped"].values()) == said["dropped"]
    latency = live["latency"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["largest"]


def test_enough_frames_of_a_stream_are_status_0(measnet_run: Run, tmp_path: Path) -> None:
    sender = single_pictures_over_http()
    figures = tmp_path / "run.json"
    with sending(sender):
        answer = when_up(
            measnet_run, sender.url, "-o", tmp_path / "out.mkv", "--frames", "5", "--report", figures
        )
    assert answer.status == 0, answer.err
    said = report(figures)
    assert said["frames"] == 5 and said["live"]["state"] == "ended" and said["error"] is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("camera:97", "gives no picture"),
        ("/dev/video97", "gives no picture"),
        ("camera:front", "by its number"),
        ("tcp://bob:s3cret@127.0.0.1:1", "cannot be opened"),
        ("rtsp://bob:s3cret@127.0.0.1:1/a?pwd=s3cret", "cannot be opened"),
        ("rtsq://bob:s3cret@127.0.0.1/a", "addresses begin with"),
    ],
)
def test_what_is_not_there_is_status_2_and_one_line(
    spec: str, says: str, measnet_run: Run, tmp_path: Path
) -> None:
    figures = tmp_path / "run.json"
    answer = measnet_run(spec, "-o", tmp_path / "out.mkv", "--report", figures)
    assert answer.status == 2
    (line,) = [line for line in answer.err.splitlines() if not line.endswith(": connecting")]
    assert line.startswith("error: ") and says in line
    everything = answer.err + answer.out + figures.read_text()
    assert "s3cret" not in everything and "bob" not in everything
    assert report(figures)["input"] == without_secrets(spec)


def test_credentials_reach_neither_lines_nor_report(clip: MakeClip, measnet_run: Run, tmp_path: Path) -> None:
    picture = clip("a.mp4", "-g", "5", "-bf", "0", audio=False)
    figures = tmp_path / "run.json"
    with rtsp_camera(picture, tmp_path, login="bob:s3cret") as camera:
        url = camera.url.replace("://", "://bob:s3cret@")
        missing = measnet_run(url, "-o", tmp_path / "missing" / "o.mkv")
        answer = measnet_run(url, "-o", tmp_path / "o.mkv", "--frames", "3", "--report", figures)
        excerpt = measnet_run(url, "-o", tmp_path / "p.mkv", "--start", "3")
    assert (missing.status, answer.status, excerpt.status) == (2, 0, 2)
    everything = "".join(a.out + a.err for a in (missing, answer, excerpt)) + figures.read_text()
    assert "s3cret" not in everything and "bob" not in everything
    assert report(figures)["input"] == camera.url.replace("://", "://***@")


def test_a_mistyped_address_among_several_inputs_is_shown_without_credentials(
    clip: MakeClip, measnet_run: Run, tmp_path: Path
) -> None:
    figures = tmp_path / "run.json"
    answer = measnet_run(clip("a.mp4"), "rtsq://bob:s3cret@cam/a", "-o", tmp_path, "--report", figures)
    compared = measnet_run("rtsp://bob:s3cret@127.0.0.1:1/a", "-o", tmp_path / "a.mkv", "--compare", "side")
    assert (answer.status, compared.status) == (2, 2)
    everything = answer.out + answer.err + compared.out + compared.err + figures.read_text()
    assert "s3cret" not in everything and "bob" not in everything


def rest_of(process: subprocess.Popen[str]) -> str:
    """All that it still says on stderr. ``communicate`` would lose what ``readline`` has read ahead."""
    assert process.stderr is not None
    late = threading.Timer(60, process.kill)
    late.start()
    with process.stderr as stderr:
        errors = stderr.read()
    process.wait()
    late.cancel()
    return errors


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp", "rtmp", "udp"])
def test_ffmpeg_itself_writes_nothing_to_the_terminal(scheme: str, tmp_path: Path) -> None:
    with answers_nothing() as port:
        place = f"{scheme}://bob:s3cret@127.0.0.1:{port if scheme == 'tcp' else 1}/app/key"
        command = [*IDENTITY_COMMAND, "0", place, "-o", str(tmp_path / "out.mkv"), "--debug"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "connecting" in process.stderr.readline()
        if scheme in ("tcp", "udp"):
            process.send_signal(signal.SIGINT)
        errors = rest_of(process)
    assert process.returncode != 0
    assert "s3cret" not in errors and "bob" not in errors and "***@127" in errors
    assert "@ 0x" not in errors


@pytest.mark.parametrize(
    "wrong",
    [
        ["--max-latency", "1"],
        ["--max-latency", "0"],
        ["--reconnect", "-1"],
        ["--late", "never"],
        ["--late", "drop-newest"],
    ],
)
def test_options_that_make_no_sense_are_refused(
    wrong: list[str], clip: MakeClip, measnet_run: Run, tmp_path: Path
) -> None:
    answer = measnet_run(clip("a.mp4"), "-o", tmp_path / "out.mp4", *wrong)
    assert answer.status == 2 and wrong[0] in answer.err


def test_frames_of_standard_input_may_be_dropped(clip: MakeClip, tmp_path: Path) -> None:
    film, figures = clip("pipe.ts", "-bf", "0", seconds=1.6, audio=False), tmp_path / "run.json"
    out = tmp_path / "out.mkv"
    command = [
        *IDENTITY_COMMAND,
        "0.04",
        "-",
        "-o",
        str(out),
        "--late",
        "drop-oldest",
        "--report",
        str(figures),
    ]
    with film.open("rb") as pipe:
        done = subprocess.run(command, stdin=pipe, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = report(figures)
    assert said["frames"] + said["dropped"] == 40 and said["dropped"] > 0
    assert len(probe(out).times) == said["frames"]


def test_a_stop_while_it_connects_ends_it_at_once(tmp_path: Path) -> None:
    with answers_nothing() as port:
        command = [*IDENTITY_COMMAND, "0", f"rtsp://127.0.0.1:{port}/cam", "-o", str(tmp_path / "out.mkv")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "connecting" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        errors = rest_of(process)
    # Left to itself it says after ten seconds that nobody answered.
    assert process.returncode == 130 and "stopped before" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_the_process_title_holds_no_credentials(tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    with answers_nothing() as port:
        address = f"rtsp://bob:s3cret@127.0.0.1:{port}/cam"
        target = f"--out=srt://127.0.0.1:{free_port()}?passphrase=s3cret"
        process = subprocess.Popen(
            [*IDENTITY_COMMAND, "0", address, target], stderr=subprocess.PIPE, text=True
        )
        try:
            title = Path(f"/proc/{process.pid}/cmdline")
            assert process.stderr is not None
            assert "connecting" in process.stderr.readline()
            assert b"s3cret" not in title.read_bytes() and b"bob" not in title.read_bytes()
            assert b"rtsp://***@127.0.0.1" in title.read_bytes()
        finally:
            process.terminate()
            process.communicate(timeout=60)


def test_sound_of_a_stream_is_converted_where_the_file_cannot_hold_it(
    measnet_run: Run, tmp_path: Path
) -> None:
    sender = over_tcp()
    sender.sound = True
    out = tmp_path / "out.webm"
    with sending(sender):
        answer = when_up(measnet_run, sender.url, "-o", out, "--sound", "convert", "--frames", "30")
    assert answer.status == 0, answer.err
    recorded = probe(out)
    assert recorded.kinds == ["video", "audio"]
    assert len([kind for kind, _, size in recorded.copied if size > 0]) > 5
