"""Pictures on disk: which there are, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.errors import InputError
from measnet.image import EightBitPixels, eight_bits
from measnet.image_header import IMAGE_ENDINGS, PictureError, read_size

KEPT_BYTES = 2 << 30  # decoded pictures kept in memory; a worker process shares them with its parent
SHOWN_PROBLEMS = 10  # in one message


def read_picture(path: Path) -> EightBitPixels:
    """The picture as H x W x 3, uint8, RGB, upright.

    Grey is repeated in all three channels, 16 bits are rounded to 8 (65535 is 255), a palette is looked up,
    alpha is dropped, and of several pictures in a file the first is taken.

    Raises ``PictureError`` (an ``InputError``) when the file is missing, damaged or no picture, has samples
    of other kinds, or claims more than ``MOST_PIXELS``, which is found out before anything is decoded.
    """
    read_size(path)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        stored = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except OSError as error:
        raise PictureError(path, f"is not a picture that can be read: {error.strerror}") from None
    except cv2.error:
        stored = None
    if stored is None:
        raise PictureError(path, "is not a picture that can be read: it cannot be decoded")
    if stored.dtype not in (np.uint8, np.uint16):
        raise PictureError(path, f"has {stored.dtype} samples; convert it to 8 or 16 bits per channel")
    kept: NDArray[np.uint8 | np.uint16] = np.asarray(stored)
    return np.asarray(cv2.cvtColor(eight_bits(kept), cv2.COLOR_BGR2RGB), np.uint8)


def is_named_picture(path: Path) -> bool:
    """Tells a picture by name and kind: an ending that we read, not hidden, a regular file."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and path.is_file()


def list_pictures(folder: Path) -> list[Path]:
    """The pictures directly in ``folder``, by name. Raises ``InputError`` when there is none."""
    if not folder.is_dir():
        raise InputError(f"the folder of pictures {folder} does not exist")
    try:
        found = sorted(path for path in folder.iterdir() if is_named_picture(path))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    if not found:
        raise InputError(f"no picture in {folder} (looked for {', '.join(IMAGE_ENDINGS)})")
    return found


class PictureStore:
    """Decoded pictures: the first ``keep`` bytes of them stay in memory, the rest are read when asked for.

    Raises ``InputError`` that names every picture among the first that cannot be decoded.
    """

    def __init__(self, paths: Sequence[Path], keep: int = KEPT_BYTES) -> None:
        self._kept: dict[Path, EightBitPixels] = {}
        problems = []
        for path in dict.fromkeys(paths):
            if keep <= 0:
                break
            try:
                self._kept[path] = read_picture(path)
                keep -= self._kept[path].nbytes
            except PictureError as error:
                problems.append(str(error))
        if problems:
            more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
            raise InputError("; ".join(problems[:SHOWN_PROBLEMS]) + more)

    def __getitem__(self, path: Path) -> EightBitPixels:
        """H x W x 3, uint8, RGB."""
        kept = self._kept.get(path)
        return read_picture(path) if kept is None else kept
