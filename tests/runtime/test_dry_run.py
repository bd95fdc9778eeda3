"""``measnet-run --dry-run`` says what a run would do, and refuses what it would refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from measnet.image import Pixels
from measnet.runtime.job import Job
from measnet.runtime.options import RunOptions
from measnet.runtime.restorer import RestoredFrame

from .conftest import Answer, MakeClip, ffmpeg, probe
from .identity import IdentityRestorer

Run = Callable[..., Answer]


def test_a_dry_run_tells_and_writes_nothing(measnet_run: Run, video: Path) -> None:
    report = video.parent / "plan.json"
    answer = measnet_run(video, "--dry-run", "--report", report)
    assert answer.status == 0, answer.err
    line = " ".join(answer.out.split())
    assert re.search(r"clip\.restored\.mp4: 20 frames of 96x64, about \d+ s at .* nothing was written", line)
    assert sorted(path.name for path in video.parent.iterdir()) == ["clip.mp4", "plan.json"]
    (planned,) = json.loads(report.read_text())["runs"]
    assert planned["status"] == "planned" and planned["fps"] > 0 and planned["frames"] == 0
    assert planned["seconds"]["expected"] == pytest.approx(20 / planned["fps"], abs=0.1)


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_what_a_dry_run_says_is_what_happens(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    upright = clip("plain.mov", "-c:v", "libx265", "-pix_fmt", "yuv422p10le", "-c:a", "mp2")
    source, target = tmp_path / "turned.mov", tmp_path / f"result{ending}"
    ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", source)
    arguments = [
        source,
        "-o",
        target,
        "--frames",
        "9",
        "--preset",
        "ultrafast",
        "--report",
        tmp_path / "r.json",
    ]
    words = measnet_run(*arguments, "--dry-run")
    (said,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert words.status == 0 and f"{target}: 9 frames" in words.out.replace("\n", "")
    done = measnet_run(*arguments)
    (run,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert done.status == 0, done.err
    for key in ("output", "expected_frames", "engine", "encoding", "largest_tile_count"):
        assert said[key] == run[key], key
    assert set(said["warnings"]) <= set(run["warnings"])
    assert len(said["warnings"]) == (1 if ending == ".avi" else 0)  # how it is turned
    result, encoding = probe(target), said["encoding"]
    codec = {"libx264": "h264", "libx265": "hevc"}[encoding["encoder"]]
    assert len(result.times) == 9 and result.video["codec_name"] == codec
    for key, theirs in (("pixel_format", "pix_fmt"), ("width", "width"), ("height", "height")):
        assert encoding[key] == result.video[theirs] and str(encoding[key]) in words.out
    assert f"{encoding['bits']} bits" in words.out and "with it: sound" in words.out
    for warning in said["warnings"]:
        assert warning.split(":")[0] in words.err.replace("\n", "")


def test_dry_runs_of_several_inputs_are_added_up(measnet_run: Run, video: Path) -> None:
    shutil.copy(video, video.with_name("again.mp4"))
    answer = measnet_run(
        video, video.with_name("again.mp4"), "--dry-run", "--frames", "1000", "--verify", "5"
    )
    assert answer.status == 0, answer.err
    assert answer.out.count("20 frames of 96x64") == 2 and "one frame in 5 is checked" in answer.out
    assert re.search(r"^2 inputs: about \d+ s in all$", answer.out, re.MULTILINE)
    alone = measnet_run(video, "absent.mp4", "--dry-run")
    assert alone.status == 2 and re.search(r"^1 input: about \d+ s in all$", alone.out, re.MULTILINE)
    assert "in all" not in measnet_run("no.mp4", "absent.mp4", "--dry-run").out


def test_a_dry_run_of_a_slow_engine_tries_two_frames(video: Path) -> None:
    frames: list[Pixels] = []

    class Counted(IdentityRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            frames.append(pixels)
            return super().restore(pixels)

    slow: Any = Counted()
    Job(str(video), RunOptions()).rehearse(slow, seconds=0.0)
    assert len(frames) == 2


def test_a_dry_run_finds_what_a_run_would_stumble_over(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, "--dry-run", "-o", video.parent / "absent" / "out.mp4")
    assert answer.status == 2 and "does not exist" in answer.err


@pytest.mark.parametrize("kind", ["video", "picture", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_that_is_there_does_not_keep_a_dry_run_from_telling(
    measnet_run: Run, video: Path, kind: str, overwrite: bool
) -> None:
    picture = video.parent / "shots" / "one.png"
    picture.parent.mkdir()
    ffmpeg("-i", video, "-frames:v", "1", picture)
    source = {"video": video, "picture": picture, "folder": picture.parent}[kind]
    assert measnet_run(source, "--preset", "ultrafast").status == 0
    result = source.with_name(
        {"video": "clip.restored.mp4", "picture": "one.restored.png", "folder": "shots.restored"}[kind]
    )
    before = {path: path.stat().st_mtime_ns for path in sorted(video.parent.rglob("*"))}
    answer = measnet_run(source, "--dry-run", *(["--overwrite"] if overwrite else []))
    assert answer.status == 0, answer.err
    said = " ".join((answer.out + answer.err).split())
    assert "nothing was written" in said
    assert (f"{result.name} exists already; add --overwrite or choose another --out" in said) != overwrite
    assert {path: path.stat().st_mtime_ns for path in sorted(video.parent.rglob("*"))} == before
    assert (measnet_run(source).status == 2) or kind == "folder"
