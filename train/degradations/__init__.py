"""Makes degraded pictures from clean ones: the degradations of the five tasks, by name, and pairs of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from measnet.train.degradations.blur import add_blur
from measnet.train.degradations.haze import add_haze
from measnet.train.degradations.low_light import add_low_light
from measnet.train.degradations.noise import (
    add_compression,
    add_gaussian_noise,
    add_published_noise,
    add_sensor_noise,
    add_video_noise,
)
from measnet.train.degradations.pairs import (
    DEGRADATION_NAMES,
    PACKED_TASKS,
    degrade_mixture,
    leave_alone,
    make_pairs,
)
from measnet.train.degradations.picture import Picture
from measnet.train.degradations.rain import add_rain

__all__ = [
    "DEGRADATIONS",
    "DEGRADATION_NAMES",
    "PACKED_TASKS",
    "Degradation",
    "add_blur",
    "add_compression",
    "add_gaussian_noise",
    "add_haze",
    "add_low_light",
    "add_published_noise",
    "add_rain",
    "add_sensor_noise",
    "add_video_noise",
    "degrade_by_noise",
    "degrade_mixture",
    "field_of",
    "leave_alone",
    "make_pairs",
]

Degradation = Callable[[np.random.Generator, Picture], Picture]


def degrade_by_noise(rng: np.random.Generator, clean: Picture) -> Picture:
    """Noise as benchmarks add it (half of the time), as sensors make it, and as video carries it."""
    kind = rng.random()
    if kind < 0.5:
        return add_gaussian_noise(rng, clean, sigma=rng.uniform(2, 58))
    if kind < 0.75:
        shot = float(np.exp(rng.uniform(np.log(1e-4), np.log(2e-2))))
        read = float(np.exp(rng.uniform(np.log(2e-3), np.log(0.14))))
        noisy = add_sensor_noise(rng, clean, shot=shot, read=read, grain=rng.uniform(0, 1.0))
    else:
        luma = rng.uniform(2, 45)
        noisy = add_video_noise(rng, clean, luma=luma, chroma=luma * rng.uniform(0.2, 1.0))
    return add_compression(noisy, int(rng.integers(55, 98))) if rng.random() < 0.75 else noisy


DEGRADATIONS: dict[str, Degradation] = {
    "denoise": degrade_by_noise,
    "denoise15": lambda rng, clean: add_published_noise(rng, clean, 15),
    "denoise25": lambda rng, clean: add_published_noise(rng, clean, 25),
    "denoise50": lambda rng, clean: add_published_noise(rng, clean, 50),
    "derain": add_rain,
    "dehaze": add_haze,
    "deblur": add_blur,
    "lowlight": add_low_light,
    "keep": leave_alone,
}
"""The degradation of each task. ``denoise15``, ``25`` and ``50`` are the published protocol's; ``denoise`` is
wider. ``keep`` is not in the paper: undamaged pictures, which a network must learn to leave as they are."""


def field_of(task: str) -> str:
    """The task without its sigma: ``denoise15`` is ``denoise``."""
    return task.rstrip("0123456789")
