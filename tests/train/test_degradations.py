"""Degradations: in range, the same for the same seed, and what their formulas say."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from measnet.runtime.frame import Colour
from measnet.train.degradations import (
    DEGRADATION_NAMES,
    DEGRADATIONS,
    PACKED_TASKS,
    add_compression,
    degrade_mixture,
    make_pairs,
)
from measnet.train.degradations.blur import disc_kernel, even_kernel, line_kernel, shake_kernel
from measnet.train.degradations.camera import SimulatedCamera
from measnet.train.degradations.coded import Coder, code_frames, noise_level, pan
from measnet.train.degradations.haze import add_haze, guided_filter, outdoor_depth
from measnet.train.degradations.low_light import add_low_light
from measnet.train.degradations.noise import (
    add_gaussian_noise,
    add_published_noise,
    add_sensor_noise,
    add_video_noise,
)
from measnet.train.degradations.picture import from_uint8, to_light, to_stored, to_uint8
from measnet.train.degradations.rain import add_dense_rain, add_rain


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


def _photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Flat patches, edges, a slope and some texture: enough for a coder and a correlation."""
    rng = np.random.default_rng(7)
    grid = (height // 16 + 1, width // 16 + 1)
    patches = rng.uniform(40, 215, (*grid, 1)) + rng.uniform(-12, 12, (*grid, 3))
    patches = patches.repeat(16, 0).repeat(16, 1)
    picture = patches[:height, :width] + rng.normal(0, 6, (height, width, 1))
    picture += np.linspace(-20, 20, width)[None, :, None]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("coder", [Coder(crf=12), Coder("hevc", crf=12), Coder("mpeg4", crf=12)])
def test_coding_changes_neither_colour_nor_place(coder: Coder) -> None:
    frames = pan(np.random.default_rng(2), _photograph(160, 200), side=128, count=5)
    for colour in (Colour(1, 1, 1, range=1), Colour(6, 6, 6, range=1)):
        coded = code_frames(frames, replace(coder, colour=colour))
        change = np.stack(coded).astype(np.float64) - np.stack(frames)
        assert np.abs(change.mean(axis=(0, 1, 2))).max() < 0.3
        assert change.std() < 6
        for before, after in zip(frames, coded, strict=True):
            assert np.abs(_shift(before, after)).max() < 0.05


@pytest.mark.parametrize(
    "camera",
    [
        SimulatedCamera(level=0, softness=0.6),
        SimulatedCamera(level=0, softness=0.6, edge_aware=True),
        SimulatedCamera(level=0, sensor_scale=0.75, mosaic=False),
        SimulatedCamera(level=0, sensor_scale=1.5, mosaic=False, finish="bilateral", sharpening=0.5),
    ],
)
def test_a_camera_without_noise_moves_nothing(camera: SimulatedCamera) -> None:
    scene = from_uint8(cv2.GaussianBlur(_photograph(128, 128), (0, 0), 1.5).view(np.uint8))
    shot = camera.shoot(np.random.default_rng(0), scene)
    assert np.abs(_shift(to_uint8(scene), to_uint8(shot))).max() < 0.05
    assert np.abs((shot - scene).mean(axis=(0, 1))).max() * 255 < 1.5


def test_a_camera_has_the_noise_asked_for_and_less_where_it_smooths() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    plain = SimulatedCamera(level=12, mosaic=False).shoot(np.random.default_rng(0), grey)
    assert plain.std() * 255 == pytest.approx(12, rel=0.05)
    mosaic = SimulatedCamera(level=12).shoot(np.random.default_rng(0), grey)
    assert 0.5 < mosaic.std() / plain.std() < 0.9  # filled-in colours are means
    smooth = SimulatedCamera(level=12, finish="bilateral").shoot(np.random.default_rng(0), grey)
    assert smooth.std() < mosaic.std() * 0.8


def test_frames_of_one_camera_differ_in_noise_alone() -> None:
    grey = np.full((64, 64, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    camera = SimulatedCamera(level=4, pattern=1.5, pattern_seed=3, mosaic=False)
    first, second = (camera.shoot(rng, grey) for _ in range(2))
    assert (first != second).any()
    lines = [shot.mean(axis=(0, 2)) - shot.mean() for shot in (first, second)]
    assert np.corrcoef(*lines)[0, 1] > 0.8


def test_dense_rain_brightens_as_asked_without_tint_along_one_direction() -> None:
    dark = np.full((192, 192, 3), 0.1, np.float32)
    for seed in range(6):
        rain = add_dense_rain(np.random.default_rng(seed), dark, rise=45) - dark
        assert rain.mean() * 255 == pytest.approx(45, abs=3)
        assert np.ptp(rain, axis=2).max() < 1e-6
        across, along = np.abs(np.diff(rain, axis=1)).mean(), np.abs(np.diff(rain, axis=0)).mean()
        assert across > 2 * along


def test_outdoors_the_sky_is_farthest_and_the_ground_comes_nearer() -> None:
    scene = np.full((96, 128, 3), 0.3, np.float32)
    scene[:, :, 1] += 0.1
    scene[:30] = (0.55, 0.7, 0.95)
    for seed in range(8):
        depth = outdoor_depth(np.random.default_rng(seed), scene)
        assert depth[:22].min() > depth[45:].max() and depth[:22].min() > 1.2
        assert depth[-6:].mean() <= depth[40:60].mean() + 0.1


def test_an_even_kernel_is_a_box_that_stays_in_place() -> None:
    for length in range(3, 26):
        kernel = even_kernel(length, upright=False)
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.shape[0] % 2 == 1
        assert (kernel == kernel[:, ::-1]).all() and (even_kernel(length, upright=True) == kernel.T).all()
        assert kernel.max() == pytest.approx(1 / length)


@pytest.mark.parametrize("size", [(144, 144), (151, 233), (320, 200)])
@pytest.mark.parametrize("task", PACKED_TASKS)
def test_every_packed_task_makes_valid_pairs_the_same_for_a_seed(task: str, size: tuple[int, int]) -> None:
    picture = _photograph(*size)
    side = min(160, *size) // 8 * 8
    for seed in range(4):
        made = make_pairs(np.random.default_rng(seed), task, picture, 160)
        again = make_pairs(np.random.default_rng(seed), task, picture, 160)
        assert 3 <= len(made) <= 5 if task == "coded" else len(made) == 1
        for (degraded, clean, shares), same in zip(made, again, strict=True):
            assert degraded.shape == clean.shape == (side, side, 3)
            assert degraded.dtype == clean.dtype == np.uint8
            assert len(shares) == len(DEGRADATION_NAMES) and all(0 <= share <= 1 for share in shares)
            assert any(shares) == (task != "keep")
            assert (degraded == same[0]).all() and (clean == same[1]).all() and shares == same[2]


def test_shares_grow_with_the_noise() -> None:
    clean = _photograph(96, 96)
    levels = []
    for sigma in (5, 15, 30):
        noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
        levels.append(noise_level(np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8), clean))
    assert levels == pytest.approx([5, 15, 30], rel=0.1)


def test_a_mixture_names_at_least_two_of_what_it_did() -> None:
    clean = from_uint8(_photograph(96, 96))
    counts = [
        sum(share > 0 for share in degrade_mixture(np.random.default_rng(seed), clean)[1])
        for seed in range(12)
    ]
    assert min(counts) >= 2 and max(counts) <= 4


def test_what_is_left_alone_looks_the_same() -> None:
    clean = from_uint8(_photograph(96, 104))
    for seed in range(12):
        kept = DEGRADATIONS["keep"](np.random.default_rng(seed), clean)
        assert np.sqrt(np.mean((kept - clean) ** 2)) * 255 < 8


def _shift(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far ``after`` lies from ``before``, x and y in pixels."""
    grey = [picture.mean(axis=2) - picture.mean() for picture in (before, after)]
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    spectra = [np.fft.fft2(picture * window) for picture in grey]
    peak = np.fft.ifft2(spectra[1] * spectra[0].conj()).real
    shift = []
    for line in (peak[0, [-1, 0, 1]], peak[[-1, 0, 1], 0]):
        assert line[1] == peak.max()  # the correlation is highest where nothing is shifted
        shift.append((line[2] - line[0]) / (2 * (2 * line[1] - line[0] - line[2])))
    return np.array(shift)
