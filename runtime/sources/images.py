"""Images: one file, or all of a folder in order of their names."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from measnet.errors import InputError, MissingPackageError, UsageError
from measnet.image_header import (
    IMAGE_ENDINGS,
    PictureError,
    check_is_picture,
    check_single,
    read_header,
    result_name,
)
from measnet.runtime.frame import Frame, Picture, PictureMetadata, StreamInfo
from measnet.runtime.sources import Source
from measnet.runtime.sources.limits import check_memory, check_size
from measnet.runtime.sources.picture_file import Values, pixels_of, read_metadata

_OF_FILE_MANAGERS = ("Thumbs.db", "desktop.ini")


class Images(Source):
    """Frames from image files; the file's number in the folder stands for its time.

    Args:
        path: a file, or a folder of which every image directly in it is taken.

    Raises:
        InputError: missing, not readable, no images in the folder, or (for a single file)
            not an image.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._skipped: frozenset[str] = frozenset()
        self._single = not path.is_dir()
        self.paths, said = ([path], []) if self._single else _images_in(path)
        self.warnings += said
        # A single file is decoded at once, so that a bad one is refused before any work.
        self._first = _load(path, self.warnings) if self._single else None
        height, width = self._first.values.shape[:2] if self._first else (0, 0)
        self.info = StreamInfo(
            name=str(path),
            kind="images",
            width=width,
            height=height,
            time_base=Fraction(1),
            frames=len(self.paths),
            bits=self._first.values.itemsize * 8 if self._first else 8,
        )

    def skip(self, frames: int, names: frozenset[str]) -> None:
        """See Source.skip."""
        self._skipped = names

    def read(self) -> Iterator[Frame]:
        """See Source.read. In a folder a damaged image is counted and left out."""
        for number, path in enumerate(self.paths):
            if path.name in self._skipped:
                continue
            try:
                loaded = self._first or _load(path, self.warnings)
            except (InputError, MissingPackageError) as error:
                self.damaged += 1
                self.warnings.append(f"left out: {error}")
                continue
            self._first = None
            yield loaded.frame(number)
        if self.damaged == len(self.paths):
            raise InputError(
                f"none of the {self.damaged} images of {self.info.name} could be read; the first "
                f"is {next(line for line in self.warnings if line.startswith('left out: '))}"
            )


class _Loaded:
    """An image as it lies in its file: ``values`` is uint8 or uint16, H×W×1..4: grey or RGB, then alpha."""

    def __init__(self, path: Path, values: Values, metadata: PictureMetadata) -> None:
        self.values = values
        self._path = path
        self._metadata = metadata

    def frame(self, number: int) -> Frame:
        channels = self.values.shape[2]
        grey = channels <= 2
        colours = self.values[:, :, :1].repeat(3, axis=2) if grey else self.values[:, :, :3]
        alpha = self.values[:, :, -1] if channels in (2, 4) else None
        return Frame(
            pixels=np.ascontiguousarray(colours),
            pts=number,
            time_base=Fraction(1),
            picture=Picture(self._path, alpha, grey, self._metadata),
        )


def _load(path: Path, warnings: list[str]) -> _Loaded:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its name") from None
    image = read_header(path, data)
    check_size(str(path), image.width, image.height)
    check_memory(str(path), image.width, image.height)
    check_single(path, image, data)
    try:
        metadata = read_metadata(image, data)
        values = pixels_of(image, data)
    except (cv2.error, OSError, SyntaxError, ValueError, AttributeError, struct.error) as error:
        raise InputError(f"{path} is damaged and cannot be decoded; copy it again") from error
    said = []
    if image.format == "MPO":
        said.append("of files with further pictures (views, a gain map for HDR) the first one is restored")
    if image.format == "ICO" and len(image.info["sizes"]) > 1:
        said.append("of icons the largest picture is restored")
    if image.mode == "CMYK":
        said.append("pictures in printing colours become RGB, without their colour profile")
    warnings += [line for line in said if line not in warnings]
    return _Loaded(path, values, metadata)


def _images_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures directly in a folder by name, and a line for each kind of what is left out."""
    taken: dict[str, Path] = {}
    left_out = Counter[str]()
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    for path in paths:
        reason = _why_left_out(path)
        if reason:
            left_out[reason] += 1
        elif reason is None and taken.setdefault(result_name(path), path) != path:
            raise UsageError(
                f"{taken[result_name(path)]} and {path} would both become {result_name(path)}; "
                "restore them one by one"
            )
    if not taken:
        other = f"; name videos one by one: {folder / '*'}" if paths else ""
        raise InputError(f"{folder} holds no images ({' '.join(IMAGE_ENDINGS)}){other}")
    said = [f"left out of {folder}: {number} {reason}" for reason, number in sorted(left_out.items())]
    return list(taken.values()), said


def _why_left_out(path: Path) -> str | None:
    """The kind of a file in a folder that is not taken; None for one that is, "" for what nobody misses."""
    ending = path.suffix.lower()
    if path.is_dir():
        return "folder (give it as an input of its own)"
    if ending in IMAGE_ENDINGS and path.is_file():
        return None
    if path.name.startswith(".") or path.name in _OF_FILE_MANAGERS:
        return ""
    kind = ending or "without an ending"
    try:
        check_is_picture(path)
    except MissingPackageError as error:
        return f"{kind} (HEIC, which needs: pip install 'measnet[{error.extra}]')"
    except PictureError as error:
        several = error.reason.startswith("holds several")
        return f"{kind} ({'several pictures in one' if several else 'not a picture that is read'})"
    return None
