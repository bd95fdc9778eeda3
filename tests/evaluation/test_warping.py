"""Measures over time: what moves smoothly has no error, what shimmers and flickers has."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from evaluation.small_sequences import moving

from measnet.evaluation.measure import Quality
from measnet.evaluation.video.figures import DEGRADED, MethodFigures, SequenceFigures, Tally, VideoFigures
from measnet.evaluation.video.stopwatch import Taken
from measnet.evaluation.video.warping import MotionSeeker, WarpingError

TALL, WIDE = 96, 128


def error(clean: list[np.ndarray], results: list[np.ndarray]) -> float | None:
    seeker, warping = MotionSeeker(), WarpingError()
    for true, result in zip(clean, results, strict=True):
        warping.add(result, seeker.look(true))
    return warping.value


def noisy(frames: list[np.ndarray], sigma: float) -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [np.clip(np.rint(f + chance.normal(0, sigma, f.shape)), 0, 255).astype(np.uint8) for f in frames]


def test_motion_is_no_error_and_noise_is() -> None:
    clean = moving(6, step=2, height=TALL, width=WIDE)
    own, shimmering, more = (error(clean, noisy(clean, sigma)) for sigma in (0, 5, 10))
    unmoved = np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairwise(clean)])
    assert own is not None and shimmering is not None and more is not None
    assert own < 0.2 * unmoved
    assert shimmering == pytest.approx(5 * 2 / np.sqrt(np.pi), rel=0.25)  # of a difference of two normals
    assert more > 1.5 * shimmering


def test_a_smoothed_video_has_less_error_than_the_clean_one() -> None:
    grainy = noisy(moving(6, height=TALL, width=WIDE), 6)
    smooth = moving(6, height=TALL, width=WIDE)
    own, of_smooth = error(grainy, grainy), error(grainy, smooth)
    assert own is not None and of_smooth is not None and of_smooth < 0.5 * own


def test_a_cut_counts_for_nothing() -> None:
    first, second = moving(4, height=TALL, width=WIDE), [255 - f for f in moving(4, height=TALL, width=WIDE)]
    joined = error(first + second, first + second)
    apart = error(first, first)
    assert joined is not None and apart is not None and joined == pytest.approx(apart, abs=0.3)
    assert error([first[0], second[0]], [first[0], second[0]]) is None
    assert error(first[:1], first[:1]) is None


def test_sixteen_bits_are_measured_in_steps_of_eight() -> None:
    clean = moving(4, height=TALL, width=WIDE)
    results = noisy(clean, 8)
    deep = [frame.astype(np.uint16) * 257 for frame in results]
    assert error(clean, deep) == pytest.approx(error(clean, results), rel=1e-4)


def test_flicker_is_brightness_that_changes_where_the_clean_video_does_not() -> None:
    clean = moving(6, step=0, height=TALL, width=WIDE)
    seeker, steady, flickering = MotionSeeker(), Tally(), Tally()
    for number, frame in enumerate(clean):
        motion = seeker.look(frame)
        steady.add(np.minimum(frame, 250) + 5, frame, motion)
        flickering.add(np.minimum(frame, 250) + 5 * (number % 2), frame, motion)
    assert steady.figures(None).flicker == pytest.approx(0, abs=0.3)
    assert flickering.figures(None).flicker == pytest.approx(5, rel=0.1)


def method(*psnrs: float, warping: float | None = None, clock: float | None = None) -> MethodFigures:
    taken = None if clock is None else Taken(2 * clock, clock)
    return MethodFigures(tuple(Quality(value, 0.5) for value in psnrs), 1.0, warping, taken)


def sequence(name: str, fused: MethodFigures, clean_warping: float | None) -> SequenceFigures:
    methods = {DEGRADED: method(20, 20, 20, warping=9.0), "alone": method(30, 31, 32), "fused": fused}
    return SequenceFigures(name, (64, 48), clean_warping, methods, {"fused": "alone"})


def test_the_worst_frame_is_held_against_the_same_frame_alone() -> None:
    one = sequence("a", method(33, 30.5, 35), 3.0)
    assert one.worst("fused") == (1, -0.5)
    assert one.last("fused") == 3.0
    assert one.worst(DEGRADED) is None and one.last("alone") is None
    two = VideoFigures([one, sequence("b", method(31, 32, 33), 3.0)])
    assert two.worst("fused") == -0.5
    assert two.gain("fused") == pytest.approx((32.8333 + 32) / 2 - 20, abs=1e-3)


def test_warping_is_a_multiple_of_the_clean_videos_own_where_that_moves() -> None:
    moves = sequence("a", method(33, 33, 33, warping=6.0, clock=0.5), 3.0)
    stands = sequence("b", method(33, 33, 33, warping=6.0, clock=0.25), 0.0)
    assert moves.warping("fused") == 2.0 and stands.warping("fused") is None
    both = VideoFigures([moves, stands])
    assert both.warping("fused") == 2.0
    assert both.warping("alone") is None
    assert both.fps("fused") == pytest.approx(1 / 0.375) and both.fps(DEGRADED) is None
    assert both.cores("fused") == pytest.approx(0.75) and both.cores(DEGRADED) is None
