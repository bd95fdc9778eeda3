"""Two views in one picture, views all around and transparency: kept, or said to be lost."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from measnet.runtime.frame import StreamInfo
from measnet.runtime.sinks.mp4_views import add_views, views_of
from measnet.runtime.sources.video import VideoFile

from .conftest import MakeClip, ffmpeg, probe, restore_unchanged

PRESETS = {".webm": "8", ".mov": None}


def info_of(path: Path) -> StreamInfo:
    file = VideoFile(path)
    file.close()
    return file.info


@pytest.mark.parametrize(
    ("stereo", "target", "codec", "kept"),
    [
        ("left_right", "out.mkv", None, True),
        ("bottom_top", "out.mkv", None, True),
        ("checkerboard_rl", "out.mkv", None, True),
        ("right_left", "out.webm", None, True),
        ("left_right", "out.mp4", None, True),
        ("top_bottom", "out.mov", "prores", True),
        ("top_bottom", "out.ts", None, True),
        ("checkerboard_lr", "out.webm", None, False),
        ("right_left", "out.mp4", None, False),
        ("left_right", "out.ts", "hevc", False),
    ],
)
def test_two_views_in_one_picture_are_kept_or_said_to_be_lost(
    clip: MakeClip, tmp_path: Path, stereo: str, target: str, codec: str | None, kept: bool
) -> None:
    source = clip("two.mkv", "-metadata:s:v", f"stereo_mode={stereo}", seconds=0.2, audio=False)
    assert info_of(source).stereo == stereo
    preset = PRESETS.get(Path(target).suffix, "ultrafast")
    outcome = restore_unchanged(source, tmp_path / target, codec=codec, preset=preset)
    assert info_of(tmp_path / target).stereo == (stereo if kept else None)
    said = f"not carried over: that it has two views ({stereo})" in outcome.warnings
    assert said is not kept


@pytest.mark.parametrize("projection", [0, 1, 2], ids=["sphere", "cube", "part of a sphere"])
@pytest.mark.parametrize(
    ("target", "direct", "kept"),
    [("out.mp4", False, True), ("out.mov", True, True), ("out.mkv", False, False)],
)
def test_a_view_all_around_is_kept_or_said_to_be_lost(
    clip: MakeClip, tmp_path: Path, target: str, direct: bool, kept: bool, projection: int
) -> None:
    numbers = (projection, 10 << 16, -5 << 16, 3 << 16, *([1 << 28] * 4 if projection == 2 else [0] * 4), 0)
    plain = clip("plain.mp4", seconds=0.2)
    source = tmp_path / "around.mp4"
    source.write_bytes(plain.read_bytes())
    info = StreamInfo("x", "video", 96, 64, info_of(plain).time_base, stereo="top_bottom", spherical=numbers)
    add_views(source, views_of(info))
    # FFmpeg reads what was written, and ffprobe finds nothing wrong with the rest.
    assert info_of(source).spherical == numbers and info_of(source).stereo == "top_bottom"
    outcome = restore_unchanged(source, tmp_path / target, direct=direct)
    assert info_of(tmp_path / target).spherical == (numbers if kept else None)
    assert info_of(tmp_path / target).stereo == "top_bottom"
    assert ("not carried over: that it is a view all around (360°)" in outcome.warnings) is not kept
    assert [len(part) for part in (probe(tmp_path / target).times, probe(tmp_path / target).copied)] == [
        len(part) for part in (probe(source).times, probe(source).copied)
    ]


def test_transparency_that_lies_beside_the_picture_is_said_to_be_lost(tmp_path: Path) -> None:
    picture = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.2,format=yuva420p"]
    ffmpeg(*picture, "-c:v", "libvpx-vp9", "-auto-alt-ref", "0", tmp_path / "a.webm")
    with av.open(str(tmp_path / "a.webm")) as file:
        assert next(file.decode(video=0)).format.name == "yuv420p"  # nothing of it in the picture itself
    outcome = restore_unchanged(tmp_path / "a.webm", tmp_path / "out.mkv")
    assert "the video's transparency is not kept" in outcome.warnings
