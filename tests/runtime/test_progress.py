"""Several inputs: looked at before the first is restored, and one bar over all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.runtime import progress
from measnet.runtime.progress import Amount, Overall
from measnet.runtime.stream import RunFigures

from .conftest import Answer, MakeClip
from .identity import IdentityRestorer
from .test_preview import on_a_terminal

Run = Callable[..., Answer]


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_frames_of_all_are_counted_and_the_time_goes_by_their_pixels() -> None:
    clock = Time()
    overall = Overall([Amount(100, 1000), Amount(50, 4000)], clock)
    assert (overall.done, overall.frames, overall.seconds_left) == (0, 150, None)
    overall.begin(0)
    clock.now = 40.0
    overall.update(RunFigures(resumed_at=60, frames=20))
    assert (overall.number, overall.inputs, overall.done, overall.frames) == (1, 2, 80, 150)
    # 20 frames took 40 s; 20 of them and 50 of four times the size are left.
    assert overall.seconds_left == pytest.approx(440)
    clock.now = 50.0
    overall.update(RunFigures(resumed_at=60, frames=30))
    overall.end()  # it broke off 10 frames early
    assert (overall.done, overall.frames) == (90, 140)
    assert overall.seconds_left == pytest.approx(50 * 50 * 4 / 30)
    overall.begin(1)
    clock.now = 100.0
    overall.update(RunFigures(frames=50))
    assert (overall.done, overall.frames, overall.seconds_left) == (140, 140, 0)


def test_no_time_is_told_before_all_lengths_are_known() -> None:
    clock = Time()
    overall = Overall([Amount(None, 0), Amount(10, 500)], clock)
    overall.begin(0)
    clock.now = 5.0
    overall.update(RunFigures(frames=30))
    assert (overall.done, overall.frames, overall.seconds_left) == (30, None, None)
    overall.end()
    assert overall.frames == 40 and overall.seconds_left == pytest.approx(5 / 3)
    longer = Overall([Amount(10, 500)], clock)
    longer.begin(0)
    longer.update(RunFigures(frames=12))
    assert longer.frames == 12 and longer.seconds_left == 0


def test_a_terminal_has_one_bar_over_all_inputs(clip: MakeClip, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip("plain.mp4"), tmp_path / name)
    status, written = on_a_terminal(
        tmp_path / "a.mp4", tmp_path / "b.mp4", "--preset", "ultrafast", seconds="0.02", columns=100
    )
    assert status == 0, written
    assert "input 1 of 2" in written and "input 2 of 2" in written
    assert "/20  " in written and "/40" in written and " left" in written


def test_a_log_has_a_line_now_and_then_and_no_bars(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip("plain.mp4"), tmp_path / name)
    inputs = [tmp_path / "a.mp4", tmp_path / "b.mp4", "--preset", "ultrafast"]
    answer = measnet_run(*inputs)
    assert answer.status == 0
    lines = [line for line in answer.err.splitlines() if line.startswith("b.restored.mp4: ")]
    assert (
        lines
        and "/20 frames" in lines[-1]
        and "input 2 of 2" in lines[-1]
        and "/40 frames of all" in lines[-1]
    )
    assert "━" not in answer.err
    quiet = measnet_run(*inputs, "-y", "--quiet")
    assert (quiet.out, quiet.err) == ("", "")


def test_what_cannot_be_restored_is_said_before_the_first_is(measnet_run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 9, 3), np.uint8))
    (tmp_path / "c.restored.png").touch()

    def started() -> IdentityRestorer:
        print("the engine starts")
        return IdentityRestorer()

    measnet_run = partial(measnet_run, engine=started)
    report = tmp_path / "report.json"
    answer = measnet_run(*(tmp_path / name for name in ("a.png", "b.png", "c.png")), "--report", report)
    assert answer.status == 2 and (tmp_path / "a.restored.png").exists()
    assert "b.png does not exist" in answer.err and "--overwrite" in answer.err
    runs = json.loads(report.read_text())["runs"]
    assert [Path(run["input"]).name for run in runs] == ["a.png", "b.png", "c.png"]
    assert [run["status"] for run in runs] == ["complete", "failed", "failed"]
    assert answer.err.count("error:") == 2
    assert answer.out.count("the engine starts") == 1
    alone = measnet_run(tmp_path / "b.png", tmp_path / "c.png")
    assert alone.status == 2 and "the engine starts" not in alone.out


def test_two_inputs_of_one_name_do_not_become_one_result(measnet_run: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("monday", "tuesday")):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "door.png"), np.full((8, 9, 3), number, np.uint8))
    (tmp_path / "out").mkdir()
    inputs = [tmp_path / name / "door.png" for name in ("monday", "tuesday")]
    answer = measnet_run(*inputs, "-o", tmp_path / "out", "-y")
    assert answer.status == 2 and "would both become" in answer.err
    (result,) = (tmp_path / "out").iterdir()
    assert not cv2.imread(str(result)).any()  # monday's
