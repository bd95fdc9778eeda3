"""Pictures beside one another under their captions, for bench scripts that leave something to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from measnet.errors import OutputError
from measnet.image import Pixels
from measnet.whole_file import write_whole

GAP = 6  # pixels between panels
LINE = 20  # pixels: the height of a caption
WHITE, INK = 255, (30, 30, 30)


def strip(panels: list[tuple[str, Pixels]]) -> Pixels:
    """Panels side by side, each under its caption. OpenCV's letters are ASCII alone."""
    height = max(pixels.shape[0] for _, pixels in panels)
    columns = []
    for caption, pixels in panels:
        line = np.full((LINE, pixels.shape[1], 3), WHITE, np.uint8)
        plain = caption.encode("ascii", "replace").decode()
        cv2.putText(line, plain, (2, LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
        columns.append(_padded(np.vstack([line, pixels]), LINE + height, pixels.shape[1] + GAP))
    return np.hstack(columns)


def stacked(strips: list[Pixels]) -> Pixels:
    """Strips under one another."""
    widest = max(one.shape[1] for one in strips)
    return np.vstack([_padded(one, one.shape[0] + GAP, widest) for one in strips])


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


def fitted(pixels: Pixels, widest: int) -> Pixels:
    """The picture scaled down to ``widest`` pixels across, if it is wider."""
    height, width = pixels.shape[:2]
    if width <= widest:
        return pixels
    size = (widest, max(1, round(height * widest / width)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def make_folder(folder: Path) -> None:
    """Makes it, or raises ``OutputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}") from None


def write_png(path: Path, pixels: Pixels) -> None:
    """Raises ``OutputError`` when it cannot be written."""
    written, data = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not written:
        raise OutputError(f"{path} cannot be encoded")
    write_whole(path, data.tobytes())


def _padded(pixels: Pixels, height: int, width: int) -> Pixels:
    rest = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, rest, constant_values=WHITE)
