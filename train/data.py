"""Clean pictures in, pairs of degraded and clean crops out.

Sample ``i`` of a data set depends on the seed and on ``i`` alone, so a run that stops and resumes, or
that loads with another number of workers, sees the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from measnet.errors import InputError, UsageError
from measnet.train.degradations import (
    Picture,
    add_compression,
    add_gaussian_noise,
    add_rain,
    add_sensor_noise,
    add_video_noise,
)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture as H x W x 3, uint8, RGB. Raises ``InputError`` when it cannot be read."""
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if stored is None:
        raise InputError(f"{path} is not a picture that can be read")
    return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), np.uint8)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in ``folder``, by name. Raises ``InputError`` when there is none."""
    if not folder.is_dir():
        raise InputError(f"the folder of pictures {folder} does not exist")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InputError(f"no picture in {folder} (looked for {', '.join(PICTURE_SUFFIXES)})")
    return found


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


DEGRADATIONS: dict[str, Callable[[np.random.Generator, Picture], Picture]] = {
    "denoise": degrade_by_noise,
    "derain": add_rain,
}


class DegradedCrops(Dataset[tuple[Tensor, Tensor]]):
    """``samples`` pairs (degraded, clean), each 3 x crop x crop, float32 in [0, 1].

    ``tasks`` gives each degradation its weight. Crops are flipped and turned at random.
    """

    def __init__(self, folder: Path, tasks: dict[str, float], *, crop: int, samples: int, seed: int) -> None:
        unknown = sorted(set(tasks) - set(DEGRADATIONS))
        if unknown or not tasks:
            raise UsageError(f"unknown tasks {unknown}; there are {sorted(DEGRADATIONS)}")
        pictures = [read_picture(path) for path in list_pictures(folder)]
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= crop]
        if not self.pictures:
            raise InputError(f"no picture in {folder} is as large as the crop, {crop} x {crop} pixels")
        self.names = list(tasks)
        weights = np.array([tasks[name] for name in self.names], np.float64)
        self.weights = weights / weights.sum()
        self.crop = crop
        self.samples = samples
        self.seed = seed

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        height, width = picture.shape[:2]
        top = int(rng.integers(height - self.crop + 1))
        left = int(rng.integers(width - self.crop + 1))
        crop = picture[top : top + self.crop, left : left + self.crop]
        crop = np.rot90(crop, int(rng.integers(4)))
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        clean = np.ascontiguousarray(crop, np.float32) / np.float32(255)
        task = self.names[int(rng.choice(len(self.names), p=self.weights))]
        degraded = np.rint(DEGRADATIONS[task](rng, clean) * np.float32(255)) / np.float32(255)
        return _tensor(degraded), _tensor(clean)


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))
