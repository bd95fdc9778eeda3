"""Degradations: in range, the same for the same seed, and what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from measnet.train.degradations import DEGRADATIONS, add_compression
from measnet.train.degradations.blur import disc_kernel, line_kernel, shake_kernel
from measnet.train.degradations.haze import add_haze, guided_filter, make_depth
from measnet.train.degradations.low_light import add_low_light
from measnet.train.degradations.noise import (
    add_gaussian_noise,
    add_published_noise,
    add_sensor_noise,
    add_video_noise,
)
from measnet.train.degradations.picture import to_light, to_stored
from measnet.train.degradations.rain import add_rain


@pytest.mark.parametrize("task", sorted(DEGRADATIONS))
def test_a_degradation_stays_in_range_repeats_and_leaves_the_picture_alone(task: str) -> None:
    clean = np.random.default_rng(0).random((40, 56, 3), np.float32)
    for seed in range(20):
        before = clean.copy()
        degraded = DEGRADATIONS[task](np.random.default_rng(seed), clean)
        assert degraded.dtype == np.float32 and degraded.shape == clean.shape
        assert degraded.min() >= 0 and degraded.max() <= 1
        assert (clean == before).all() and (task == "keep" or (degraded != clean).any())
        assert (DEGRADATIONS[task](np.random.default_rng(seed), clean) == degraded).all()


def test_noise_has_the_strength_asked_for() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    assert add_gaussian_noise(rng, grey, 25).std() * 255 == pytest.approx(25, rel=0.02)
    sensor = add_sensor_noise(rng, grey, shot=0.01, read=0.05, grain=0.8)
    assert sensor.std() == pytest.approx((0.01 * 0.5 + 0.05**2) ** 0.5, rel=0.05)
    video = add_video_noise(rng, grey, luma=20, chroma=0)
    assert video.mean(axis=2).std() * 255 == pytest.approx(20, rel=0.05)
    assert np.abs(video[:, :, 0] - video[:, :, 2]).max() < 1e-3


def test_published_noise_is_clipped_and_truncated_to_8_bits() -> None:
    grey = np.full((256, 256, 3), 128 / 255, np.float32)
    noisy = add_published_noise(np.random.default_rng(0), grey, 25) * 255
    assert np.abs(noisy - np.rint(noisy)).max() < 1e-4
    assert noisy.mean() == pytest.approx(127.5, abs=0.2)  # truncation takes half a step
    assert noisy.std() == pytest.approx(25, rel=0.02)


def test_rain_is_light_on_dark() -> None:
    dark = np.full((96, 96, 3), 0.1, np.float32)
    rainy = add_rain(np.random.default_rng(1), dark)
    assert (rainy >= dark - 1e-6).all() and rainy.max() > 0.3


def test_haze_takes_contrast_and_adds_one_light() -> None:
    rng = np.random.default_rng(3)
    picture = np.kron(rng.random((8, 8, 3)), np.ones((12, 12, 1))).astype(np.float32)
    for seed in range(10):
        hazy = add_haze(np.random.default_rng(seed), picture)
        assert hazy.std() < picture.std() + 1e-3
        # Black turns into airlight times what the haze hides: brighter in every channel.
        assert (add_haze(np.random.default_rng(seed), np.zeros_like(picture)) >= 0).all()
    depth = make_depth(np.random.default_rng(0), picture)
    assert depth.shape == (96, 96) and depth.min() >= 0 and depth.max() <= 1


def test_the_guided_filter_keeps_an_edge_and_smooths_the_rest() -> None:
    guide = np.zeros((40, 40), np.float32)
    guide[:, 20:] = 1
    rng = np.random.default_rng(0)
    noisy = (guide + rng.normal(0, 0.1, guide.shape)).astype(np.float32)
    smooth = guided_filter(guide, noisy, radius=6, eps=1e-3)
    assert smooth[:, :15].std() < 0.03 and smooth[:, 25:].std() < 0.03
    assert smooth[:, 22].mean() - smooth[:, 17].mean() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_blur_kernels_keep_the_amount_of_light(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kernel in (line_kernel(15, 30), shake_kernel(rng, 18), disc_kernel(3.5)):
        assert kernel.sum() == pytest.approx(1, abs=1e-5) and kernel.min() >= 0
        assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1


def test_a_line_kernel_runs_along_its_direction() -> None:
    level, upright = line_kernel(15, 0), line_kernel(15, 90)
    middle = level.shape[0] // 2
    assert level[middle].sum() > 0.75 and upright[:, middle].sum() > 0.75
    rows, columns = np.mgrid[0 : level.shape[0], 0 : level.shape[1]] - middle
    assert (level * columns).sum() == pytest.approx(0, abs=0.15)  # the picture does not move
    assert (level * rows).sum() == pytest.approx(0, abs=0.15)


def test_low_light_is_dark_and_noisier_for_its_brightness() -> None:
    grey = np.full((96, 96, 3), 0.6, np.float32)
    for seed in range(10):
        dark = add_low_light(np.random.default_rng(seed), grey)
        assert dark.mean() < 0.45
        assert dark.std() / dark.mean() > 0.001


def test_light_and_stored_values_convert_back() -> None:
    values = np.linspace(0, 1, 50, dtype=np.float32)
    assert np.abs(to_stored(to_light(values)) - values).max() < 1e-5


def test_compression_loses_more_the_lower_the_quality() -> None:
    grey = np.random.default_rng(0).random((32, 32, 1), np.float32).repeat(3, axis=2)
    lost = [np.abs(add_compression(grey, quality) - grey).mean() for quality in (20, 60, 100)]
    assert lost[0] > lost[1] > lost[2] and lost[2] < 0.01
