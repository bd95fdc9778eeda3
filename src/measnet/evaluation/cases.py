"""Pairs of degraded and true pictures to measure, from picture sets and from videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from measnet.errors import InputError, UsageError, first_line
from measnet.evaluation.protocol import Protocol, add_noise
from measnet.file_name import for_ffmpeg
from measnet.image import Pixels
from measnet.train.data.pictures import read_picture
from measnet.train.data.sets import CLEAN, ImageSet, Pair

PAPER_ORDER = ("dehaze", "derain", "denoise", "deblur", "lowlight")


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


@dataclass(frozen=True)
class VideoCases:
    """The frames of a degraded video and of the same video without the harm."""

    degraded: Path
    clean: Path
    task: str
    limit: int | None = None
    sigma: None = None

    @property
    def name(self) -> str:
        return self.degraded.name

    @property
    def title(self) -> str:
        return self.name

    def __len__(self) -> int:
        """Frames as the file declares them; 0 when it does not say."""
        with _open(self.degraded) as container:
            declared = container.streams.video[0].frames
        return min(declared, self.limit or declared)

    def read(self, protocol: Protocol, seed: int) -> Iterator[Case]:
        """Raises ``InputError`` when one is no video, or the two differ in size or in length."""
        frames = zip(_frames(self.degraded), _frames(self.clean), strict=True)
        try:
            for number, (degraded, clean) in enumerate(frames):
                if number == self.limit:
                    return
                if degraded.shape != clean.shape:
                    raise InputError(
                        f"{self.degraded} has {_size(degraded)} pixels and {self.clean} {_size(clean)}: "
                        "not the same video"
                    )
                yield Case(f"frame {number}", protocol.cut(degraded), protocol.cut(clean))
        except ValueError:
            raise InputError(f"{self.degraded} and {self.clean} have not the same number of frames") from None


Cases = PictureCases | VideoCases


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


def _frames(path: Path) -> Iterator[Pixels]:
    with _open(path) as container:
        try:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        except av.FFmpegError as error:
            raise InputError(f"{path} cannot be decoded: {first_line(error)}") from None


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(for_ffmpeg(path))
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video: {first_line(error)}") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path} has no picture")
    return container


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
