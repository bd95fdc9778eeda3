"""Remains of a run that was cut off: damaged, or on a full disk, they are found out and made again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from measnet.runtime.frame import Frame, Mark, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.part_folder import Header, Manifest, differences
from measnet.runtime.sinks.segmented import SegmentedVideoSink
from measnet.runtime.tiles import Tile, tiles_from

from .conftest import (
    MakeClip,
    probe,
    still,
)
from .resuming import (
    FRAMES,
    LENGTH,
    OPTIONS,
    WHOLE,
    Run,
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
    begun = shutil.copytree(joining_fails(monkeypatch, measnet_run, video), tmp_path / "begun")
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
