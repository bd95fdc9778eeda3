"""Fills a pack: clean pictures as they are and degraded in every way, real pairs, and smaller copies."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.damage import DAMAGE
from measnet.errors import InputError
from measnet.train.data.pack import CLEAN, PackedPair, PackWriter
from measnet.train.data.pictures import read_picture
from measnet.train.data.sets import ImageSet, Pair
from measnet.train.degradations import PACKED_TASKS, field_of, make_pairs

DAMAGE_OF_FIELD: Mapping[str, Mapping[str, float]] = {
    "denoise": {"noise": 1.0},
    "derain": {"rain": 1.0},
    "dehaze": {"haze": 1.0},
    "deblur": {"blur": 1.0},
    "lowlight": {"dark": 0.8, "noise": 0.2},
}
"""Damage of stored pairs, of which nobody says how strong it is."""

SMALLEST = 144  # pixels: pictures of shorter sides are left out
CHUNK = 4  # jobs that a worker takes at once


class Packing(NamedTuple):
    """How a pack is made."""

    pairs: int = 4000
    """Pairs to be made from clean pictures, over all tasks."""

    side: int = 256
    """Of made pairs, in pixels."""

    seed: int = 0


class _Job(NamedTuple):
    task: str
    pair: Pair
    seed: tuple[int, int]
    side: int
    real: bool


def fill_pack(
    sets: Sequence[ImageSet],
    tasks: Mapping[str, float],
    packing: Packing,
    *,
    workers: int,
    on_picture: Callable[[int, int], None] = lambda done, jobs: None,
) -> PackWriter:
    """Degrades the pictures of ``sets`` for ``tasks`` (by weight) on so many processes.

    The pack is the same for the same arguments, whatever the number of workers. Raises ``InputError`` when a
    picture cannot be read, or when nothing was found.
    """
    jobs = list(_jobs(sets, tasks, packing))
    writer = PackWriter()
    with multiprocessing.get_context("spawn" if workers > 1 else None).Pool(max(1, workers)) as pool:
        for done, pairs in enumerate(pool.imap(_done, jobs, CHUNK), start=1):
            for pair in pairs:
                writer.add(pair)
            on_picture(done, len(jobs))
    if not writer.size:
        raise InputError(f"nothing to pack: no picture of at least {SMALLEST} pixels a side")
    return writer


def _jobs(sets: Sequence[ImageSet], tasks: Mapping[str, float], packing: Packing) -> Iterator[_Job]:
    clean = [pair for images in sets if images.synthetic for pair in images.pairs]
    number = 0
    if any(field_of(task) == "denoise" for task in tasks):
        for pair in clean:
            number += 1
            yield _Job(CLEAN, pair, (packing.seed, number), packing.side, False)
    for images in sets:
        if not images.synthetic and images.task in {field_of(task) for task in tasks}:
            task = "camera" if images.task == "denoise" else images.task
            for pair in images.pairs:
                number += 1
                yield _Job(task, pair, (packing.seed, number), packing.side, True)
    made = {task: weight for task, weight in tasks.items() if task in PACKED_TASKS}
    order = np.random.default_rng([packing.seed, 1])
    for task, weight in made.items():
        wanted = round(packing.pairs * weight / sum(made.values())) if clean else 0
        per_job = 4 if task == "coded" else 1
        for at in range(-(-wanted // per_job)):
            number += 1
            pair = clean[int(order.integers(len(clean)))] if at >= len(clean) else clean[at]
            yield _Job(task, pair, (packing.seed, number), packing.side, False)


def _done(job: _Job) -> list[PackedPair]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(job.seed)
    clean = read_picture(job.pair.clean)
    if min(clean.shape[:2]) < SMALLEST:
        return []
    if job.task == CLEAN:
        nothing = (0.0,) * len(DAMAGE)
        return [PackedPair(CLEAN, None, copy, nothing, False) for (copy,) in _copies(rng, clean)]
    if job.pair.degraded is not None:
        field = "denoise" if job.task == "camera" else job.task
        degraded = read_picture(job.pair.degraded)
        if degraded.shape != clean.shape:
            raise InputError(f"{job.pair.degraded} and {job.pair.clean} differ in size: not a pair")
        damage = tuple(DAMAGE_OF_FIELD[field].get(name, 0.0) for name in DAMAGE)
        # Haze and darkness lie over a picture as a whole; noise and blur would be less at a smaller size.
        whole = job.task in ("dehaze", "lowlight")
        pairs = _copies(rng, degraded, clean) if whole else [(degraded, clean)]
        return [PackedPair(job.task, bad, good, damage, True) for bad, good in pairs]
    return [
        PackedPair(job.task, bad, good, damage, False)
        for bad, good, damage in make_pairs(rng, job.task, clean, job.side)
    ]


def _copies(rng: np.random.Generator, *pictures: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], ...]]:
    """The pictures as they are, and once made smaller, where that leaves enough of them."""
    shortest = min(pictures[0].shape[:2])
    least = SMALLEST / shortest
    if least > 0.8:
        return [pictures]
    share = rng.uniform(max(least, 0.4), 0.8)
    smaller = partial(cv2.resize, dsize=None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return [pictures, tuple(np.asarray(smaller(picture), np.uint8) for picture in pictures)]


def pack_once(path: Path, fill: Callable[[], PackWriter]) -> None:
    """Writes the pack unless it is there."""
    if not path.exists():
        fill().write(path)
