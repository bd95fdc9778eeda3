"""Pictures side by side under their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.errors import OutputError, UsageError
from measnet.image import Pixels
from measnet.whole_file import write_whole

SUFFIXES = (".jpg", ".jpeg", ".png")
GAP = 8  # pixels between panels
LINE = 22  # pixels: the height of a line of text
WHITE, INK = 255, (40, 40, 40)


def strip(panels: Sequence[tuple[str, Pixels]], least_width: int = 0) -> Pixels:
    """Panels (H W 3, uint8) side by side, each under its caption and at least so wide."""
    height = max(pixels.shape[0] for _, pixels in panels)
    columns = []
    for caption, pixels in panels:
        width = max(least_width, pixels.shape[1])
        columns.append(np.vstack([text(caption, width), padded(pixels, height + GAP, width)]))
    gap = np.full((columns[0].shape[0], GAP, 3), WHITE, np.uint8)
    return np.hstack([part for column in columns for part in (column, gap)][:-1])


def text(line: str, width: int) -> Pixels:
    """A line of text, as wide as asked for; OpenCV's letters are ASCII alone."""
    drawn: NDArray[np.uint8] = np.full((LINE, width, 3), WHITE, np.uint8)
    plain = line.replace("σ", "sigma ").encode("ascii", "replace").decode()
    cv2.putText(drawn, plain, (2, LINE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
    return drawn


def padded(pixels: Pixels, height: int, width: int) -> Pixels:
    """Adds white below and to the right, up to that size."""
    rest = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, rest, constant_values=WHITE)


def stacked(strips: Sequence[Pixels]) -> Pixels:
    """Strips under one another."""
    widest = max(one.shape[1] for one in strips)
    return np.vstack([padded(one, one.shape[0], widest) for one in strips])


def with_most_detail(pixels: Pixels, side: int, count: int = 1) -> list[tuple[slice, slice]]:
    """The squares with most edges, none on another; fewer, or smaller, where the picture is small.

    Fine grain is smoothed away first, so that noise does not pass for detail.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2)
    edges = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
    height, width = (min(side, whole) for whole in grey.shape)
    # The sum over the square that begins here; what juts out counts as nothing.
    sums = cv2.boxFilter(edges, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    sums = sums[: grey.shape[0] - height + 1, : grey.shape[1] - width + 1].copy()
    found: list[tuple[slice, slice]] = []
    for _ in range(count):
        top, left = (int(at) for at in np.unravel_index(sums.argmax(), sums.shape))
        if sums[top, left] < 0:
            break
        found.append((slice(top, top + height), slice(left, left + width)))
        sums[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = -1
    return found


def enlarged(pixels: Pixels, times: int) -> Pixels:
    """Every pixel as a square of ``times`` x ``times``."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def check_picture_path(path: Path) -> None:
    """Raises ``UsageError`` for a kind of picture that is not written."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the picture {path} must end in one of {', '.join(SUFFIXES)}")


def write_picture(path: Path, pixels: Pixels) -> None:
    """Writes H W 3, RGB; the file is there whole or not at all. Raises ``OutputError``."""
    written, data = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(pixels[:, :, ::-1]))
    if not written:
        raise OutputError(f"{path} cannot be encoded")
    write_whole(path, data.tobytes())
