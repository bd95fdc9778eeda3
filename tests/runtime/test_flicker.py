"""Flicker counts what a restoration adds from frame to frame, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from measnet.image import Pixels
from measnet.runtime.flicker import flicker

rng = np.random.default_rng(0)
STILL = rng.integers(40, 200, (70, 100, 3), np.uint8)  # blocks of 32x32: 2 by 3, and a rest


def moving() -> list[Pixels]:
    wide = np.kron(rng.integers(40, 200, (7, 14, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
    return [wide[:, 4 * step : 4 * step + 100] for step in range(5)]


def test_a_steady_change_of_a_moving_source_is_no_flicker() -> None:
    frames = moving()
    assert flicker(frames, [frame + 10 for frame in frames]) == pytest.approx(0, abs=1e-9)


def test_a_brightness_that_jumps_is_measured_in_steps_of_8_bits() -> None:
    results = [STILL, STILL + 3, STILL, STILL + 3]
    assert flicker([STILL] * 4, results) == pytest.approx(3)
    deep = [frame.astype(np.uint16) * 257 for frame in results]
    assert flicker([deep[0]] * 4, deep) == pytest.approx(3)


def test_one_block_of_six_counts_for_a_sixth_and_the_rest_at_the_edges_for_nothing() -> None:
    block, edges = STILL.copy(), STILL.copy()
    block[:32, 32:64] += 6
    edges[64:] += 6
    edges[:, 96:] += 6
    assert flicker([STILL] * 2, [STILL, block]) == pytest.approx(6 / 6**0.5)
    assert flicker([STILL] * 2, [STILL, edges]) == pytest.approx(0)


def test_what_changes_at_a_scene_cut_is_not_counted() -> None:
    other = np.asarray(255 - np.kron(STILL[:7, :10], np.ones((10, 10, 1))), np.uint8)
    assert flicker([STILL, STILL, other, other], [STILL, STILL, other + 20, other + 20]) == pytest.approx(0)
    assert flicker([STILL, other], [STILL, other]) is None


def test_pictures_smaller_than_a_block_are_one() -> None:
    small = STILL[:9, :7]
    assert flicker([small] * 2, [small, small + 2]) == pytest.approx(2)
