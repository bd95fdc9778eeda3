"""Data sets on disk in, ``ImageSet``s out: checked, whatever their layout (docs/data.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from measnet.errors import InputError, UsageError
from measnet.image_header import PictureError, read_size
from measnet.printable import printable
from measnet.train.data.folders import PUBLISHED, PictureGroup, find_groups, understood, unknown_beside
from measnet.train.data.pairing import match_names
from measnet.train.data.pictures import read_picture
from measnet.train.data.sets import CLEAN, TASKS, ImageSet, Pair

SMALLEST = 16
"""Pixels of the shorter side: the network takes multiples of 16, and evaluation cuts down to them."""

_SHOWN = 10  # problems in the message; all of them are in ``DataSetError.problems``


class DataSetError(InputError):
    """Faults of data sets, all at once.

    The message is one line with the first problems; ``problems`` has them all, a line each.
    """

    def __init__(self, root: Path, problems: list[str], sets: int) -> None:
        self.problems = problems
        listed = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        where = f"{_counted(sets, 'set')} of {printable(root)}" if sets else printable(root)
        super().__init__(f"{_counted(len(problems), 'problem')} in {where}: {listed}{more}")


def find_sets(
    root: Path,
    *,
    split: Literal["train", "test"],
    tasks: Collection[str] | None = None,
    decode: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[ImageSet]:
    """Every set that ``root`` holds, whatever its layout (docs/data.md), in order of task and name.

    Args:
        root: a folder with data sets, or the folder of one set, or of clean pictures.
        split: sets for training or for testing; a set that does not say is taken for both.
        tasks: only sets of these tasks, each of which must be there. Sets of task ``clean`` serve every task
            and come along.
        decode: decode every picture too, not its header alone, which finds damage in the middle of a file:
            seconds for most sets, minutes for RESIDE.
        tell: hears a line on folders of pictures next to those of sets, whose names say nothing.

    Raises:
        DataSetError: an ``InputError`` with every problem of every set asked for: a task without a set, a
            picture without partner, misnamed, empty, damaged, too large, smaller than ``SMALLEST``, or of
            another size than its partner.
        UsageError: ``tasks`` has one that there is not.
    """
    unknown = sorted(set(tasks or ()) - {*TASKS, CLEAN})
    if unknown:
        raise UsageError(f"no task {unknown[0]!r}; there are {', '.join(TASKS)}")
    _require_folder(root)
    places = list(find_groups(root))
    wanted = [
        place
        for place in places
        if place.split in ("", split) and (tasks is None or place.task in {*tasks, CLEAN, ""})
    ]
    sets = _read_places(root, wanted, decode, _missing_tasks(places, wanted, split, tasks))
    own = [place for place in places if place.name not in PUBLISHED]
    used = {picture.parent for place in own for picture in (*place.clean, *(place.degraded or ()))}
    if left_out := unknown_beside(used, root):
        taken = sorted({printable(folder.relative_to(root)) for folder in used if root in folder.parents})
        unknown = [printable(folder.relative_to(root)) for folder in left_out]
        tell(
            f"{printable(root)}: {', '.join(unknown[:_SHOWN])} left out, as the "
            f"name says nothing (taken: {', '.join(taken[:_SHOWN])}); folders that are understood are "
            f"{understood()}; docs/data.md has them all"
        )
    order = (*TASKS, CLEAN)
    return sorted(sets, key=lambda images: (order.index(images.task), images.name))


def read_pairs(folder: Path, task: str) -> ImageSet:
    """The pairs of ``task`` in ``folder``: degraded ones in one folder of it, clean ones in another.

    Degraded: ``input``, ``lq``, ``low``, ``hazy``, ``haze``, ``blur``, ``rainy``, ``rain``, ``noisy``. Clean:
    ``target``, ``gt``, ``high``, ``clear``, ``clean``, ``sharp``, ``norain``. Without either, the pictures in
    ``folder`` itself are a set for denoising. Raises as ``find_sets`` does.
    """
    if task not in TASKS:
        raise UsageError(f"no task {task!r}; there are {', '.join(TASKS)}")
    _require_folder(folder)
    place = next(find_groups(folder, task), None)
    if place is None or place.folder != folder:
        raise InputError(
            f"{printable(folder)} needs a folder of degraded pictures (input) and one of clean ones (target)"
        )
    return _read_places(folder, [place], decode=False, missing=[])[0]


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"the data folder {printable(folder)} {what}")


def _missing_tasks(
    places: list[PictureGroup], wanted: list[PictureGroup], split: str, tasks: Collection[str] | None
) -> list[str]:
    """Lists the tasks that were asked for and are not there, a line each."""
    there = {place.task for place in wanted}
    if CLEAN in there or (tasks is None and there):
        return []
    purpose = "training" if split == "train" else "testing"
    problems = []
    for task in sorted(tasks) if tasks else [""]:
        if task in there:
            continue
        others = sorted({printable(place.name) for place in places if task in (place.task, "")})
        hint = f"not for {purpose}: {', '.join(others)}" if others else "docs/data.md has the layouts"
        problems.append(f"no {task or 'data'} set for {purpose} ({hint})")
    return problems


def _read_places(root: Path, places: list[PictureGroup], decode: bool, missing: list[str]) -> list[ImageSet]:
    """The sets of ``places``, checked; places of the same set become one."""
    pairs: dict[tuple[str, str], list[Pair]] = {}
    problems = list(missing)
    faulty: set[str] = set()
    for place in places:
        found, wrong = _read_place(root, place, decode)
        pairs.setdefault((place.task, place.name), []).extend(found)
        problems += wrong
        faulty |= {place.name} if wrong else set()
    if problems:
        raise DataSetError(root, problems, len(faulty))
    return [ImageSet(name, task, tuple(found)) for (task, name), found in pairs.items()]


def _read_place(root: Path, place: PictureGroup, decode: bool) -> tuple[list[Pair], list[str]]:
    """The pairs of a group, and the faults of them or of the group itself."""

    def shown(path: Path) -> str:
        return printable(path.relative_to(root) if path != root else root)

    if place.problem:
        return [], [f"{shown(place.folder)} {place.problem}"]
    if place.degraded is None:
        return _checked([Pair(None, clean) for clean in place.clean], shown, decode)
    matched, misfits = match_names(place.degraded, place.clean, place.task, shown)
    if not matched and not misfits:
        return [], [f"{shown(place.folder)} holds no pictures"]
    pairs, problems = _checked([Pair(degraded, clean) for degraded, clean in matched], shown, decode)
    return pairs, [*misfits, *problems]


def _checked(pairs: list[Pair], shown: Callable[[Path], str], decode: bool) -> tuple[list[Pair], list[str]]:
    """``pairs`` as they are, and the faults of their files."""
    problems: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    paths = list(dict.fromkeys(path for pair in pairs for path in pair if path is not None))
    for path, size in zip(paths, _sizes(paths, decode), strict=True):
        if isinstance(size, PictureError):
            problems.append(f"{shown(path)} {size.reason}")
        elif min(size) < SMALLEST:
            problems.append(f"{shown(path)} is {_size(size)} pixels, smaller than {SMALLEST} x {SMALLEST}")
        else:
            sizes[path] = size
    for degraded, clean in pairs:
        if degraded in sizes and clean in sizes and sizes[degraded] != sizes[clean]:
            problems.append(
                f"{shown(degraded)} is {_size(sizes[degraded])} pixels, {shown(clean)} {_size(sizes[clean])}"
            )
    return pairs, problems


def _sizes(paths: list[Path], decode: bool) -> Iterable[tuple[int, int] | PictureError]:
    """Width and height of each picture, or why there is none."""
    if not decode:
        return map(_size_or_error, paths)
    with ThreadPoolExecutor() as threads:
        return list(threads.map(_decoded_size_or_error, paths))


def _size_or_error(path: Path) -> tuple[int, int] | PictureError:
    try:
        return read_size(path)
    except PictureError as error:
        return error


def _decoded_size_or_error(path: Path) -> tuple[int, int] | PictureError:
    try:
        height, width, _ = read_picture(path).shape
    except PictureError as error:
        return error
    return width, height


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
