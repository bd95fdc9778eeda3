"""Pairs of degraded and clean crops, drawn from data sets by chance or in epochs.

Sample ``i`` depends on the seed and on ``i`` alone, so a run that stops and resumes, or that loads with
another number of workers or on several machines, sees the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from measnet.errors import InputError
from measnet.image import EightBitPixels
from measnet.image_header import read_size
from measnet.train.data.pictures import PictureStore
from measnet.train.data.sets import ImageSet, Pair
from measnet.train.degradations import DEGRADATIONS, make_pairs
from measnet.train.degradations.picture import Picture, with_less_contrast

BLUR_MARGIN = 16  # pixels around a crop, so that what blurs into it is the picture and not its mirror


class Augmentation(NamedTuple):
    """Variations of a crop other than its place."""

    turns: int = 8
    """Number of the eight flips and quarter turns that may be drawn; 7 leaves out the untouched crop, as
    released."""

    zoom: float = 0.0
    """Share of synthetic samples whose picture is first made smaller, down to half."""

    zoom_pairs: float = 0.0
    """Share of samples from real pairs that are first made smaller, down to the whole picture in a crop. For
    what degrades a picture as a whole (haze, low light) and not pixel by pixel."""

    dim: float = 0.0
    """Real low-light pictures are darkened by a random share up to this one."""

    plain: float = 0.0
    """Share of ``keep`` samples that are shown enlarged, down to a quarter of the crop, and of which
    half lose contrast: asphalt, walls and skies, which are no haze."""


@dataclass(frozen=True)
class Draw:
    """A data set and how often it is drawn."""

    images: ImageSet

    task: str
    """The task of its samples: a key of ``DEGRADATIONS``, or one of ``PACKED_TASKS``, which make the degraded
    pictures that are not stored."""

    weight: float
    """By chance: its share of the samples, over the sum of all. In epochs: how often one holds each
    picture."""


class TrainingCrops(Dataset[tuple[Tensor, Tensor, int]]):
    """``samples`` triples of degraded and clean, each 3 x crop x crop, float32 in [0, 1], and the draw's
    number.

    With ``epochs``, every ``len(order)`` samples hold each picture as often as its draw says, shuffled anew
    each time; without, each sample draws by weight. Raises ``InputError`` when a set has no picture as large
    as the crop.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        *,
        crop: int,
        samples: int,
        seed: int,
        epochs: bool = False,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - immutable
    ) -> None:
        self.store = PictureStore(
            [path for draw in draws for pair in draw.images.pairs for path in pair if path is not None]
        )
        self.draws = draws
        self.pairs = [self._large_enough(draw.images, crop) for draw in draws]
        self.shares = np.cumsum([draw.weight for draw in draws]) / sum(draw.weight for draw in draws)
        self.order = self._one_epoch() if epochs else None  # E 2: draw, picture
        self.crop = crop
        self.samples = samples
        self.seed = seed
        self.augmentation = augmentation
        self._shuffled = (-1, np.empty(0, np.int64))  # the epoch at hand and its order, kept for speed alone

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        rng = np.random.default_rng([self.seed, index])
        number, pair = self._choose(rng, index)
        draw = self.draws[number]
        if pair.degraded is None:
            degraded, clean = self._synthetic(rng, pair, draw.task)
        else:
            degraded, clean = self._stored(rng, pair, draw.task)
        turn = int(rng.integers(8 - self.augmentation.turns, 8))
        return _tensor(_turned(degraded, turn)), _tensor(_turned(clean, turn)), number

    def only(self, draws: Sequence[Draw], samples: int) -> TrainingCrops:
        """Other samples, drawn by chance from ``draws`` alone."""
        return TrainingCrops(
            draws, crop=self.crop, samples=samples, seed=self.seed + 1, augmentation=self.augmentation
        )

    def _choose(self, rng: np.random.Generator, index: int) -> tuple[int, Pair]:
        if self.order is None:
            number = int(np.searchsorted(self.shares, rng.random(), side="right"))
            number = min(number, len(self.draws) - 1)
            return number, self.pairs[number][int(rng.integers(len(self.pairs[number])))]
        epoch, place = divmod(index, len(self.order))
        if self._shuffled[0] != epoch:
            shuffle = np.random.default_rng([self.seed, epoch, 1])
            self._shuffled = (epoch, shuffle.permutation(len(self.order)))
        number, picture = self.order[self._shuffled[1][place]]
        return int(number), self.pairs[number][picture]

    def _one_epoch(self) -> NDArray[np.int64]:
        parts = [
            np.stack([np.full(len(pairs), number), np.arange(len(pairs))], axis=1).repeat(
                round(draw.weight), 0
            )
            for number, (draw, pairs) in enumerate(zip(self.draws, self.pairs, strict=True))
        ]
        return np.concatenate(parts)

    def _synthetic(self, rng: np.random.Generator, pair: Pair, task: str) -> tuple[Picture, Picture]:
        picture = self.store[pair.clean]
        if task not in DEGRADATIONS:  # made by a whole camera, which gives several pairs: the first
            bad, good, _ = make_pairs(rng, task, picture, self.crop)[0]
            return bad.astype(np.float32) / np.float32(255), good.astype(np.float32) / np.float32(255)
        degrade = DEGRADATIONS[task]
        margin = BLUR_MARGIN if degrade is DEGRADATIONS["deblur"] else 0
        margin = min(margin, (min(picture.shape[:2]) - self.crop) // 2)
        side = self.crop + 2 * margin
        taken = side
        if rng.random() < self.augmentation.zoom:
            taken = int(side * rng.uniform(1, min(2, max(1, min(picture.shape[:2]) / side))))
        plain = degrade is DEGRADATIONS["keep"] and rng.random() < self.augmentation.plain
        if plain:
            taken = int(side * rng.uniform(0.25, 1))
        clean = _cut(picture, _place(rng, picture, taken), taken)
        whole = _resized(clean, side).astype(np.float32) / np.float32(255)
        if plain and rng.random() < 0.5:
            whole = np.rint(with_less_contrast(rng, whole) * np.float32(255)) / np.float32(255)
        degraded = np.rint(degrade(rng, whole) * np.float32(255)) / np.float32(255)
        inner = slice(margin, margin + self.crop)
        return degraded[inner, inner], whole[inner, inner]

    def _stored(self, rng: np.random.Generator, pair: Pair, task: str) -> tuple[Picture, Picture]:
        assert pair.degraded is not None
        degraded, clean = self.store[pair.degraded], self.store[pair.clean]
        if degraded.shape != clean.shape:
            raise InputError(
                f"{pair.degraded} is {_size(degraded)} pixels and {pair.clean} is {_size(clean)}: not a pair"
            )
        taken = self.crop
        if task in ("dehaze", "lowlight") and rng.random() < self.augmentation.zoom_pairs:
            taken = int(rng.integers(self.crop, min(clean.shape[:2]) + 1))
        place = _place(rng, clean, taken)
        source, target = (_resized(_cut(side, place, taken), self.crop) for side in (degraded, clean))
        if task == "lowlight" and self.augmentation.dim:
            source = np.rint(source * np.float32(1 - rng.uniform(0, self.augmentation.dim)))
        return source.astype(np.float32) / np.float32(255), target.astype(np.float32) / np.float32(255)

    def _large_enough(self, images: ImageSet, crop: int) -> list[Pair]:
        kept = [pair for pair in images.pairs if min(read_size(pair.clean)) >= crop]
        if not kept:
            raise InputError(f"no picture of {images.name} is as large as the crop, {crop} x {crop} pixels")
        return kept


def _place(rng: np.random.Generator, picture: EightBitPixels, side: int) -> tuple[int, int]:
    height, width = picture.shape[:2]
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))


def _cut(picture: EightBitPixels, place: tuple[int, int], side: int) -> EightBitPixels:
    top, left = place
    return picture[top : top + side, left : left + side]


def _resized(picture: EightBitPixels, side: int) -> EightBitPixels:
    if picture.shape[0] == side:
        return picture
    way = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=way), np.uint8)


def _turned(picture: Picture, turn: int) -> Picture:
    """One of the eight flips and quarter turns; 0 leaves the picture as it is."""
    picture = np.rot90(picture, turn % 4)
    return picture[:, ::-1] if turn >= 4 else picture


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32))
