"""An archive: the files to restore, each with the place of its result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measnet.errors import UsageError
from measnet.image_header import IMAGE_ENDINGS, ending_of_result
from measnet.runtime.live.address import shown
from measnet.runtime.session import results_among
from measnet.runtime.sinks.containers import CONTAINERS, FALLBACK_ENDING

_PICTURES = frozenset(
    {
        *(*IMAGE_ENDINGS, ".jfif", ".jpe", ".mpo", ".avif", ".heic", ".heif", ".gif", ".jp2", ".qoi", ".ico"),
        *(".ppm", ".pgm", ".pnm"),
    }
)
_VIDEOS = frozenset(
    {
        *(
            *CONTAINERS,
            ".wmv",
            ".asf",
            ".flv",
            ".f4v",
            ".ts",
            ".mts",
            ".m2ts",
            ".mpg",
            ".mpeg",
            ".vob",
            ".3gp",
        ),
        *(".3g2", ".ogv", ".mxf", ".y4m", ".rm", ".rmvb", ".dv", ".mjpg", ".mjpeg", ".264", ".h264", ".265"),
        ".hevc",
    }
)
"""Endings of videos as archives have them; a file of another one is restored where it is named itself."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file to restore. Paths are absolute: every machine is to see them under these names."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Archive:
    """Files to restore, those that have been, and how many files are neither videos nor pictures."""

    items: list[Item]
    done: list[Item]
    others: int


def find(inputs: Iterable[str], out: Path, *, overwrite: bool) -> Archive:
    """Finds what there is to restore: files as they are named, of folders all videos and pictures in them.

    A file's result is called as ``measnet-run`` would call it, and lies in ``out`` where the file lies in its
    folder. One that is there has been restored before, unless ``overwrite`` is set: results appear whole.

    Raises:
        UsageError: an input is not there or is an address (``s3://``), or two files would have one result.
    """
    items: list[Item] = []
    others = 0
    for name in inputs:
        refuse_address(name)
        top = Path(name).resolve()
        if top.is_file():
            items.append(_item(top, out))
            continue
        if not top.is_dir():
            raise UsageError(f"{name} is neither a file nor a folder; check the name")
        found = [path for path in _files_below(top) if not path.is_relative_to(out)]
        media = [path for path in found if _is_picture(path) or _is_video(path)]
        results = results_among([str(path) for path in media])
        others += len(found) - len(media)
        items += [
            _item(path, out / path.relative_to(top).parent) for path in media if str(path) not in results
        ]
    sources: dict[Path, Path] = {}
    for item in items:
        first = sources.setdefault(item.target, item.source)
        if first is not item.source:
            raise UsageError(f"{first} and {item.source} would both become {item.target}; rename one of them")
    done = [] if overwrite else [item for item in items if item.target.exists()]
    return Archive([item for item in items if item not in done], done, others)


def refuse_address(name: str) -> None:
    """Raises UsageError for what is no place in the file system."""
    if "://" in name:
        raise UsageError(
            f"{shown(name)} is an address, and --ray reads and writes folders; mount the store as one"
        )


def _files_below(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not name.endswith(".part")
        )
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".part"):
                yield Path(folder, name)


def _item(source: Path, folder: Path) -> Item:
    ending = source.suffix
    if _is_picture(source):
        ending = ending_of_result(ending)
    elif ending.lower() not in CONTAINERS:
        ending = FALLBACK_ENDING
    return Item(source, folder / f"{source.stem}.restored{ending}")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in _VIDEOS
