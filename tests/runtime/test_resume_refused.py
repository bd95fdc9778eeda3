"""A run goes on only as it began: with the same input, options and model, and alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from measnet.errors import GraphError
from measnet.image import Pixels
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.sinks.part_folder import Header, Manifest, PartFolder
from measnet.runtime.sinks.segment import LARGEST_STATE
from measnet.runtime.sources.video import VideoFile

from .conftest import (
    ffmpeg,
)
from .identity import IdentityRestorer
from .resuming import (
    FRAMES,
    LENGTH,
    OPTIONS,
    WHOLE,
    FailingRestorer,
    Run,
    Steerable,
    frame_sums,
    joining_fails,
    names,
    once,
    part,
    result,
    resumed_at,
    short_segments,
    source,
    video,
    whole,
)

__all__ = ["once", "part", "short_segments", "source", "video", "whole"]


def test_a_changed_input_is_refused(measnet_run: Run, video: Path, part: Path) -> None:
    before = names(part)
    ffmpeg("-i", video, "-c", "copy", "-metadata", "title=other", video.with_name("other.mp4"))
    video.with_name("other.mp4").replace(video)
    answer = measnet_run(video, *OPTIONS)
    assert answer.status == 2
    assert "input's SHA-256" in answer.err and "--restart" in answer.err
    assert names(part) == before and not result(video).exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--crf", "30"], "--crf: 18, now 30"),
        (["--codec", "hevc"], "encoder: libx264, now libx265"),
        (["--strength", "0.5"], "--strength: 1.0, now 0.5"),
        (["--frames", "70"], "--frames: none, now 70"),
        (["--preset", "fast"], "--preset: veryfast, now fast"),
        (["--codec", "hevc", "--bits", "10"], "--bits: 8, now 10"),
        (["--start", "1.5"], "--start: none, now 1.5"),
        (["--duration", "2"], "--duration: none, now 2.0"),
        (["--interlaced", "keep"], "--interlaced: deinterlace, now keep"),
        (["--on-fault", "stop"], "--on-fault: fallback, now stop"),
    ],
)
def test_another_option_is_refused_by_its_name(
    measnet_run: Run, video: Path, part: Path, options: list[str], named: str
) -> None:
    for also in ([], ["--dry-run"]):
        answer = measnet_run(video, *OPTIONS, *options, *also)
        assert answer.status == 2
        assert named in " ".join(answer.err.split())
    assert Manifest(part / "manifest.jsonl").parts


def test_of_every_option_it_is_known_whether_it_changes_the_result(part: Path) -> None:
    from measnet.runtime.cli import main

    header = Manifest(part / "manifest.jsonl").header
    assert header is not None
    noticed = {word.removeprefix("--").replace("-", "_") for word in header.made_of if word.startswith("--")}
    noticed |= {"inputs", "model", "backend", "codec"}  # by what they are, not by what they are called
    elsewhere = {
        "out",
        "parts",
        "raw_out",
        "compare",
        "preview",
        "report",
        "verify",
        "verify_share",
        "quiet",
        "debug",
    }
    not_a_run = {"dry_run", "restart", "overwrite", "version", "help_all"}
    only_on_faults = {"checkpoint"}
    kept_otherwise = {"memory"}  # it decides about tiles, and these are stored themselves
    not_of_files = {"late", "max_latency", "ladder", "reconnect", "insecure"}
    beside = {"console", "metrics", "log", "ray"}
    options = {option.name for option in main.params}
    others = elsewhere | not_a_run | only_on_faults | kept_otherwise | not_of_files | beside
    assert options - noticed == others


def test_another_model_is_refused(measnet_run: Run, video: Path, part: Path) -> None:
    class Another(IdentityRestorer):
        description = IdentityRestorer.description | {"weights_sha256": "ab" * 32}

    answer = measnet_run(video, *OPTIONS, engine=Another)
    assert answer.status == 2 and "weights: 000000…000000, now ababab…ababab" in " ".join(answer.err.split())


def test_restart_begins_anew(measnet_run: Run, video: Path, part: Path, whole: list[str]) -> None:
    report = video.with_name("report.json")
    assert measnet_run(video, *OPTIONS, "--restart", "--report", report).status == 0
    assert resumed_at(report) == 0 and frame_sums(result(video)) == whole


def test_a_model_that_cannot_be_loaded_costs_nothing(measnet_run: Run, video: Path, part: Path) -> None:
    def fail() -> None:
        raise GraphError("no such model")

    before = names(part)
    assert measnet_run(video, *OPTIONS, engine=fail).status == 2
    assert names(part) == before


def test_a_dry_run_says_where_a_run_would_go_on(measnet_run: Run, video: Path, part: Path) -> None:
    before = names(part)
    answer = measnet_run(video, *OPTIONS, "--dry-run")
    assert answer.status == 0, answer.err
    assert f"going on at frame {WHOLE}" in " ".join(answer.out.split())
    assert names(part) == before


def _header_rewritten(**settings: Any) -> Callable[[Path], None]:
    """The settings changed by somebody who seals the line again."""

    def rewrite(part: Path) -> None:
        manifest = Manifest(part / "manifest.jsonl")
        assert manifest.header is not None
        header, parts = manifest.header, list(manifest.parts)
        manifest.begin(Header(header.made_of, header.settings | settings))
        for line in parts:
            manifest.add(line)

    return rewrite


def _state_of_another(part: Path) -> None:
    """The engine's state behind the last segment, of the same length, in a file that is sealed again."""
    manifest = Manifest(part / "manifest.jsonl")
    line, place = dict(manifest.parts[1]), part / "segment-00001"
    data = bytearray(place.read_bytes())
    data[line["table"] - line["state"] : line["table"]] = bytes(line["state"])
    place.write_bytes(data)
    line["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.keep(1)
    manifest.add(line)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_header_rewritten(encoder_threads=-1), "settings that the result was begun with are damaged"),
        (_header_rewritten(encoder_threads="many"), "settings that the result was begun with are damaged"),
        (_header_rewritten(tiles=[[0, 0, 1, 1]]), "was begun of"),
        (_header_rewritten(tiles=None), "was begun of"),
        (_state_of_another, f"cannot go on at frame {WHOLE}"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(
    measnet_run: Run, video: Path, part: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(part)
    rehearsed, run = (measnet_run(video, *OPTIONS, *more) for more in (["--dry-run"], []))
    assert run.status == 2 and said in run.err and "--restart" in run.err, run.err
    assert (rehearsed.status, rehearsed.err) == (run.status, run.err)
    anew = measnet_run(video, *OPTIONS, "--dry-run", "--restart")
    assert anew.status == 0 and "going on" not in anew.out


def test_a_second_run_of_the_same_result_is_refused(measnet_run: Run, video: Path, part: Path) -> None:
    first = PartFolder(result(video))
    header = Manifest(part / "manifest.jsonl").header
    assert header is not None
    first.begin(header, restart=False)
    for also in ([], ["--dry-run"], ["--dry-run", "--restart"]):
        answer = measnet_run(video, *OPTIONS, *also)
        assert answer.status == 2 and "another measnet-run is writing" in " ".join(answer.err.split())
    first.release()
    assert measnet_run(video, *OPTIONS).status == 0


def test_a_source_that_has_more_frames_than_before_is_not_said_to_go_on(
    measnet_run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining_fails(monkeypatch, measnet_run, video)
    skip = VideoFile.skip
    monkeypatch.setattr(VideoFile, "skip", lambda self, frames, names: skip(self, frames - 1))
    answer = measnet_run(video, *OPTIONS)
    assert answer.status == 2 and answer.err.strip().endswith("add --restart to begin anew"), answer.err


def test_going_on_is_promised_without_restart_alone(measnet_run: Run, video: Path, part: Path) -> None:
    rehearsed = measnet_run(video, *OPTIONS, "--restart", "--dry-run")
    assert rehearsed.status == 0 and "going on" not in rehearsed.out
    failed = measnet_run(video, *OPTIONS, "--restart", engine=FailingRestorer)
    assert failed.status == 1
    assert f"the same command without --restart then goes on at frame {WHOLE}" in failed.err


def test_going_on_is_not_promised_where_the_input_has_changed(measnet_run: Run, video: Path) -> None:
    class Growing(FailingRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            if self.frames == FRAMES + 9:
                video.write_bytes(video.read_bytes() + bytes(8))
            return super().restore(pixels)

    failed = measnet_run(video, *OPTIONS, engine=Growing)
    assert failed.status == 1 and "goes on" not in failed.err
    assert "add --restart" in measnet_run(video, *OPTIONS).err


def test_more_than_can_be_kept_is_said(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, *OPTIONS, engine=partial(Steerable, LENGTH, LARGEST_STATE // 4))
    assert answer.status == 1 and f"of which {LARGEST_STATE} can be kept" in " ".join(answer.err.split())
