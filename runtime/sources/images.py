"""Images: one file, or all of a folder in order of their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from measnet.errors import InputError
from measnet.image_header import IMAGE_ENDINGS, read_header
from measnet.runtime.frame import Frame, Picture, StreamInfo
from measnet.runtime.sources.limits import check_memory, check_size

_KEPT_METADATA = (cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_XMP, cv2.IMAGE_METADATA_ICCP)

Values = npt.NDArray[Any]


class Images:
    """Frames from image files; the file's number in the folder stands for its time.

    Args:
        path: a file, or a folder of which every image directly in it is taken.

    Raises:
        InputError: missing, not readable, no images in the folder, or (for a single file)
            not an image.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        self.truncated = False
        self.warnings: list[str] = []
        self._skipped: frozenset[str] = frozenset()
        self._single = not path.is_dir()
        self._paths = [path] if self._single else _images_in(path)
        # A single file is decoded at once, so that a bad one is refused before any work.
        self._first = _load(path) if self._single else None
        height, width = self._first.values.shape[:2] if self._first else (0, 0)
        self.info = StreamInfo(
            name=str(path),
            kind="images",
            width=width,
            height=height,
            time_base=Fraction(1),
            frames=len(self._paths),
            bits=self._first.values.itemsize * 8 if self._first else 8,
        )

    def skip(self, names: Iterable[str]) -> None:
        """``read`` is to leave out the files of these names."""
        self._skipped = frozenset(names)

    def read(self) -> Iterator[Frame]:
        """See Source.read. In a folder a damaged image is counted and left out."""
        for number, path in enumerate(self._paths):
            if path.name in self._skipped:
                continue
            try:
                loaded = self._first or _load(path)
            except InputError as error:
                self.damaged += 1
                self.warnings.append(f"left out: {error}")
                continue
            self._first = None
            yield loaded.frame(number)
        if self.damaged == len(self._paths):
            raise InputError(
                f"none of the {self.damaged} images of {self.info.name} could be read; the first "
                f"is {self.warnings[0]}"
            )

    def interrupt(self) -> None:
        """See Source.interrupt. Nothing here waits for long."""

    def close(self) -> None:
        """See Source.close."""


class _Loaded:
    """An image as it lies in its file: ``values`` is uint8 or uint16, H×W or H×W×1..4 in BGR order."""

    def __init__(self, path: Path, values: Values, metadata: tuple[tuple[int, bytes], ...]) -> None:
        self.values = values
        self._path = path
        self._metadata = metadata

    def frame(self, number: int) -> Frame:
        values = self.values
        if values.ndim == 2:
            values = values[:, :, None]
        channels = values.shape[2]
        grey = channels <= 2
        colours = values[:, :, :1].repeat(3, axis=2) if grey else values[:, :, 2::-1]
        alpha = values[:, :, -1] if channels in (2, 4) else None
        return Frame(
            pixels=np.ascontiguousarray(colours),
            pts=number,
            time_base=Fraction(1),
            picture=Picture(self._path, alpha, grey, self._metadata),
        )


def _load(path: Path) -> _Loaded:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its name") from None
    header = read_header(path, data)
    check_size(str(path), header.width, header.height)
    check_memory(str(path), header.width, header.height)
    if header.several:
        raise InputError(f"{path} holds several pictures; save the one wanted as a file of its own")
    try:
        # Unchanged: the depth, the alpha, and no turning, as the EXIF block travels along.
        values, kinds, blocks = cv2.imdecodeWithMetadata(
            np.frombuffer(data, np.uint8), flags=cv2.IMREAD_UNCHANGED
        )
    except (cv2.error, AttributeError):
        # AttributeError: the binding trips over the empty result of a picture it cannot read.
        values = None
    if values is None:
        raise InputError(f"{path} is damaged and cannot be decoded; copy it again")
    if values.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} has {values.dtype} samples; convert it to 8 or 16 bits per channel first")
    metadata = tuple(
        (int(kind), np.asarray(block).tobytes())
        for kind, block in zip(kinds, blocks, strict=True)
        if kind in _KEPT_METADATA
    )
    return _Loaded(path, values, metadata)


def _images_in(folder: Path) -> list[Path]:
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
        )
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    if not paths:
        other = "" if next(folder.iterdir(), None) is None else f"; name videos one by one: {folder / '*'}"
        raise InputError(f"{folder} holds no images ({' '.join(IMAGE_ENDINGS)}){other}")
    return paths
