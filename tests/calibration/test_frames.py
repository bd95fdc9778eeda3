"""Frames to calibrate on, and others to measure on, from what a user names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.calibration.frames import Frames
from measnet.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures of 90x120 that differ."""
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        cv2.imwrite(str(place / f"{index}.png"), rng.integers(0, 256, (90, 120, 3), np.uint8))
    return place


def taken(source: Path | str, wanted: int = 8, size: tuple[int, int] = (64, 72)) -> Frames:
    frames = Frames(str(source), wanted, size)
    for image in frames.to_calibrate():
        assert image.shape == (1, 3, *size) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
    return frames


def test_one_frame_in_five_is_held_out_and_no_frame_is_in_both(folder: Path) -> None:
    frames = taken(folder)
    assert [name for name, _ in frames.held_out] == ["1.png", "6.png"]
    assert frames.calibrated == [f"{index}.png" for index in (0, 2, 3, 4, 5, 7, 8, 9)]
    assert not frames.alone


@pytest.mark.parametrize("wanted", [1, 2, 4, 5, 7])
def test_no_more_than_wanted_are_calibrated_on_and_one_at_least_is_held_out(
    folder: Path, wanted: int
) -> None:
    frames = taken(folder, wanted)
    assert len(frames.calibrated) == wanted
    assert 1 <= len(frames.held_out) <= 8


def test_the_hash_is_of_the_pixels(folder: Path) -> None:
    once = taken(folder).calibration.sha256
    assert taken(folder).calibration.sha256 == once
    picture = cv2.imread(str(folder / "3.png"))
    assert picture is not None
    cv2.imwrite(str(folder / "3.png"), 255 - picture)
    assert taken(folder).calibration.sha256 != once


def test_what_is_too_small_is_grown_and_what_is_large_is_cropped_in_different_places(folder: Path) -> None:
    assert taken(folder, size=(128, 160)).size == (128, 160)
    stripes = np.repeat(np.arange(240, dtype=np.uint8)[None, :, None], 200, 0).repeat(3, 2)
    for path in folder.iterdir():
        cv2.imwrite(str(path), stripes)
    left = {float(image[0, 0, 0, 0]) for image in Frames(str(folder), 8, (64, 72)).to_calibrate()}
    assert len(left) > 4


def test_frames_of_a_video_are_called_by_their_times(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    made = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=1", str(video)]
    subprocess.run(made, check=True)
    frames = taken(video, 4)
    assert frames.calibrated == ["0.00 s", "0.40 s", "0.60 s", "0.80 s"]
    assert [name for name, _ in frames.held_out] == ["0.20 s"]


def test_one_picture_leaves_nothing_to_measure_on(folder: Path) -> None:
    frames = taken(folder / "0.png")
    assert frames.alone and frames.held_out == [] and frames.calibrated == ["0.png"]


def test_what_cannot_be_read_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG but no more")
    for source in ("nothing.mp4", "empty", "empty.mp4", "broken.png"):
        with pytest.raises(InputError, match=source):
            Frames(str(tmp_path / source), 4, (64, 64))
    with pytest.raises(InputError, match="is live"):
        Frames("rtsp://127.0.0.1:1/x", 4, (64, 64))
