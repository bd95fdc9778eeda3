"""Fills a pack: clean pictures as they are and degraded in every way, real pairs, and smaller copies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.damage import DAMAGE
from measnet.errors import InputError
from measnet.image_header import read_size
from measnet.train.data.pack import CLEAN, PackedPair, PackError, PackWriter, name_in_pack
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
"""Assumed damage of stored pairs, whose strength is not known."""

WHOLE = ("dehaze", "lowlight")
"""Tasks whose damage lies over a picture as a whole: noise and blur would be less at a smaller size."""

SMALLEST = 144  # pixels: pictures of shorter sides are left out
CHUNK = 4  # jobs that a worker takes at once
RUN = 4  # frames that one run of coded video gives, on average
SECONDS = 0.05  # that a made pair takes on one core; coded video as long for all frames of a run


class Packing(NamedTuple):
    """Settings for making a pack."""

    pairs: int = 4000
    """Pairs to be made from clean pictures, over all tasks."""

    side: int = 256
    """Side of made pairs, in pixels."""

    seed: int = 0


class PackJob(NamedTuple):
    """One picture to be packed as it is, or one or more pairs to be made from it."""

    task: str
    pair: Pair
    seed: tuple[int, int]
    side: int
    real: bool


class PackPlan(NamedTuple):
    """The content of a pack to be made, and its cost."""

    jobs: tuple[PackJob, ...]

    pictures: Mapping[str, int]
    """By task: so many, about (copies made smaller not counted)."""

    size: int
    """Bytes, about."""

    seconds: float
    """Time that it takes on one core, about."""

    left_out: int
    """Pictures too small."""

    def in_words(self, workers: int) -> str:
        seconds = self.seconds / max(1, workers)
        long = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(1, round(seconds))} seconds"
        small = f"; {self.left_out} are too small and left out" if self.left_out else ""
        return (
            f"{sum(self.pictures.values())} pictures, about {self.size / 1e9:.2f} GB, {long} "
            f"on {max(1, workers)} {'cores' if workers > 1 else 'core'}{small}"
        )


def plan_pack(sets: Sequence[ImageSet], tasks: Mapping[str, float], packing: Packing) -> PackPlan:
    """Plans a pack of ``sets`` for ``tasks`` (by weight).

    Raises ``InputError`` when a picture cannot be read, or when there is nothing for a task.
    """
    large: dict[Pair, tuple[int, int]] = {}
    left_out = 0
    for images in sets:
        for pair in images.pairs:
            size = read_size(pair.clean)
            if min(size) >= SMALLEST:
                large[pair] = size
            else:
                left_out += 1
    kept = [replace(images, pairs=tuple(p for p in images.pairs if p in large)) for images in sets]
    jobs = tuple(_jobs(kept, tasks, packing))
    there = {job.task for job in jobs}
    without = [task for task in tasks if name_in_pack(task) not in there]
    if without:
        raise InputError(
            f"nothing to pack for {', '.join(without)}: give clean pictures of at least {SMALLEST} pixels a "
            "side to degrade, more --pack-pairs, or real pairs of these tasks"
        )
    pictures: Counter[str] = Counter()
    total, seconds = 0.0, 0.0
    for job in jobs:
        width, height = large[job.pair]
        made = not job.real and job.task != CLEAN
        number = RUN if made and job.task == "coded" else 1
        side = min(job.side, height, width)
        copies = 1.4 if job.task in (CLEAN, *WHOLE) and min(height, width) * 0.8 > SMALLEST else 1.0
        pixels = side * side if made else height * width * copies
        pictures[job.task] += number
        total += number * pixels * (3 if job.task == CLEAN else 6)
        seconds += SECONDS * (number if made else pixels / 1e6)
    return PackPlan(jobs, pictures, int(total), seconds, left_out)


def processors() -> int:
    """Counts the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_pack(
    plan: PackPlan,
    path: Path,
    *,
    workers: int,
    on_picture: Callable[[int, int], None] = lambda done, jobs: None,
) -> None:
    """Makes the planned pictures on ``workers`` processes and writes them to ``path``; the file appears there
    when it is whole.

    The pack is the same for the same plan, whatever the number of workers. Raises ``InputError`` when a
    picture cannot be read, ``OutputError`` when the pack cannot be written, ``PackError`` when a worker dies.
    """
    with PackWriter(path) as writer, contextlib.closing(_all_done(plan.jobs, workers)) as made:
        for done, pairs in enumerate(made, start=1):
            for pair in pairs:
                writer.add(pair)
            on_picture(done, len(plan.jobs))


def _all_done(jobs: Sequence[PackJob], workers: int) -> Generator[list[PackedPair], None, None]:
    if workers <= 1:
        yield from map(_done, jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # a copy of a process that has threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker)
    try:
        yield from pool.map(_done, jobs, chunksize=CHUNK)
    except BrokenProcessPool:
        raise PackError(
            f"one of {workers} processes that pack was ended from outside; "
            "where memory is short, give fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; one of them says so
    cv2.setNumThreads(1)


def _jobs(sets: Sequence[ImageSet], tasks: Mapping[str, float], packing: Packing) -> Iterator[PackJob]:
    clean = [pair for images in sets if images.synthetic for pair in images.pairs]
    fields = {"denoise" if task == "camera" else field_of(task) for task in tasks}
    number = 0
    if "denoise" in fields:
        for pair in clean:
            number += 1
            yield PackJob(CLEAN, pair, (packing.seed, number), packing.side, False)
    for images in sets:
        if not images.synthetic and images.task in fields:
            task = "camera" if images.task == "denoise" else images.task
            for pair in images.pairs:
                number += 1
                yield PackJob(task, pair, (packing.seed, number), packing.side, True)
    made = {task: weight for task, weight in tasks.items() if task in PACKED_TASKS}
    for index, (task, weight) in enumerate(made.items()):
        wanted = round(packing.pairs * weight / sum(made.values())) if clean else 0
        order = np.random.default_rng([packing.seed, index]).permutation(len(clean))
        for at in range(-(-wanted // (RUN if task == "coded" else 1))):
            number += 1
            pair = clean[int(order[at % len(clean)])]
            yield PackJob(task, pair, (packing.seed, number), packing.side, False)


def _done(job: PackJob) -> list[PackedPair]:
    try:
        return _made(job)
    except InputError as error:  # in a form that travels between processes
        raise InputError(str(error)) from None


def _made(job: PackJob) -> list[PackedPair]:
    rng = np.random.default_rng(job.seed)
    clean = read_picture(job.pair.clean)
    if job.task == CLEAN:
        nothing = (0.0,) * len(DAMAGE)
        return [PackedPair(CLEAN, None, copy, nothing, False) for (copy,) in _copies(rng, clean)]
    if job.pair.degraded is not None:
        field = "denoise" if job.task == "camera" else job.task
        degraded = read_picture(job.pair.degraded)
        if degraded.shape != clean.shape:
            raise InputError(f"{job.pair.degraded} and {job.pair.clean} differ in size: not a pair")
        damage = tuple(DAMAGE_OF_FIELD[field].get(name, 0.0) for name in DAMAGE)
        pairs = _copies(rng, degraded, clean) if job.task in WHOLE else [(degraded, clean)]
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
