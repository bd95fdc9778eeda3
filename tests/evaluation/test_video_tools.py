"""Classical tools for video: ffmpeg's filters, from PyAV or the program, credited at their best."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation.small_sequences import moving, write_folder

from measnet.errors import InputError, MEASNetError
from measnet.evaluation.classical import TOOLS
from measnet.evaluation.video.degrade import parse_chain
from measnet.evaluation.video.figures import DEGRADED, VideoFigures
from measnet.evaluation.video.filters import FrameByFrame, LibraryFilter, ProgramFilter
from measnet.evaluation.video.measure import VideoOptions, Watcher, measure_video
from measnet.evaluation.video.sequences import Footage, SequenceFiles
from measnet.metrics import psnr

Grid = dict[str, tuple[str, ...]]

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not there")


@pytest.fixture
def noisy(tmp_path: Path) -> Footage:
    place = SequenceFiles("x", write_folder(tmp_path / "x", moving(5, height=96, width=128)))
    return Footage(place, parse_chain("sensor:15,h264:20"), seed=0, limit=None, folder=tmp_path)


def gain(footage: Footage, results: list[np.ndarray]) -> float:
    before = np.mean([psnr(a, b, 255) for a, b in footage.pairs()])
    clean = list(footage.clean())
    return float(np.mean([psnr(a, b, 255) for a, b in zip(results, clean, strict=True)]) - before)


@pytest.mark.parametrize("setting", ["nlmeans=s=6:p=5:r=5", "bm3d=sigma=20", "atadenoise"])
def test_a_filter_of_pyav_gives_every_frame_and_takes_time(setting: str, noisy: Footage) -> None:
    tool = LibraryFilter(setting, threads=1)
    results = list(tool.run(noisy))
    assert len(results) == 5 and tool.taken.cores > 0 and tool.taken.clock
    assert gain(noisy, results) > (1 if "=" in setting else -1)


@needs_ffmpeg
def test_the_program_gives_what_pyav_gives(noisy: Footage) -> None:
    program, library = ProgramFilter("nlmeans=s=6:p=5:r=5", 1), LibraryFilter("nlmeans=s=6:p=5:r=5", 1)
    theirs, ours = list(program.run(noisy)), list(library.run(noisy))
    assert len(theirs) == len(ours) == 5 and program.taken.cores > 0 and program.taken.clock is None
    assert min(psnr(a, b, 255) for a, b in zip(theirs, ours, strict=True)) > 45  # their versions differ


@needs_ffmpeg
def test_a_filter_leaves_colours_alone_whichever_runs_it(tmp_path: Path) -> None:
    place = SequenceFiles("x", write_folder(tmp_path / "x", moving(3)))
    clean = Footage(place, parse_chain("sensor:0"), seed=0, limit=None, folder=tmp_path)
    for tool in (LibraryFilter("null", 1), ProgramFilter("null", 1)):
        for result, true in zip(tool.run(clean), clean.clean(), strict=True):
            assert np.abs(result.astype(int) - true).max() <= 2


@needs_ffmpeg
def test_a_program_is_not_left_running_when_its_frames_are_no_longer_wanted(noisy: Footage) -> None:
    frames = ProgramFilter("hqdn3d=4", 1).run(noisy)
    next(frames)
    frames.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [LibraryFilter, pytest.param(ProgramFilter, marks=needs_ffmpeg)])
def test_a_setting_that_a_filter_refuses_is_an_error_in_a_line(
    make: type[LibraryFilter | ProgramFilter], noisy: Footage
) -> None:
    with pytest.raises(MEASNetError, match=r"the filter nlmeans=s=-7 failed: [^\n]+$"):
        list(make("nlmeans=s=-7", 1).run(noisy))


def test_frames_that_cannot_be_read_are_said_through_a_filter_too(noisy: Footage, tmp_path: Path) -> None:
    (tmp_path / "x" / "002.png").write_bytes(b"")
    broken = Footage(noisy.place, parse_chain("sensor:3"), seed=0, limit=None, folder=tmp_path)
    tools = [LibraryFilter("null", 1)] + ([ProgramFilter("null", 1)] if shutil.which("ffmpeg") else [])
    for tool in tools:
        with pytest.raises(InputError, match="a measure leaves none out"):
            list(tool.run(broken))


def test_tools_for_pictures_take_frame_by_frame(noisy: Footage) -> None:
    tool = FrameByFrame(TOOLS["lowlight"][0])
    assert len(list(tool.run(noisy))) == 5 and tool.taken.cores > 0


class Notes(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def run_grid(grid: Grid, tmp_path: Path, task: str = "denoise") -> tuple[VideoFigures, list[str]]:
    places = tuple(
        SequenceFiles(f"{step}", write_folder(tmp_path / f"{step}", moving(3, step=step, height=64)))
        for step in (0, 2)
    )
    (tmp_path / "made").mkdir()
    options = VideoOptions(places, parse_chain("sensor:15,h264:22"), task=task, classical=True)
    notes = Notes()
    return measure_video(options, {}, tmp_path / "made", notes, grid), notes.lines


def test_a_filter_is_credited_with_the_setting_that_gains_most_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid: Grid = {"nlmeans": ("nlmeans=s=1.1", "nlmeans=s=6:p=5:r=5", "nlmeans=s=30")}
    figures, notes = run_grid(grid, tmp_path)
    tried = figures.trials["nlmeans"]
    best = max(tried, key=lambda trial: trial.gain_db)
    assert [trial.setting for trial in tried] == list(grid["nlmeans"])
    assert figures.methods == [DEGRADED, best.setting]
    assert figures.gain(best.setting) == pytest.approx(best.gain_db)
    assert notes == []


def test_a_filter_that_cannot_be_had_is_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    grid: dict[str, tuple[str, ...]] = {
        "magic": ("magic=3",),
        "nlmeans": ("nlmeans=s=-7",),
        "atadenoise": ("atadenoise",),
    }
    figures, notes = run_grid(grid, tmp_path)
    assert figures.methods == [DEGRADED, "atadenoise"]
    assert "magic is left out: PyAV has no such filter" in notes[0]
    assert "nlmeans is left out: the filter nlmeans=s=-7 failed" in notes[1]


def test_other_tasks_have_the_tools_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, _ = run_grid({}, tmp_path, task="lowlight")
    assert figures.methods[1:] == [tool.name for tool in TOOLS["lowlight"]]
