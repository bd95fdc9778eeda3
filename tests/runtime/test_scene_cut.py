"""Where scenes begin: cuts are found, pans, noise and fades are none, and the state goes on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from measnet.image import Pixels
from measnet.runtime.scene_cut import SceneCut


def scenery(seed: int, height: int = 180, width: int = 640) -> Pixels:
    """Large and small shapes, as wide as a pan needs."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(20, 235, (6, 20, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255), np.uint8)


def scenes(frames: list[Pixels]) -> list[int]:
    scene = SceneCut()
    return [number for number, frame in enumerate(frames) if scene.begins_with(frame)]


def pan(seed: int, count: int, step: int = 12) -> list[Pixels]:
    wide = scenery(seed)
    return [wide[:, step * number : step * number + 320] for number in range(count)]


def test_a_cut_is_found_between_two_fast_pans() -> None:
    assert scenes(pan(0, 12) + pan(1, 12)) == [0, 12]


def test_the_same_cuts_are_found_in_16_bits_and_with_channels_turned() -> None:
    frames = pan(0, 4) + pan(1, 4)
    assert scenes([frame.astype(np.uint16) * 257 for frame in frames]) == [0, 4]
    assert scenes([frame[..., ::-1] for frame in frames]) == [0, 4]


def test_black_bars_hide_no_cut() -> None:
    frames = pan(2, 4) + pan(3, 4)
    for frame in frames:
        frame[:40] = frame[-40:] = 16
    assert scenes(frames) == [0, 4]


def test_grain_a_fade_and_repeated_frames_are_no_cuts() -> None:
    rng = np.random.default_rng(4)
    picture = scenery(5)[:, :320]
    grainy = [np.clip(picture + rng.normal(0, 50, picture.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    fading = [np.asarray(picture * share, np.uint8) for share in np.linspace(1, 0.1, 12)]
    moving = [frame for frame in pan(5, 8) for _ in range(2)]
    assert scenes([*grainy, *[picture] * 3, *fading]) == [0]
    assert scenes(moving) == [0]


def test_a_picture_out_of_black_and_another_size_begin_scenes() -> None:
    picture = scenery(6)[:, :320]
    black = np.zeros_like(picture)
    assert scenes([black, black, picture, picture, picture[:90], picture[:90]]) == [0, 2, 4]


@pytest.mark.parametrize("after", [0, 1, 5, 13])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(after: int) -> None:
    frames = pan(7, 12) + pan(8, 12)
    first, second = SceneCut(), SceneCut()
    for frame in frames[:after]:
        first.begins_with(frame)
    second.set_state(first.state())
    rest = frames[after:]
    assert [first.begins_with(frame) for frame in rest] == [second.begins_with(frame) for frame in rest]
    assert first.state() == second.state()


def test_bytes_that_no_state_is_are_refused() -> None:
    scene = SceneCut()
    for frame in pan(9, 4):
        scene.begins_with(frame)
    state = scene.state()
    for damaged in (b"", state[:-1], state + b"0", b"\xff" + state[1:], state[:-8] + b"\xff" * 8):
        with pytest.raises(ValueError, match="what was seen of the scene"):
            SceneCut().set_state(damaged)
