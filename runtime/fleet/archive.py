"""An archive: the files to restore, each with the place of its result."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measnet.errors import UsageError
from measnet.image_header import IMAGE_ENDINGS, ending_of_result
from measnet.runtime.fleet.store import Place, Remote, files_below, place_of
from measnet.runtime.session import results_among
from measnet.runtime.sinks.containers import CONTAINERS, ending_of_video

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

    source: Place
    target: Place


@dataclass(frozen=True, slots=True)
class Archive:
    """Files to restore, those that have been, and how many files are neither videos nor pictures."""

    items: list[Item]
    done: list[Item]
    others: int


def find(inputs: Iterable[str], out: Place, *, overwrite: bool) -> Archive:
    """Finds what there is to restore: files as they are named, of folders all videos and pictures in them.

    A file's result is called as ``measnet-run`` would call it, and lies in ``out`` where the file lies in its
    folder. One that is there has been restored before, unless ``overwrite`` is set: results appear whole.

    Raises:
        UsageError: an input is not there or is an address but ``s3://``, or two files would have one result.
    """
    items: list[Item] = []
    others = 0
    for name in inputs:
        top = place_of(name)
        below = _files_in(top)
        if below is None:
            raise UsageError(f"{name} is neither a file nor a folder; check the name")
        if below == [top]:
            items.append(_item(top, out))
            continue
        found = [path for path in below if not path.is_relative_to(out)]
        media = [path for path in found if _is_picture(path) or _is_video(path)]
        results = results_among([str(path) for path in media])
        others += len(found) - len(media)
        items += [
            _item(path, out / path.relative_to(top).parent) for path in media if str(path) not in results
        ]
    sources: dict[Place, Place] = {}
    for item in items:
        first = sources.setdefault(item.target, item.source)
        if first is not item.source:
            raise UsageError(f"{first} and {item.source} would both become {item.target}; rename one of them")
    there = set(files_below(out)) if isinstance(out, Remote) else None
    done = [] if overwrite else [item for item in items if _is_there(item.target, there)]
    return Archive([item for item in items if item not in done], done, others)


def _is_there(target: Place, there: Container[Place] | None) -> bool:
    return target.exists() if isinstance(target, Path) else there is not None and target in there


def _files_in(top: Place) -> list[Place] | None:
    """Lists the files below ``top``, or ``top`` itself where it is a file; None where it is neither."""
    if isinstance(top, Remote):
        below = files_below(top)
        hidden = [path for path in below if not all(map(_is_of_use, path.relative_to(top).parts))]
        return [path for path in below if path not in hidden] if below else None
    if top.is_file():
        return [top]
    return list(_files_below(top)) if top.is_dir() else None


def _files_below(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(filter(_is_of_use, folders))
        for name in filter(_is_of_use, sorted(names)):
            yield Path(folder, name)


def _is_of_use(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def _item(source: Place, folder: Place) -> Item:
    ending_of = ending_of_result if _is_picture(source) else ending_of_video
    return Item(source, folder / f"{source.stem}.restored{ending_of(source.suffix)}")


def _is_picture(path: Place) -> bool:
    return path.suffix.lower() in _PICTURES


def _is_video(path: Place) -> bool:
    return path.suffix.lower() in _VIDEOS
