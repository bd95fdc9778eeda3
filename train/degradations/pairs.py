"""Pairs of a degraded and a clean picture by task, with the amount of each kind of damage.

Degradations come in the order of physics: rain and haze and darkness before the camera, movement
and lens, then the sensor's noise, then compression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from measnet.image import EightBitPixels
from measnet.train.degradations.blur import add_blur
from measnet.train.degradations.camera import draw_camera
from measnet.train.degradations.coded import (
    add_coding,
    code_frames,
    code_from_camera,
    code_with_gaussian_noise,
    draw_coder,
    noise_level,
    pan,
)
from measnet.train.degradations.haze import add_haze
from measnet.train.degradations.low_light import add_low_light
from measnet.train.degradations.noise import add_compression
from measnet.train.degradations.picture import (
    Picture,
    from_uint8,
    to_light,
    to_stored,
    to_uint8,
    with_less_contrast,
)
from measnet.train.degradations.rain import add_rain

Shares = tuple[float, ...]
MadePair = tuple[EightBitPixels, EightBitPixels, Shares]

DEGRADATION_NAMES = ("noise", "rain", "haze", "blur", "dark", "compression")
"""Names of ``Shares``, in this order, each from 0 (none) to 1 (the strongest).

noise: its standard deviation before any coder, over 30 8-bit steps. rain and haze: the rms change they make,
over 80 and 120 steps. blur: the rms of the detail it takes, over that of all detail. dark: the share of the
mean brightness that is gone. compression: H.264's CRF from 14 (0) to 40 (1), or JPEG's quality from 95 (0)
to 25 (1). Each is clipped to 0 to 1; all zeros is an undamaged picture.
"""

PACKED_TASKS = ("derain", "dehaze", "deblur", "lowlight", "coded", "camera", "mixture", "keep")

BLUR_MARGIN = 16  # pixels around a picture, so that what blurs into it is the picture and not its mirror


def make_pairs(rng: np.random.Generator, task: str, picture: EightBitPixels, side: int) -> list[MadePair]:
    """Degraded and clean pictures, side x side x 3, from somewhere in a clean one, and the shares.

    ``picture`` is H x W x 3, RGB; where it is smaller than ``side``, its own shorter side counts. Sides are
    multiples of 8. Two in five pictures are first made smaller, down to half, which makes them sharper.
    ``coded`` gives 3 to 5 frames of one run, every other task one pair. Raises ``KeyError`` for a task that
    is not one of ``PACKED_TASKS``.
    """
    side = min(side, *picture.shape[:2]) // 8 * 8
    return _MAKERS[task](rng, np.ascontiguousarray(picture), side)


def degrade_mixture(rng: np.random.Generator, clean: Picture) -> tuple[Picture, Shares]:
    """Two or three degradations at once, sometimes more, in the order of physics; and their shares."""
    weather, blurred, noisy, coded = _mixed(rng)
    shares = dict.fromkeys(DEGRADATION_NAMES, 0.0)
    scene = clean
    for kind in weather:
        before = scene
        if kind == "dark":
            light = to_light(scene) * np.float32(np.exp(rng.uniform(np.log(0.04), np.log(0.5))))
            scene = to_stored(light)
            shares[kind] = _darkness(scene, before)
        elif kind == "haze":
            scene = add_haze(rng, scene)
            shares[kind] = _change(scene, before, most=120)
        else:
            scene = add_rain(rng, scene)
            shares[kind] = _change(scene, before, most=80)
    if blurred:
        before, scene = scene, add_blur(rng, scene)
        shares["blur"] = _lost_detail(scene, before)
    if noisy:
        before, scene = scene, draw_camera(rng, heaviest=22).shoot(rng, scene)
        shares["noise"] = _noise(to_uint8(scene), to_uint8(before))
    if coded:
        scene, shares["compression"] = _compressed(rng, scene)
    return scene, _shares(shares)


def _mixed(rng: np.random.Generator) -> tuple[list[str], bool, bool, bool]:
    """Draws weather, and whether there is blur, noise and compression: at least two in all."""
    while True:
        weather = [name for name, chance in (("rain", 0.3), ("haze", 0.3)) if rng.random() < chance]
        if rng.random() < 0.3:
            weather.append("dark")
        blurred, noisy, coded = rng.random() < 0.3, rng.random() < 0.6, rng.random() < 0.5
        if 2 <= len(weather) + blurred + noisy + coded <= 4 and len(weather) < 3:
            return weather, blurred, noisy, coded


def _compressed(rng: np.random.Generator, scene: Picture) -> tuple[Picture, float]:
    if rng.random() < 0.4:
        quality = int(rng.integers(45, 93))
        return add_compression(scene, quality), float(np.clip((95 - quality) / 70, 0, 1))
    coder = draw_coder(rng, 20, 33)
    return add_coding(rng, scene, coder), coder.coarseness


def _rain(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    clean = _scene(rng, picture, side)
    rainy = add_rain(rng, clean)
    return [_made(rainy, clean, rain=_change(rainy, clean, most=80))]


def _haze(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    clean = _scene(rng, picture, side)
    hazy = add_haze(rng, clean)
    return [_made(hazy, clean, haze=_change(hazy, clean, most=120))]


def _blur(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    margin = min(BLUR_MARGIN, (min(picture.shape[:2]) - side) // 2)
    whole = _scene(rng, picture, side + 2 * margin)
    inner = slice(margin, margin + side)
    blurred, clean = add_blur(rng, whole)[inner, inner], whole[inner, inner]
    return [_made(blurred, clean, blur=_lost_detail(blurred, clean))]


def _low_light(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    clean = _scene(rng, picture, side)
    dark = add_low_light(rng, clean)
    noise = _noise(to_uint8(dark), to_uint8(clean * (dark.mean() / max(float(clean.mean()), 1e-6))))
    return [_made(dark, clean, dark=_darkness(dark, clean), noise=noise)]


def _camera(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    clean = _scene(rng, picture, side)
    shot = draw_camera(rng).shoot(rng, clean)
    quality = int(rng.integers(70, 98)) if rng.random() < 0.3 else 100
    shot = add_compression(shot, quality) if quality < 100 else shot
    noise = _noise(to_uint8(shot), to_uint8(clean))
    return [_made(shot, clean, noise=noise, compression=(95 - quality) / 70)]


def _coded(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    """Frames of one run: three in four with Gaussian noise, one in six from a camera, the rest with none;
    of one run in seven the scene has less contrast, which alone is no haze."""
    room = side + int(rng.integers(0, 33))
    scene = _scene(rng, picture, min(room, *picture.shape[:2]))
    if rng.random() < 1 / 7:
        scene = with_less_contrast(rng, scene)
    whole = to_uint8(scene)
    frames = pan(rng, whole, side, int(rng.integers(5, 9)))
    kind, noise = rng.random(), 0.0
    if kind < 0.75:
        coder = draw_coder(rng, 20, 34, only_h264=rng.random() < 0.8)
        sigma = rng.uniform(4, 30)
        coded, noise = code_with_gaussian_noise(rng, frames, sigma, coder), sigma
    elif kind < 0.92:
        coder = draw_coder(rng, 18, 34)
        if rng.random() < 0.25:  # an evening, clean and noisy alike: noise to remove, not light to add
            frames = _dimmed(frames, rng.uniform(0.3, 0.7))
        coded, noise = code_from_camera(rng, frames, coder)
    else:
        coder = draw_coder(rng, 24, 36)
        coded = code_frames(frames, coder)
    shares = _shares({"noise": noise / 30, "compression": coder.coarseness})
    chosen = rng.permutation(len(frames))[: int(rng.integers(3, 6))]
    return [(coded[number], frames[number], shares) for number in sorted(chosen.tolist())]


def _dimmed(frames: list[EightBitPixels], exposure: float) -> list[EightBitPixels]:
    stored = to_uint8(to_stored(to_light(np.linspace(0, 1, 256, dtype=np.float32)) * np.float32(exposure)))
    return [stored[frame] for frame in frames]


def _mixture(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    clean = _scene(rng, picture, side)
    degraded, shares = degrade_mixture(rng, clean)
    return [(to_uint8(degraded), to_uint8(clean), shares)]


def _keep(rng: np.random.Generator, picture: EightBitPixels, side: int) -> list[MadePair]:
    """Scenes with nothing wrong: a quarter seen from near, half with less contrast."""
    near = rng.random() < 0.25
    taken = max(16, int(side * rng.uniform(0.25, 0.9))) if near else side
    clean = _scene(rng, picture, taken)
    if near:
        clean = np.asarray(cv2.resize(clean, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
        clean = np.asarray(np.clip(clean, 0, 1), np.float32)
    if rng.random() < 0.5:
        clean = with_less_contrast(rng, clean)
    clean = from_uint8(to_uint8(clean))
    return [_made(leave_alone(rng, clean), clean)]


def leave_alone(rng: np.random.Generator, clean: Picture) -> Picture:
    """Nothing that a user would see: nothing at all (40 %), light JPEG (30 %), video at CRF 14 to 20 (30 %).

    A network that only ever saw damage finds some in every picture.
    """
    kind = rng.random()
    if kind < 0.4:
        return clean.copy()
    if kind < 0.7:
        return add_compression(clean, int(rng.integers(85, 100)))
    return add_coding(rng, clean, draw_coder(rng, 14, 20, only_h264=True))


_MAKERS: Mapping[str, Callable[[np.random.Generator, EightBitPixels, int], list[MadePair]]] = {
    "derain": _rain,
    "dehaze": _haze,
    "deblur": _blur,
    "lowlight": _low_light,
    "coded": _coded,
    "camera": _camera,
    "mixture": _mixture,
    "keep": _keep,
}


def _scene(rng: np.random.Generator, picture: EightBitPixels, side: int) -> Picture:
    """A square from somewhere in the picture, two times in five from a picture made smaller."""
    shorter = min(picture.shape[:2])
    taken = side
    if rng.random() < 0.4:
        taken = min(int(side / rng.uniform(0.5, 1)), shorter)
    top = int(rng.integers(picture.shape[0] - taken + 1))
    left = int(rng.integers(picture.shape[1] - taken + 1))
    square = picture[top : top + taken, left : left + taken]
    if taken != side:
        square = np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return from_uint8(square)


def _made(degraded: Picture, clean: Picture, **shares: float) -> MadePair:
    return to_uint8(degraded), to_uint8(clean), _shares(shares)


def _shares(shares: Mapping[str, float]) -> Shares:
    return tuple(float(np.clip(shares.get(name, 0.0), 0, 1)) for name in DEGRADATION_NAMES)


def _change(after: Picture, before: Picture, most: float) -> float:
    return float(np.sqrt(np.mean((after - before) ** 2))) * 255 / most


def _noise(noisy: EightBitPixels, clean: EightBitPixels) -> float:
    return noise_level(noisy, clean) / 30


def _darkness(dark: Picture, light: Picture) -> float:
    return 1 - float(dark.mean()) / max(float(light.mean()), 1e-6)


def _lost_detail(blurred: Picture, sharp: Picture) -> float:
    detail = sharp - cv2.GaussianBlur(sharp, (0, 0), 4)
    return float(np.sqrt(np.mean((blurred - sharp) ** 2))) / max(float(np.sqrt(np.mean(detail**2))), 2 / 255)
