"""Pairs of degraded and true pictures to measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from measnet.errors import InputError, UsageError
from measnet.evaluation.protocol import Protocol, add_noise
from measnet.image import Pixels
from measnet.train.data.pictures import read_picture
from measnet.train.data.sets import CLEAN, ImageSet, Pair


class Case(NamedTuple):
    """One picture to be judged; both are H W 3, uint8, RGB, of one shape."""

    name: str
    degraded: Pixels
    clean: Pixels


@dataclass(frozen=True)
class PictureCases:
    """The pictures of one set, noised where ``sigma`` says so."""

    name: str
    task: str
    sigma: int | None
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        return self.name if self.sigma is None else f"{self.name} σ{self.sigma}"

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, protocol: Protocol, seed: int) -> Iterator[Case]:
        """Raises ``InputError`` for a picture that cannot be read and for a pair of two sizes."""
        for pair in self.pairs:
            whole = read_picture(pair.clean)
            clean = protocol.cut(whole)
            if pair.degraded is None:
                assert self.sigma is not None
                degraded = add_noise(clean, sigma=self.sigma, seed=seed, name=pair.clean.stem)
                yield Case(pair.clean.name, degraded, clean)
                continue
            stored = read_picture(pair.degraded)
            if stored.shape != whole.shape:
                raise InputError(
                    f"{pair.degraded} has {_size(stored)} pixels and {pair.clean} {_size(whole)}: not a pair"
                )
            yield Case(pair.degraded.name, protocol.cut(stored), clean)


def cases_of(images: ImageSet, sigmas: Sequence[int], limit: int | None) -> list[PictureCases]:
    """A set as it is measured: once, or once per sigma when its pictures are clean and have to be noised.

    ``limit`` keeps the first so many pictures. Raises ``UsageError`` for a set whose degraded pictures are
    not stored and cannot be made by adding noise.
    """
    pairs = images.pairs[:limit]
    task = "denoise" if images.task == CLEAN else images.task
    if not images.synthetic:
        return [PictureCases(images.name, task, None, pairs)]
    if task != "denoise":
        raise UsageError(
            f"the set {images.name} ({task}) has clean pictures alone: only noise is added for measuring"
        )
    once = PictureCases(images.name, task, None, pairs)
    return [replace(once, sigma=sigma) for sigma in sigmas]


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
