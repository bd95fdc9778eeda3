"""Closed captions that lie in the coded picture go with it, or are said to be lost."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import av
import pytest

from measnet.runtime.side_data import read_captions

from .conftest import MakeClip, ffmpeg, probe, restore_unchanged


@pytest.fixture
def captioned(clip: MakeClip, tmp_path: Path) -> Path:
    """MPEG-2 with B-frames, as broadcast: others for each picture, with bytes that look like start codes."""
    bare = clip("bare.m2v", "-c:v", "mpeg2video", "-bf", "2", audio=False)
    numbers = itertools.count(0x21)

    def before(slice_: re.Match[bytes]) -> bytes:
        words = bytes((0xFC, 0x94, next(numbers), 0xFA, 0, 0))
        return b"\0\0\1\xb2GA94\3" + bytes((0x42, 0xFF)) + words + b"\xff" + slice_[0]

    (tmp_path / "captioned.m2v").write_bytes(re.sub(b"\0\0\1\1", before, bare.read_bytes()))
    ffmpeg("-fflags", "+genpts", "-i", tmp_path / "captioned.m2v", "-c", "copy", tmp_path / "captioned.ts")
    return tmp_path / "captioned.ts"


def captions(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [read_captions(frame) for frame in file.decode(video=0)]


@pytest.mark.parametrize(
    ("target", "codec", "direct"),
    [
        *((name, None, False) for name in ("out.ts", "out.mp4", "out.mkv", "out.flv")),
        ("out.mp4", "hevc", False),
        ("out.ts", None, True),
        ("out.mp4", "hevc", True),
    ],
)
def test_captions_stay_with_their_pictures(
    captioned: Path, tmp_path: Path, target: str, codec: str | None, direct: bool
) -> None:
    before = captions(captioned)
    assert len(before) == len(set(before)) == 20 and all(len(of_one) == 6 for of_one in before)
    outcome = restore_unchanged(captioned, tmp_path / target, codec=codec, direct=direct)
    assert captions(tmp_path / target) == before
    assert probe(tmp_path / target).video["closed_captions"] == 1
    assert not any("captions" in line for line in outcome.warnings)


def test_captions_that_an_encoder_does_not_take_are_said(captioned: Path, tmp_path: Path) -> None:
    outcome = restore_unchanged(captioned, tmp_path / "out.mkv", codec="vp9", preset="8")
    assert "not carried over: closed captions (libvpx-vp9 takes none)" in outcome.warnings
