"""``measnet-run`` with a page, metrics and a log for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet.metrics import Choices
from measnet.runtime.experts import Account
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.live.events import Event
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.operations.access import VARIABLE
from measnet.runtime.operations.log import JsonConsole
from runtime.conftest import IDENTITY_COMMAND, Answer, MakeClip
from runtime.operations.kit import TOKEN, Client, wait_for
from runtime.senders import sending, single_pictures_over_http

Run = Callable[..., Answer]


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``measnet-run`` in a process of its own, a tenth of a second a frame."""
    process = subprocess.Popen(
        [*IDENTITY_COMMAND, "0.1", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stderr is not None
    for line in process.stderr:
        yield json.loads(line)


def test_a_run_is_seen_while_it_goes_on_and_its_log_is_json(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("long.mp4", seconds=40)
    words = (source, "-o", tmp_path / "out.mp4", "--console", "0", "--log", "json")
    with running(*words) as process:
        lines = read_lines(process)
        first = next(lines)
        assert (first["level"], first["kind"]) == ("info", "note")
        address = re.fullmatch(r"console: (http://127\.0\.0\.1:\d+)/", first["words"])
        assert address is not None
        asking = Client(address[1])
        [camera] = wait_for(lambda: [one for one in asking.json("/api/cameras") if one["state"] == "running"])
        assert camera["camera"] == str(source)
        _, seen, result = asking.next_pair(str(source))
        assert seen.shape == result.shape == (64, 96, 3)
        assert float(np.abs(seen.astype(int) - result).mean()) < 1  # the engine changes nothing
        assert asking.get("/readyz")[0] == 200
        asking.close()
        process.send_signal(signal.SIGINT)
        *others, last = lines
        assert process.wait(60) == 130
    assert all({"time", "level", "kind", "words"} <= line.keys() for line in others)
    assert (last["kind"], last["values"]["status"]) == ("result", "partial")


def test_a_stream_without_a_result_is_shown_on_a_page(tmp_path: Path) -> None:
    sender, figures = single_pictures_over_http(), tmp_path / "run.json"
    with sending(sender), running(sender.url, "--log", "json", "--report", figures) as process:
        lines = read_lines(process)
        address = re.fullmatch(r"console: (http://127\.0\.0\.1:\d+)/", next(lines)["words"])
        assert address is not None
        asking = Client(address[1])
        wait_for(lambda: [one for one in asking.json("/api/cameras") if one["state"] == "running"])
        _, seen, shown = asking.next_pair(sender.url)
        assert seen.shape == shown.shape
        asking.close()
        process.send_signal(signal.SIGINT)
        (result,) = [line for line in lines if line["kind"] == "result"]
        assert process.wait(60) == 0 and result["values"]["output"] == "shown, not written"
    (said,) = json.loads(figures.read_text())["runs"]
    assert said["frames"] > 0 and sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.svg"]


def test_a_port_that_is_taken_ends_it_before_anything_begins(
    clip: MakeClip, tmp_path: Path, measnet_run: Run
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = measnet_run(clip("a.mp4"), "-o", tmp_path / "out.mp4", "--metrics", f":{port}")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith(f"error: --metrics 127.0.0.1:{port}: the port is taken")
    assert answer.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--console", "--metrics"])
def test_an_address_that_is_none_is_a_mistake(option: str, clip: MakeClip, measnet_run: Run) -> None:
    answer = measnet_run(clip("a.mp4"), option, "here")
    assert answer.status == 2 and "is not [HOST:]PORT" in answer.err


@pytest.mark.parametrize("silent", [["--quiet"], ["--log", "json"]])
def test_a_token_is_wanted_where_none_can_be_printed(
    silent: list[str], clip: MakeClip, tmp_path: Path, measnet_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [clip("a.mp4"), "-o", tmp_path / "out.mp4", "--console", "0.0.0.0:0", *silent]
    answer = measnet_run(*words)
    assert answer.status == 2 and f"set {VARIABLE}" in answer.err
    monkeypatch.setenv(VARIABLE, TOKEN)
    answer = measnet_run(*words, "--report", tmp_path / "run.json")
    assert answer.status == 0
    assert TOKEN not in answer.out + answer.err + (tmp_path / "run.json").read_text()


def test_a_rehearsal_serves_nothing(clip: MakeClip, measnet_run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = measnet_run(clip("a.mp4"), "--dry-run", "--console", str(taken.getsockname()[1]))
    assert answer.status == 0


def test_the_log_has_a_level_for_every_event_and_errors_alone_when_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = [
        Event("door", "state", "frames come", "running", {"fps": 25.0, "gap": float("inf")}, at=0.5),
        Event("door", "state", "no frames", "stalled"),
        Event("door", "state", "gave up\nat last", "failed"),
        Event("door", "late", "3 frames were late"),
    ]
    for console in (JsonConsole(), JsonConsole(quiet=True)):
        for event in told:
            console.event(event)
        console.warn("odd")
        console.error("two\nlines")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first = lines[0]
    assert first.pop("time") == "1970-01-01T00:00:00.500Z"
    assert first == {
        **{"level": "info", "kind": "state", "words": "frames come", "camera": "door", "state": "running"},
        "values": {"fps": 25.0, "gap": None},
    }
    assert [line["level"] for line in lines[:6]] == ["info", "warning", "error", "info", "warning", "error"]
    assert [line["level"] for line in lines[6:]] == ["error", "error"]
    assert lines[5]["words"] == "two lines"


def test_the_account_tells_shares_of_experts_over_all_tiles() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    passing = Restoration(Frame(pixels, 0, 1), pixels, damage={"noise": 1.0})  # type: ignore[arg-type]
    for expert in (0, 2):
        passing.choices.append(Choices(np.full((1, 2, 4, 4), expert, np.uint8), None))
    telemetry = Telemetry("a.mp4")
    Account(telemetry).finished(passing)
    figures = telemetry.figures()
    assert (figures.experts, figures.damage) == ((0.5, 0.0, 0.5), {"noise": 1.0})
    Account(telemetry).finished(Restoration(passing.source, pixels))
    assert telemetry.figures().experts == ()
