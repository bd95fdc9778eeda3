"""Interlaced frames are found by the decoder's marks and become whole pictures with their own times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from measnet.errors import InputError
from measnet.runtime.options import Interlaced, Reading
from measnet.runtime.sources.video import VideoFile

from .conftest import Answer, MakeClip, decode, ffmpeg, probe, restore_unchanged
from .test_excerpt import piece, shown

Run = Callable[..., Answer]

WOVEN = ["-vf", "tinterlace=interleave_top,fieldorder=tff", "-g", "12"]
KINDS = [
    ("fields.mpg", ["-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "1", "-c:a", "mp2"]),
    ("fields.ts", ["-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "1", "-bf", "2", "-c:a", "mp2"]),
    ("fields.mp4", ["-c:v", "libx264", "-x264-params", "tff=1", "-flags", "+ildct+ilme", "-crf", "1"]),
    ("fields.avi", ["-c:v", "mpeg4", "-flags", "+ildct+ilme", "-q:v", "1", "-c:a", "mp3"]),
    ("fields.mov", ["-c:v", "prores", "-flags", "+ildct+ilme", "-c:a", "pcm_s16le"]),
]


def read(how: Interlaced) -> Reading:
    return Reading(interlaced=how)


def combing(frames: np.ndarray) -> float:
    """How much neighbouring rows differ more than rows two apart."""
    grey = frames.astype(float).mean(-1)
    near = np.abs(grey[:, 1:-1] - grey[:, 2:]).mean()
    far = np.abs(grey[:, :-2] - grey[:, 2:]).mean()
    return float(near / far)


@pytest.mark.parametrize(("name", "arguments"), KINDS)
def test_every_frame_becomes_one_whole_picture_at_its_time(
    clip: MakeClip, tmp_path: Path, name: str, arguments: list[str]
) -> None:
    source = clip(name, *WOVEN, *arguments, size="160x96")
    with av.open(str(source)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    ending = "mkv" if name.endswith("mpg") else name.rpartition(".")[2]
    outcome = restore_unchanged(source, tmp_path / f"out.{ending}", crf=1)
    before, after = probe(source), probe(tmp_path / f"out.{ending}")
    assert [t - after.times[0] for t in after.times] == [
        pytest.approx(t - before.times[0], abs=0.0011) for t in before.times
    ]
    assert combing(decode(source)) > 1.2 * combing(decode(tmp_path / f"out.{ending}"))
    assert [line for line in outcome.warnings if "deinterlaced, one picture for each frame" in line]


def test_fields_can_be_kept(clip: MakeClip, tmp_path: Path) -> None:
    name, arguments = KINDS[2]
    source = clip(name, *WOVEN, *arguments, size="160x96")
    outcome = restore_unchanged(source, tmp_path / "out.mp4", crf=1, reading=read("keep"))
    assert combing(decode(tmp_path / "out.mp4")) == pytest.approx(combing(decode(source)), rel=0.05)
    assert any("no longer say" in line for line in outcome.warnings)


def test_fields_can_be_refused(clip: MakeClip, measnet_run: Run, tmp_path: Path) -> None:
    name, arguments = KINDS[2]
    source = clip(name, *WOVEN, *arguments, size="160x96")
    with pytest.raises(InputError, match="is interlaced"):
        VideoFile(source, read("refuse"))
    answer = measnet_run(source, "--interlaced", "refuse", "-o", tmp_path / "out.mp4")
    assert answer.status == 2 and "--interlaced deinterlace" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_whole_frames_are_left_alone_and_nothing_is_said(clip: MakeClip, tmp_path: Path) -> None:
    outcome = restore_unchanged(clip("plain.mp4"), tmp_path / "out.mp4", reading=read("refuse"))
    assert outcome.warnings == []


def test_a_header_that_lies_is_not_believed(clip: MakeClip, tmp_path: Path) -> None:
    source = tmp_path / "liar.mov"
    plain = clip("plain.mov", "-c:v", "prores", "-c:a", "pcm_s16le")
    ffmpeg("-i", plain, "-c", "copy", "-field_order", "tt", source)
    assert probe(source).video["field_order"] == "tt"
    outcome = restore_unchanged(source, tmp_path / "out.mov")
    assert not any("interlaced" in line for line in outcome.warnings)


def test_a_stream_that_turns_interlaced_on_the_way(clip: MakeClip, tmp_path: Path) -> None:
    common = ["-c:v", "libx264", "-crf", "1", "-bf", "0"]
    whole = clip("whole.ts", *common, size="160x96", audio=False)
    woven = clip(
        "woven.ts",
        *WOVEN,
        *common,
        "-x264-params",
        "tff=1",
        "-flags",
        "+ildct+ilme",
        size="160x96",
        audio=False,
    )
    source = tmp_path / "both.mkv"
    listing = tmp_path / "list.txt"
    listing.write_text(f"file '{whole}'\nfile '{woven}'\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-c", "copy", source)
    outcome = restore_unchanged(source, tmp_path / "out.mkv", crf=1)
    count = len(probe(source).times)
    assert count > 24 and outcome.figures.frames == count
    assert shown(source, tmp_path / "out.mkv")[:20] == list(range(20))
    assert sum("deinterlaced" in line for line in outcome.warnings) == 1
    with pytest.raises(InputError, match="is interlaced"):
        restore_unchanged(source, tmp_path / "none.mkv", reading=read("refuse"))
    assert not (tmp_path / "none.mkv").exists()


def test_a_piece_of_interlaced_video_keeps_its_times(clip: MakeClip, tmp_path: Path) -> None:
    name, arguments = KINDS[2]
    source = clip(name, *WOVEN, *arguments, size="160x96")
    restore_unchanged(source, tmp_path / "out.mp4", crf=1, reading=piece("0.3", "0.3"))
    inside = [t for t in probe(source).times if 0.3 <= t < 0.6]
    assert probe(tmp_path / "out.mp4").times == [t - inside[0] for t in inside]
