"""A run that was cut off, at whatever moment, goes on and ends as if it had not been."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from measnet.decisions import Vector
from measnet.errors import BackendError, GraphError, UsageError
from measnet.onnx_file import read_metadata
from measnet.runtime.frame import Frame, Mark, Pixels, StreamInfo
from measnet.runtime.options import Encoding, Reading
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.side_data import read_hdr
from measnet.runtime.sinks.containers import CONTAINERS
from measnet.runtime.sinks.encoder import PictureEncoding, decoding_times
from measnet.runtime.sinks.part_folder import Header, Manifest, PartFolder, differences
from measnet.runtime.sinks.segment import LARGEST_STATE
from measnet.runtime.sinks.segmented import SegmentedVideoSink
from measnet.runtime.sources.video import VideoFile
from measnet.runtime.tiles import Tile, tiles_from
from measnet.weights import bundled

from .conftest import (
    IDENTITY_COMMAND,
    Answer,
    MakeClip,
    ffmpeg,
    probe,
    restore_unchanged,
    run_here,
    still,
)
from .identity import IdentityRestorer, given_back

Run = Callable[..., Answer]

FRAMES = 32
"""Frames of a segment in these tests: as many as elsewhere would only take longer."""

WHOLE = 2 * FRAMES
LENGTH = WHOLE + 9  # two whole segments and a shorter one
FAILS = WHOLE + 5
UNEVEN = "setpts=(floor(N/3)*6+gte(mod(N\\,3)\\,1)+3*gte(mod(N\\,3)\\,2))/25/TB"
# A preset with B-frames, and the one whose choices differed from run to run with AVX-512.
OPTIONS = ["--preset", "veryfast"]


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("measnet.runtime.sinks.segmented.FRAMES", FRAMES)
        patch.setattr(SegmentedVideoSink, "segment_frames", FRAMES)
        yield


@pytest.fixture(scope="module")
def source(clip: MakeClip) -> Path:
    """Frames after 40, 120 and 80 ms in turn, with sound."""
    return clip(
        "uneven.mp4",
        *["-vf", UNEVEN, "-fps_mode", "vfr", "-video_track_timescale", "90000"],
        size="64x48",
        seconds=LENGTH / 25,
    )


@pytest.fixture
def video(source: Path, tmp_path: Path) -> Path:
    shutil.copy(source, tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


def frame_sums(path: Path) -> list[str]:
    """Times, lengths, sizes and sums of picture and sound, by ``ffmpeg -f framemd5``."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v", "-map", "0:a?", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("#software")]


class FailingRestorer(IdentityRestorer):
    """Gives up at frame ``last``."""

    def __init__(self, last: int = FAILS) -> None:
        self.last = last
        self.frames = 0

    def restore(self, pixels: Pixels) -> RestoredFrame:
        self.frames += 1
        if self.frames > self.last:
            raise BackendError("the engine gave up")
        return super().restore(pixels)


@pytest.fixture(scope="module")
def once(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The sums of an uninterrupted result, and the folder of a run whose engine failed."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copy(source, folder / "clip.mp4")
    failed = run_here(folder / "clip.mp4", *OPTIONS, engine=FailingRestorer)
    assert failed.status == 1
    message = " ".join(failed.err.split())
    assert f"frame {FAILS} came back wrong from identity fp32: the engine gave up" in message
    assert message.endswith(f"the same command then goes on at frame {WHOLE}")
    whole = folder / "whole.mp4"
    assert run_here(folder / "clip.mp4", "-o", whole, *OPTIONS).status == 0
    return frame_sums(whole), folder / "clip.restored.mp4.part"


@pytest.fixture
def whole(once: tuple[list[str], Path]) -> list[str]:
    return once[0]


@pytest.fixture
def part(once: tuple[list[str], Path], video: Path) -> Path:
    """The folder of a run that failed, beside ``video``."""
    part = video.with_name("clip.restored.mp4.part")
    shutil.copytree(once[1], part)
    return part


def result(video: Path) -> Path:
    return video.with_name("clip.restored.mp4")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def resumed_at(report: Path) -> int:
    (run,) = json.loads(report.read_text())["runs"]
    assert run["frames"] == LENGTH and run["status"] == "complete"
    return int(run["resumed_at"])


NEVER = 10**9


def _sent(number: signal.Signals, moment: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """A program of ours to which a signal was sent at its ``moment``-th step that makes something last."""
    script = Path(__file__).parent / "killed_run.py"
    words = [sys.executable, script, number.value, moment, FRAMES, *command]
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)


# Counted: the header's line; of every segment its file, its name, the same of the frames before, its folder's
# names, its line; the joined file, its name.
@pytest.mark.parametrize(("moment", "done"), [(3, 0), (5, 0), (6, 0), (7, FRAMES), (9, FRAMES), (21, LENGTH)])
def test_killed_at_any_step_it_goes_on_to_the_same_result(
    measnet_run: Run, video: Path, whole: list[str], moment: int, done: int
) -> None:
    killed = _sent(signal.SIGKILL, moment, IDENTITY_COMMAND[1], "0", video, *OPTIONS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not result(video).exists()
    report = video.with_name("report.json")
    answer = measnet_run(video, *OPTIONS, "--report", report)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == done
    assert (f"going on at frame {done} of {LENGTH}" in " ".join(answer.err.split())) == (done > 0)
    assert frame_sums(result(video)) == whole
    picture = ["report.svg"] if done < LENGTH else []  # nobody restored anything in this run
    assert names(video.parent) == ["clip.mp4", "clip.restored.mp4", "report.json", *picture]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_goes_on_to_the_same_result(
    measnet_run: Run, video: Path, whole: list[str], number: signal.Signals
) -> None:
    part, partial = (video.with_name(f"clip.restored.{rest}") for rest in ("mp4.part", "partial.mp4"))
    stopped = _sent(number, 7, IDENTITY_COMMAND[1], "0.02", video, *OPTIONS)
    assert stopped.returncode == 130, stopped.stderr
    assert f"the same command goes on at frame {FRAMES}" in " ".join(stopped.stdout.split())
    assert names(part) == ["lock", "manifest.jsonl", "past-00000", "segment-00000"]
    assert probe(partial).times == probe(video).times[: len(probe(partial).times)]
    answer = measnet_run(video, *OPTIONS)
    assert answer.status == 0, answer.err
    assert frame_sums(result(video)) == whole


def test_the_program_with_the_real_network_is_killed_and_goes_on_to_the_same_result(tmp_path: Path) -> None:
    length, source = FRAMES + 9, tmp_path / "clip.mp4"
    sample = Path(__file__).parents[2] / "examples" / "car-park.mp4"
    ffmpeg(
        *["-stream_loop", "-1", "-i", sample, "-vf", "crop=128:96,setpts=(N+mod(N\\,3)/2)/12.5/TB"],
        *["-frames:v", str(length), "-fps_mode", "vfr", "-c:a", "copy", "-shortest", source],
    )
    once, again, report = (tmp_path / name for name in ("once.mp4", "again.mp4", "report.json"))
    program = str(Path(sys.executable).with_name("measnet-run"))
    options = ["--threads", "1", "--preset", "veryfast"]
    assert _sent(signal.SIGKILL, NEVER, program, source, "-o", once, *options).returncode == 0
    killed = _sent(signal.SIGKILL, 8, program, source, "-o", again, *options)
    assert killed.returncode == -signal.SIGKILL and not again.exists(), killed.stderr
    on = _sent(signal.SIGKILL, NEVER, program, source, "-o", again, *options, "--report", report)
    assert on.returncode == 0, on.stderr
    assert f"going on at frame {FRAMES} of {length}" in " ".join(on.stderr.split())
    (run,) = json.loads(report.read_text())["runs"]
    assert run["resumed_at"] == FRAMES and run["frames"] == length
    assert run["engine"]["backend"] == "onnxruntime" and run["engine"]["weights_sha256"]
    assert frame_sums(again) == frame_sums(once)


def test_a_run_that_goes_on_reports_where_and_tells_of_the_frames_it_restored_itself(
    measnet_run: Run, video: Path, part: Path
) -> None:
    report = video.with_name("report.json")
    assert measnet_run(video, *OPTIONS, "--report", report).status == 0
    (run,) = json.loads(report.read_text())["runs"]
    assert (run["resumed_at"], run["frames"]) == (WHOLE, LENGTH)
    experts, times = run["experts"], probe(video).times
    assert (experts["first_frame"], experts["frames"]) == (WHOLE, LENGTH - WHOLE)
    assert experts["unit"] == "seconds"
    bins = experts["over_time"]["bins"]
    assert len(bins) == LENGTH - WHOLE and bins[0]["from"] == pytest.approx(float(times[WHOLE]), abs=1e-4)
    assert "flicker" in bins[0] and bins[0]["flicker"] is None  # the frame before it was another run's
    assert experts["flicker_pairs"] == LENGTH - WHOLE - 1


def test_a_folder_that_goes_on_reports_where_and_tells_of_the_pictures_it_restored_itself(
    measnet_run: Run, tmp_path: Path
) -> None:
    shots, report = tmp_path / "shots", tmp_path / "report.json"
    shots.mkdir()
    for number in range(5):
        cv2.imwrite(str(shots / f"{number}.png"), np.full((16, 16, 3), 40 * number, np.uint8))
    killed = _sent(signal.SIGKILL, 8, IDENTITY_COMMAND[1], "0", shots)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert measnet_run(shots, "--report", report).status == 0
    (run,) = json.loads(report.read_text())["runs"]
    done = run["resumed_at"]
    assert 0 < done < 5 and run["frames"] == 5
    experts = run["experts"]
    assert (experts["first_frame"], experts["frames"], experts["unit"]) == (done, 5 - done, "frames")
    bins = experts["over_time"]["bins"]
    assert (bins[0]["from"], bins[-1]["to"]) == (done, 5)


def test_matroska_goes_on_to_the_same_result_too(measnet_run: Run, video: Path) -> None:
    whole, target = video.with_name("whole.mkv"), video.with_name("out.mkv")
    assert measnet_run(video, *OPTIONS, "-o", whole).status == 0
    assert measnet_run(video, *OPTIONS, "-o", target, engine=FailingRestorer).status == 1
    assert measnet_run(video, *OPTIONS, "-o", target).status == 0
    assert frame_sums(target) == frame_sums(whole)


def _last_line_torn(part: Path) -> None:
    manifest = part / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-9])


def _zeros_behind_the_lines(part: Path) -> None:
    with (part / "manifest.jsonl").open("ab") as file:
        file.write(bytes(4096))


def _a_pipe_for_the_manifest(part: Path) -> None:
    (part / "manifest.jsonl").unlink()
    os.mkfifo(part / "manifest.jsonl")


def _number_changed(part: Path) -> None:
    manifest = part / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(f'"frames": {FRAMES}', f'"frames": {FRAMES - 1}')
    manifest.write_text("".join(lines))


def _rewritten(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """The second segment's line changed by somebody who seals it again."""

    def rewrite(part: Path) -> None:
        manifest = Manifest(part / "manifest.jsonl")
        line = dict(manifest.parts[1])
        change(line)
        manifest.keep(1)
        manifest.add(line)

    return rewrite


def _byte_changed(part: Path) -> None:
    data = bytearray((part / "segment-00001").read_bytes())
    data[len(data) // 3] ^= 1
    (part / "segment-00001").write_bytes(data)


def _linked_away(part: Path) -> None:
    outside = part.with_name("outside")
    (part / "segment-00001").rename(outside)
    (part / "segment-00001").symlink_to(outside)


@pytest.mark.parametrize(
    ("damage", "done"),
    [
        (_last_line_torn, FRAMES),
        (_zeros_behind_the_lines, WHOLE),
        (_byte_changed, FRAMES),
        (_linked_away, FRAMES),
        (lambda part: (part / "segment-00000").unlink(), 0),
        (lambda part: os.truncate(part / "manifest.jsonl", 20), 0),
        (_rewritten(lambda line: line.update(frames=10**9)), FRAMES),
    ],
)
def test_what_is_damaged_is_made_again(
    measnet_run: Run,
    video: Path,
    part: Path,
    whole: list[str],
    damage: Callable[[Path], None],
    done: int,
) -> None:
    damage(part)
    report = video.with_name("report.json")
    answer = measnet_run(video, *OPTIONS, "--report", report)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == done
    assert "damaged or missing" in " ".join(answer.err.split())
    assert frame_sums(result(video)) == whole
    assert not part.exists()


@pytest.mark.parametrize(
    ("damage", "sound"),
    [
        (_number_changed, 1),
        (lambda part: (part / "segment-00001").unlink(), 1),
        (lambda part: os.truncate(part / "segment-00001", 100), 1),
        (lambda part: (part / "manifest.jsonl").write_bytes(b"[" * 100_000), 0),
        (_a_pipe_for_the_manifest, 0),
        (lambda part: (part / "manifest.jsonl").write_bytes(os.urandom(3000)), 0),
        (_rewritten(lambda line: line.update(frames=True)), 1),
        (_rewritten(lambda line: line.update(bytes="../../etc/passwd")), 1),
        (_rewritten(lambda line: line.update(table=-1)), 1),
        (_rewritten(lambda line: line.update(last=10**30)), 1),
        (_rewritten(lambda line: line.pop("sha256")), 1),
        (_rewritten(lambda line: line.update(state=5)), 1),
        (_rewritten(lambda line: line.update(state=-1)), 1),
        (_rewritten(lambda line: line.update(state=10**9)), 1),
    ],
)
def test_damage_is_found(part: Path, damage: Callable[[Path], None], sound: int) -> None:
    damage(part)
    manifest = Manifest(part / "manifest.jsonl")
    header = manifest.header or Header({}, {})
    info = StreamInfo("x", "video", 64, 48, Fraction(1, 90000), Fraction(25))
    sink = SegmentedVideoSink(part.with_name("clip.restored.mp4"), info, Path("x"), lambda: iter(()))
    assert sink.begun_before(header, restart=False).frames == sound * FRAMES


def test_a_manifest_may_be_nested_as_deep_as_it_likes(tmp_path: Path) -> None:
    place = tmp_path / "manifest.jsonl"
    for nested in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()):
        place.write_bytes(b'{"format":1,"made_of":{"x":' + b"[" * nested + b"]" * nested + b'},"seal":"0"}\n')
        assert Manifest(place).header is None


def test_a_manifest_of_others_does_not_speak_to_the_terminal(tmp_path: Path) -> None:
    said = differences({"a\x1b]0;b": "\x1b[2J\ud800", "n": _nested(900)}, {})
    assert said.isprintable() and r"\x1b[2J\ud800" in said and r"\x1b]0;b" in said


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_manifest_without_an_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "manifest.jsonl"
    begun = Manifest(place)
    begun.begin(Header({}, {}))
    for _ in range(40):
        begun.add({"frames": FRAMES})
    monkeypatch.setattr("measnet.runtime.sinks.part_folder._MOST_BYTES", 2000)
    read = Manifest(place)
    assert read.torn and 0 < len(read.parts) < 40


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
        (_state_of_another, "cannot go on at frame 64"),
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


def test_a_link_in_the_folders_place_is_not_followed(measnet_run: Run, video: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    video.with_name("clip.restored.mp4.part").symlink_to(elsewhere)
    assert measnet_run(video, *OPTIONS, "--restart").status == 0
    assert names(elsewhere) == ["precious"]


@contextlib.contextmanager
def full_disk(folder: Path, *files: Path) -> Iterator[None]:
    """Has ``folder`` be a disk with room for files of the sizes of these, and no more."""
    pages = sum(-(-file.stat().st_size // 4096) for file in files)
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small disk to fill cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("done", [WHOLE, LENGTH])
def test_a_full_disk_keeps_what_is_finished(
    clip: MakeClip,
    measnet_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    done: int,
) -> None:
    noise = clip("noise.mp4", "-vf", "noise=alls=90:allf=t", size="64x48", seconds=LENGTH / 25)
    video = Path(shutil.copy(noise, tmp_path / "clip.mp4"))
    begun = shutil.copytree(_joining_fails(monkeypatch, measnet_run, video), tmp_path / "begun")
    parts = [*Path(begun).iterdir()]
    assert measnet_run(video, *OPTIONS).status == 0
    whole = frame_sums(result(video))
    if done == WHOLE:
        parts = [part for part in parts if not part.name.endswith("2")]
    # A past that is not needed any more lies there until the next is written.
    parts.append(Path(begun) / "past-00001")
    disk = tmp_path / "disk"
    with full_disk(disk, *parts):
        answer = measnet_run(video, *OPTIONS, "-o", disk / "out.mp4")
        line = " ".join(answer.err.split())
        assert answer.status == 1
        assert "no space left" in line.lower() and f"the same command then goes on at frame {done}" in line
        assert names(disk) == ["out.mp4.part"]
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        answer = measnet_run(video, *OPTIONS, "-o", disk / "out.mp4")
        assert answer.status == 0 and f"going on at frame {done}" in " ".join(answer.err.split())
        assert frame_sums(disk / "out.mp4") == whole
        assert names(disk) == ["out.mp4"]


def test_frames_that_cannot_be_placed_may_fill_a_segment(tmp_path: Path) -> None:
    info = StreamInfo("x", "video", 16, 16, Fraction(1, 25), Fraction(25))
    sink = SegmentedVideoSink(
        tmp_path / "out.mp4", info, Path("x"), lambda: iter(()), Encoding(preset="ultrafast")
    )
    sink.begin(Header({}, {"encoder_threads": 1}), restart=False)
    for place, number in enumerate((*range(FRAMES), *[5] * FRAMES, FRAMES), start=1):
        sink.write(Frame(still(info), number, Fraction(1, 25)))
        if place % FRAMES == 0:
            sink.end_segment(Mark())
    sink.finish()
    assert sink.skipped == FRAMES
    assert len(probe(tmp_path / "out.mp4").times) == FRAMES + 1


def test_sound_ends_with_the_last_frame_asked_for(measnet_run: Run, video: Path) -> None:
    assert measnet_run(video, *OPTIONS, "--frames", "30").status == 0
    found = probe(result(video))
    assert len(found.times) == 30
    sound = [stream for stream in found.copied if stream[0] == "audio"]
    assert 0 < len(sound) < len(probe(video).copied)


@pytest.mark.parametrize(
    ("shown", "reordering"),
    [
        ([0, 2, 1, 4, 3], 1),
        ([0, 40, 10, 20, 900, 50, 60], 0),
        ([5], 2),
        ([0, 1, 2], 2),
        ([-90, 300, -60, -10], 1),
    ],
)
def test_decoding_times_rise_and_come_before_the_picture_is_shown(shown: list[int], reordering: int) -> None:
    decoded = decoding_times(shown, reordering)
    assert all(before < after for before, after in itertools.pairwise(decoded))
    assert all(dts <= pts for dts, pts in zip(decoded, shown, strict=True))


@pytest.mark.parametrize(
    ("codec", "preset"),
    [("h264", "medium"), ("h264", "veryfast"), ("hevc", "ultrafast"), ("vp9", "8"), ("av1", "12")],
)
def test_encoders_make_the_same_of_the_same(codec: str, preset: str) -> None:
    info = StreamInfo("x", "video", 128, 96, Fraction(1, 25), Fraction(25))
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 160, (96, 128, 3), np.uint8)
    pictures = [np.roll(noise, (3 * n, 5 * n), (0, 1)) for n in range(24)]
    sums = set()
    for _ in range(4):
        try:
            encoding = PictureEncoding(
                Path("x.mkv"), CONTAINERS[".mkv"], info, Encoding(codec=codec, preset=preset)
            )
        except UsageError as error:
            pytest.skip(str(error))
        encoding.repeat_with(3)
        encoder = encoding.open_alone(0)
        digest = hashlib.sha256()
        for number, pixels in enumerate(pictures):
            for packet in encoder.encode(pixels.copy(), number, 1):
                digest.update(bytes(packet))
        for packet in encoder.flush():
            digest.update(bytes(packet))
        sums.add(digest.hexdigest())
    assert len(sums) == 1


INTERRUPTED_AT = FRAMES + 10


def _cut_off_and_gone_on(measnet_run: Run, source: Path, out: Path, *options: str) -> None:
    """``out`` of a run whose engine failed on the way, and of the same command again."""
    failed = measnet_run(source, "-o", out, *options, engine=partial(FailingRestorer, INTERRUPTED_AT))
    assert failed.status == 1 and f"goes on at frame {FRAMES}" in " ".join(failed.err.split()), failed.err
    answer = measnet_run(source, "-o", out, *options)
    assert answer.status == 0, answer.err
    assert f"going on at frame {FRAMES}" in " ".join(answer.err.split())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_piece_of_a_video_goes_on_with_its_own_sound_and_subtitles(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,300 --> 00:00:01,200\nacross\n\n2\n00:00:02,500 --> 00:00:03,200\nafter\n")
    arguments = ["-g", "16", "-c:v", "libx264", "-bf", "2", "-c:a", "aac", "-b:a", "16k"]
    plain = clip("long.mkv", *arguments, size="64x48", seconds=3.6)
    source = tmp_path / f"in.{'ts' if ending == 'ts' else 'mkv'}"
    if ending == "ts":
        ffmpeg("-i", plain, "-c", "copy", source)
    else:
        ffmpeg("-i", plain, "-i", words, "-c", "copy", "-c:s", "srt", source)
    options = ["--start", "0.78", "--duration", "2", *OPTIONS]
    once, again = tmp_path / f"once.{ending}", tmp_path / f"again.{ending}"
    assert measnet_run(source, "-o", once, *options).status == 0
    _cut_off_and_gone_on(measnet_run, source, again, *options)
    assert frame_sums(again) == frame_sums(once)
    assert probe(again).copied == probe(once).copied
    found, direct = probe(once), tmp_path / f"direct.{ending}"
    assert len(found.times) == 50
    outcome = restore_unchanged(
        source, direct, direct=True, reading=Reading(start=Fraction("0.78"), duration=Fraction(2))
    )
    assert outcome.figures.frames == 50
    assert found.copied and found.copied == probe(direct).copied


def test_ten_bits_and_hdr_are_the_same_in_every_segment(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    display = "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,1)"
    source = clip(
        "hdr.mkv",
        *[
            "-c:v",
            "libx265",
            "-pix_fmt",
            "yuv420p10le",
            "-color_primaries",
            "bt2020",
            "-colorspace",
            "bt2020nc",
        ],
        *[
            "-color_trc",
            "smpte2084",
            "-x265-params",
            f"log-level=error:hdr10=1:master-display={display}:max-cll=900,300",
        ],
        size="64x48",
        seconds=2.0,
    )
    for codec in ("h264", "hevc"):
        options = ["--codec", codec, "--preset", "ultrafast"]
        once, again = tmp_path / f"{codec}.mp4", tmp_path / f"{codec}.again.mp4"
        assert measnet_run(source, "-o", once, *options).status == 0
        _cut_off_and_gone_on(measnet_run, source, again, *options)
        assert frame_sums(again) == frame_sums(once)
        with av.open(str(again)) as container:
            frames = list(container.decode(video=0))
        keys = [frame for frame in frames if frame.key_frame]
        assert {frame.format.name for frame in frames} == {"yuv420p10le"} and len(keys) >= 2
        for frame in keys:
            assert read_hdr(frame) == read_hdr(keys[0]) and read_hdr(frame).display is not None


def test_a_deinterlaced_video_goes_on_to_the_same_result(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    source = clip(
        "fields.mp4",
        *["-vf", "tinterlace=interleave_top,fieldorder=tff", "-c:v", "libx264", "-x264-params", "tff=1"],
        *["-flags", "+ildct+ilme"],
        size="64x48",
        seconds=4.0,
    )
    once, again = tmp_path / "once.mp4", tmp_path / "again.mp4"
    first = measnet_run(source, "-o", once, *OPTIONS)
    assert first.status == 0 and "deinterlaced" in first.err
    _cut_off_and_gone_on(measnet_run, source, again, *OPTIONS)
    assert frame_sums(again) == frame_sums(once)


def test_standard_input_is_not_taken_for_a_file_of_that_name(
    monkeypatch: pytest.MonkeyPatch, clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "-").write_bytes(b"a file called -")
    script = Path(__file__).parent / "identity_run.py"
    source = clip("plain.ts")
    with source.open("rb") as file:
        done = subprocess.run(
            [sys.executable, str(script), "0", "-", "-o", "out.ts"],
            stdin=file,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert len(probe(tmp_path / "out.ts").times) == len(probe(source).times)
    assert probe(tmp_path / "out.ts").copied


def test_sixteen_bits_of_a_picture_stay_in_a_folder_that_goes_on(measnet_run: Run, shots: Path) -> None:
    rng = np.random.default_rng(3)
    for path in shots.iterdir():
        path.unlink()
    for number in range(12):
        ending = ("png", "tif")[number % 2]
        picture = rng.integers(0, 65536, (8, 9, 3), np.uint16)
        cv2.imwrite(str(shots / f"{number:02}.{ending}"), picture)
    _begin_folder(measnet_run, shots)
    assert measnet_run(shots).status == 0
    restored = shots.with_name("shots.restored")
    assert len(names(restored)) == 12
    for name in names(restored):
        was, now = (cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for folder in (shots, restored))
        assert now is not None and now.dtype == np.uint16 and np.array_equal(was, now)


def test_tiles_are_those_the_run_began_with(measnet_run: Run, video: Path) -> None:
    class Tiling(FailingRestorer):
        held: list[Tile] | None = None

        def __init__(self, free: int) -> None:
            super().__init__()
            self.free = free

        def tiles_for(self, height: int, width: int) -> list[Tile]:
            return [Tile(0, 0, height, self.free), Tile(0, self.free, height, width - self.free)]

        def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
            Tiling.held = tiles

    assert measnet_run(video, *OPTIONS, engine=partial(Tiling, 24)).status == 1
    assert measnet_run(video, *OPTIONS, engine=partial(Tiling, 30)).status == 0
    assert Tiling.held == [Tile(0, 0, 48, 24), Tile(0, 24, 48, 40)]


class Steerable(FailingRestorer):
    """Is steered by a number that jumps: held steady, every result depends on all frames before it."""

    steerable = True

    def __init__(self, last: int = FAILS, decisions_size: int = 1) -> None:
        super().__init__(last)
        self.decisions_size = decisions_size

    def settle(self, pixels: Pixels) -> tuple[Vector, float]:
        return np.full(self.decisions_size, pixels.sum(dtype=np.int64) % 256, np.float32), 1

    def steer(self, vector: Vector, share: float) -> tuple[Vector, float]:
        return vector, share

    def restore(self, pixels: Pixels, steering: Any = None) -> RestoredFrame:
        restored, (own, _), (before, share) = super().restore(pixels), self.settle(pixels), steering
        held = share * before + (1 - share) * own
        return replace(restored, pixels=restored.pixels // 2 + np.uint8(held[0] / 2), decisions=own)


def test_what_a_steady_video_remembers_goes_on_too(measnet_run: Run, video: Path) -> None:
    once, again = video.with_name("once.mp4"), video.with_name("again.mp4")
    whole, cut_off = partial(Steerable, LENGTH), partial(Steerable, FAILS)
    assert measnet_run(video, "-o", once, *OPTIONS, engine=whole).status == 0
    assert measnet_run(video, "-o", again, *OPTIONS, engine=cut_off).status == 1
    assert measnet_run(video, "-o", again, *OPTIONS, engine=whole).status == 0
    assert frame_sums(again) == frame_sums(once)


def _joining_fails(
    monkeypatch: pytest.MonkeyPatch, measnet_run: Run, video: Path, engine: Any = IdentityRestorer
) -> Path:
    """The folder of a run that failed when all was done but for joining it."""

    def fail(self: SegmentedVideoSink, target: Path, *, cut: bool) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr(SegmentedVideoSink, "_join", fail)
        answer = measnet_run(video, *OPTIONS, engine=engine)
    assert answer.status == 1 and answer.err.strip().endswith(f"then goes on at frame {LENGTH}"), answer.err
    return video.with_name("clip.restored.mp4.part")


def test_what_a_steady_video_remembers_is_known_behind_the_last_frame_too(
    measnet_run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = partial(Steerable, LENGTH)
    _joining_fails(monkeypatch, measnet_run, video, engine)
    answer = measnet_run(video, *OPTIONS, engine=engine)
    assert answer.status == 0 and f"going on at frame {LENGTH}" in answer.err, answer.err
    assert len(probe(result(video)).times) == LENGTH


def test_a_source_that_has_more_frames_than_before_is_not_said_to_go_on(
    measnet_run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _joining_fails(monkeypatch, measnet_run, video)
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


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_without_the_frames_before_it_goes_on_one_segment_earlier(
    measnet_run: Run, video: Path, whole: list[str], part: Path, damage: Callable[[Path], None]
) -> None:
    assert [name for name in names(part) if name.startswith("past")] == ["past-00000", "past-00001"]
    damage(part / "past-00001")
    report = video.with_name("report.json")
    answer = measnet_run(video, *OPTIONS, "--report", report)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == FRAMES
    assert "part 1 is damaged or missing" in " ".join(answer.err.split())
    assert frame_sums(result(video)) == whole


def test_more_than_can_be_kept_is_said(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, *OPTIONS, engine=partial(Steerable, LENGTH, LARGEST_STATE // 4))
    assert answer.status == 1 and f"of which {LARGEST_STATE} can be kept" in " ".join(answer.err.split())


def test_a_run_that_had_fallen_back_goes_on_with_the_engine_it_fell_back_to(
    measnet_run: Run, video: Path
) -> None:
    weights = read_metadata(bundled("nano", ".onnx"))["measnet.weights_sha256"]

    class Safe(FailingRestorer):
        description = IdentityRestorer.description | {"backend": "safe", "weights_sha256": weights}

        def restore(self, pixels: Pixels) -> RestoredFrame:
            return given_back(255 - super().restore(pixels).pixels)

    class Faulty(FailingRestorer):
        description = Safe.description | {"backend": "fast", "precision": "fp16"}

        def __init__(self, safe_fails: int) -> None:
            super().__init__()
            self.safe_fails = safe_fails

        def like(self, model: str, backend: str) -> Safe:
            assert (model, backend) == ("nano", "onnxruntime-cpu")
            return Safe(self.safe_fails)

        def restore(self, pixels: Pixels) -> RestoredFrame:
            if self.frames == 12:
                raise BackendError("out of memory")
            return super().restore(pixels)

    once, again, report = (video.with_name(name) for name in ("once.mp4", "again.mp4", "report.json"))
    whole, cut_off = partial(Faulty, LENGTH), partial(Faulty, FRAMES)
    assert measnet_run(video, "-o", once, *OPTIONS, engine=whole).status == 0
    assert measnet_run(video, "-o", again, *OPTIONS, engine=cut_off).status == 1
    answer = measnet_run(video, "-o", again, *OPTIONS, "--report", report, engine=whole)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == FRAMES and frame_sums(again) == frame_sums(once)
    assert "frame 12 came back wrong: out of memory; from there on safe" in " ".join(answer.err.split())


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        [[0, 0, 8]],
        [[0, 0, 8, True]],
        [[0, 0, 9, 8]],
        [[-1, 0, 9, 8]],
        [[0, 0, 8, 7]],
        [["0", 0, 8, 8]],
    ],
)
def test_tiles_that_do_not_fit_the_picture_are_refused(stored: object) -> None:
    assert tiles_from(stored, 8, 8) is None
    assert tiles_from([[0, 0, 8, 4], [0, 4, 8, 4]], 8, 8) == [Tile(0, 0, 8, 4), Tile(0, 4, 8, 4)]


@pytest.fixture
def shots(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shots"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:02}.png"), rng.integers(0, 256, (8, 9, 3), np.uint8))
    yield folder


def _begin_folder(measnet_run: Run, shots: Path) -> Path:
    """The engine fails at the tenth of the twelve pictures; at most five of the others are not written."""
    answer = measnet_run(shots, engine=partial(FailingRestorer, 9))
    pictures = shots.with_name("shots.restored.part") / "pictures"
    assert 4 <= len(names(pictures)) <= 9
    assert answer.status == 1
    assert f"goes on at frame {len(names(pictures))}" in " ".join(answer.err.split())
    return pictures


def _same_pictures(folder: Path, other: Path) -> None:
    assert names(folder) == names(other)
    for name in names(folder):
        assert np.array_equal(cv2.imread(str(folder / name)), cv2.imread(str(other / name)))


def test_a_folder_goes_on_with_the_pictures_that_are_missing(measnet_run: Run, shots: Path) -> None:
    pictures = _begin_folder(measnet_run, shots)
    done = len(names(pictures))
    engine = FailingRestorer(NEVER)
    answer = measnet_run(shots, engine=lambda: engine)
    assert answer.status == 0, answer.err
    assert engine.frames == 12 - done
    _same_pictures(shots.with_name("shots.restored"), shots)
    assert names(shots.parent) == ["shots", "shots.restored"]


def test_pictures_that_are_damaged_or_not_of_this_source_are_made_again(
    measnet_run: Run, shots: Path
) -> None:
    pictures = _begin_folder(measnet_run, shots)
    done = len(names(pictures))
    (pictures / "00.png").write_bytes(b"damaged")
    (pictures / "01.png").unlink()
    (pictures / "stranger.png").write_text("was not made by us")
    cv2.imwrite(str(shots / "02.png"), np.full((8, 9, 3), 7, np.uint8))
    engine = FailingRestorer(NEVER)
    answer = measnet_run(shots, engine=lambda: engine)
    assert answer.status == 0, answer.err
    assert "made again" in " ".join(answer.err.split())
    assert engine.frames == 12 - done + 3
    _same_pictures(shots.with_name("shots.restored"), shots)


def test_a_picture_taken_out_of_the_folder_is_not_in_the_result(measnet_run: Run, shots: Path) -> None:
    _begin_folder(measnet_run, shots)
    (shots / "03.png").unlink()
    assert measnet_run(shots).status == 0
    _same_pictures(shots.with_name("shots.restored"), shots)


def test_names_in_a_folders_manifest_lead_nowhere_else(measnet_run: Run, shots: Path) -> None:
    pictures = _begin_folder(measnet_run, shots)
    manifest = Manifest(pictures.parent / "manifest.jsonl")
    for name in ("../../shots/05.png", "..", "", "/etc/passwd", 7, None, "a\0b"):
        manifest.add({**manifest.parts[0], "name": name})
    assert measnet_run(shots).status == 0
    _same_pictures(shots.with_name("shots.restored"), shots)
