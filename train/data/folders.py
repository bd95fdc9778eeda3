"""Reads from the folders of a data set which set and task the pictures belong to, and training or test.

One walk reads every layout, because all say it in the names of their folders: the authors' own
(``Train/Dehaze/{original,synthetic}``, ``test/derain/Rain100L/{input,target}``), the folders that the sets
come in (``OTS/{clear,haze}``, ``our485/{low,high}``), and a folder for each task. They are in docs/data.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from measnet.train.data.pictures import is_named_picture
from measnet.train.data.sets import CLEAN

_DEPTH = 8  # folders below the root; GoPro in the authors' layout needs five

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
_SPLITS |= dict.fromkeys(("val", "valid", "validation"), "validation")

_TASKS = {
    **dict.fromkeys(("denoise", "denoising"), "denoise"),
    **dict.fromkeys(("derain", "deraining"), "derain"),
    **dict.fromkeys(("dehaze", "dehazing"), "dehaze"),
    **dict.fromkeys(("deblur", "deblurring"), "deblur"),
    **dict.fromkeys(("lowlight", "enhance", "enhancement"), "lowlight"),
}

# Folder: name of the set, task, and what it is for where no folder around it says train or test.
_SETS = {
    "reside": ("RESIDE", "dehaze", ""),
    **dict.fromkeys(("ots", "otsbeta", "otsalpha"), ("OTS", "dehaze", "train")),
    **dict.fromkeys(("its", "itsv2"), ("ITS", "dehaze", "train")),
    "sots": ("SOTS", "dehaze", "test"),
    "rain100l": ("Rain100L", "derain", "test"),
    "rain100h": ("Rain100H", "derain", "test"),
    **dict.fromkeys(("raintrainl", "train100l", "raindatatrainlight"), ("Rain100L", "derain", "train")),
    **dict.fromkeys(("raintrainh", "train100h", "raindatatrainheavy"), ("Rain100H", "derain", "train")),
    "raindatatestlight": ("Rain100L", "derain", "test"),
    "raindatatestheavy": ("Rain100H", "derain", "test"),
    **dict.fromkeys(("bsd400", "cbsd400"), ("BSD400", "denoise", "train")),
    **dict.fromkeys(("wed", "waterlooed", "explorationdatabaseandcode"), ("WED", "denoise", "train")),
    "bsd68": ("BSD68", "denoise", "test"),
    "cbsd68": ("CBSD68", "denoise", "test"),
    **dict.fromkeys(("kodak24", "kodak"), ("Kodak24", "denoise", "test")),
    "urban100": ("Urban100", "denoise", "test"),
    "mcmaster": ("McMaster", "denoise", "test"),
    **dict.fromkeys(("gopro", "goprolarge"), ("GoPro", "deblur", "")),
    **dict.fromkeys(("lol", "lolv1", "loldataset"), ("LOL", "lowlight", "")),
    "our485": ("LOL", "lowlight", "train"),
    "eval15": ("LOL", "lowlight", "test"),
}

PUBLISHED = frozenset(name for name, _, _ in _SETS.values())
"""The names of sets whose folders are known; what else lies in them is not meant."""

# Folder of degraded pictures: the task, where the name alone gives it away. The first of them is taken: of
# GoPro's two kinds, blur, which MPRNet and all after it were measured on, not blur_gamma.
_DEGRADED = {
    **dict.fromkeys(("input", "inputs", "lq", "synthetic", "degraded"), ""),
    "low": "lowlight",
    **dict.fromkeys(("hazy", "haze"), "dehaze"),
    **dict.fromkeys(("blur", "blurgamma"), "deblur"),
    **dict.fromkeys(("rainy", "rain"), "derain"),
    "noisy": "denoise",
}
_CLEAN = ("target", "targets", "gt", "high", "clear", "clean", "sharp", "norain", "original")
_CLEAN_OF_DENOISE = (*_CLEAN, "originalpng", "hr", "hq", "pristineimages")
_NOT_CLEAN = ("noisy", "lr")  # how folders begin that lie beside clean ones: CBSD68's noisy25, LR_bicubic


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that the folders say belong together."""

    folder: Path
    name: str
    task: str
    """One of the five, ``CLEAN``, or nothing when ``problem`` says why not."""
    split: str
    """``train``, ``test``, ``validation``, or nothing: good for either."""
    clean: tuple[Path, ...] = ()
    degraded: tuple[Path, ...] | None = None
    """``None``: to be made from the clean ones."""
    problem: str = ""
    """The fault of the folder itself; empty where there is none."""


def find_groups(root: Path, task: str = "") -> Iterator[PictureGroup]:
    """Every place below ``root`` that holds pictures of a data set, in order of the folders' names.

    The name of ``root`` itself may be that of a set or of a task, but it does not say train or test: a folder
    that is asked for by name is meant. ``task`` says the task where no folder does.
    """
    meaning = replace(_enter(_Meaning(), root.resolve().name), split="", usual="")
    if task:
        meaning = replace(meaning, task=task)
    yield from _walk(root, replace(meaning, name=meaning.name or root.resolve().name), (root.resolve(),))


@dataclass(frozen=True)
class _Meaning:
    """The facts told by the folders down to here."""

    name: str = ""
    known: bool = False  # the name is that of a published set
    task: str = ""
    split: str = ""
    usual: str = ""  # the split of the set where no folder says one


def _enter(meaning: _Meaning, folder: str) -> _Meaning:
    key = _key(folder)
    if key in _SPLITS:
        return replace(meaning, split=_SPLITS[key])
    if key in _TASKS:
        return replace(meaning, task=_TASKS[key], name=meaning.name if meaning.known else folder)
    if key in _SETS:
        name, task, usual = _SETS[key]
        return replace(meaning, name=name, known=True, task=meaning.task or task, usual=usual)
    if meaning.name == "SOTS" and key in ("indoor", "nyuhaze500", "outdoor"):
        return replace(meaning, name="SOTS outdoor" if key == "outdoor" else "SOTS indoor")
    return meaning if meaning.known else replace(meaning, name=folder)


def _walk(folder: Path, meaning: _Meaning, above: tuple[Path, ...]) -> Iterator[PictureGroup]:
    """``above``: the real folders from the root to ``folder``, so that no link leads round in circles."""
    try:
        inside = _Inside(folder)
        place = _place_here(inside, meaning, is_root=len(above) == 1)
    except OSError as error:
        if meaning.task:
            yield _place(folder, meaning, problem=f"cannot be read: {error.strerror}")
        return
    if place:
        yield place
        if place.problem or place.degraded is not None or meaning.known:
            return
    for child in inside.folders:
        real = child.resolve()
        left_out = place is not None and place.folder == child
        left_out |= meaning.task == "denoise" and _key(child).startswith(_NOT_CLEAN)
        if not left_out and real not in above and len(above) <= _DEPTH:
            yield from _walk(child, _enter(meaning, child.name), (*above, real))


def _place_here(inside: _Inside, meaning: _Meaning, is_root: bool) -> PictureGroup | None:
    degraded, clean = inside.first(_DEGRADED), inside.first(_CLEAN)
    if meaning.known and degraded and _key(degraded) == "noisy":
        degraded = None  # to published pictures noise is added
    if degraded and clean:
        task = meaning.task or _DEGRADED[_key(degraded)]
        return _pairs(inside.folder, meaning, task, _all_pictures(degraded), _all_pictures(clean))
    if meaning.task in ("", "derain") and inside.called("norain") and (degraded or inside.called("rain")):
        # The clean pictures beside the rainy ones (RainTrainL), or beside their folder (Rain100L).
        rainy = _all_pictures(degraded) if degraded else inside.called("rain")
        return _pairs(inside.folder, meaning, "derain", rainy, inside.called("norain"))
    if meaning.task == "denoise":
        inner = inside.first(_CLEAN_OF_DENOISE)
        if inside.pictures or inner is None:
            return _place(inside.folder, meaning, clean=inside.pictures) if inside.pictures else None
        return _place(inner, meaning, clean=_all_pictures(inner))
    if meaning.task and (degraded or clean or (inside.pictures and not inside.folders)):
        return _place(inside.folder, meaning, problem=_INCOMPLETE)
    if not meaning.task and inside.pictures and (is_root or _key(inside.folder) in _SPLITS):
        return replace(_place(inside.folder, meaning, clean=inside.pictures), task=CLEAN)
    if not meaning.task and clean and _key(clean) == "clean":
        return replace(_place(clean, _enter(meaning, clean.name), clean=_all_pictures(clean)), task=CLEAN)
    return None


_INCOMPLETE = "needs a folder of degraded pictures (input) and one of clean ones (target), side by side"
_NO_TASK = "holds pairs, but no folder is called after their task (denoise, derain, dehaze, deblur, lowlight)"


def _pairs(
    folder: Path, meaning: _Meaning, task: str, degraded: list[Path], clean: list[Path]
) -> PictureGroup:
    problem = "" if task else _NO_TASK
    return replace(_place(folder, meaning, degraded=degraded, clean=clean, problem=problem), task=task)


def _place(
    folder: Path,
    meaning: _Meaning,
    *,
    degraded: list[Path] | None = None,
    clean: Sequence[Path] = (),
    problem: str = "",
) -> PictureGroup:
    split = meaning.split or meaning.usual
    stored = None if degraded is None else tuple(degraded)
    return PictureGroup(folder, meaning.name, meaning.task, split, tuple(clean), stored, problem)


class _Inside:
    """Files and folders directly in a folder, by name, without hidden and junk ones. Raises ``OSError``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entries = sorted(
            path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX", "@"))
        )
        self.folders = [path for path in entries if path.is_dir()]
        self.pictures = [path for path in entries if is_named_picture(path)]

    def first(self, keys: Iterable[str]) -> Path | None:
        """The folder called like the earliest of ``keys``."""
        by_key = {_key(path): path for path in reversed(self.folders)}
        return next((by_key[key] for key in keys if key in by_key), None)

    def called(self, start: str) -> list[Path]:
        """The pictures called ``start``-something, as ``rain-001.png``."""
        return [path for path in self.pictures if path.name.lower().startswith(f"{start}-")]


def unknown_beside(used: Iterable[Path], root: Path) -> list[Path]:
    """The folders of pictures, below ``root``, that lie beside those ``used`` and whose names say nothing."""
    taken = {folder for path in used for folder in (path, *path.parents)}
    found = {
        child
        for folder in {path.parent for path in taken if root in path.parents}
        for child in _Inside(folder).folders
        if child not in taken and not _means_something(child) and _Inside(child).pictures
    }
    return sorted(found)


def _means_something(folder: Path) -> bool:
    key = _key(folder)
    named = key in _SPLITS or key in _TASKS or key in _SETS or key in _DEGRADED or key in _CLEAN_OF_DENOISE
    return named or key.startswith(_NOT_CLEAN)


def understood() -> str:
    """The names of folders of degraded pictures, and of clean ones."""
    return f"degraded: {', '.join(_DEGRADED)}; clean: {', '.join(_CLEAN)}"


def _all_pictures(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The pictures in ``folder`` and in the folders in it: RESIDE's come in parts."""
    real = folder.resolve()
    if real in above or len(above) > _DEPTH:
        return []
    inside = _Inside(folder)
    deeper = (_all_pictures(child, (*above, real)) for child in inside.folders)
    return [*inside.pictures, *chain.from_iterable(deeper)]


def _key(folder: Path | str) -> str:
    """A folder's name without case and signs: ``GOPRO_Large`` and ``GoPro-Large`` are the same."""
    return re.sub(r"[\W_]", "", (folder if isinstance(folder, str) else folder.name).lower())
