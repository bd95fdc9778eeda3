"""The worst cases of a run on one picture: degraded, restored, true, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.errors import OutputError, UsageError
from measnet.evaluation.cases import Case
from measnet.evaluation.measure import PictureFigures, Quality, difference
from measnet.image import Pixels
from measnet.train.degradations.picture import Picture
from measnet.whole_file import write_whole

SUFFIXES = (".jpg", ".jpeg", ".png")
ROWS = 3  # worst cases kept per set
PANEL = 400  # pixels: the width of a panel; no panel is higher
LINE = 22  # pixels: the height of a line of text
GAP = 8  # pixels between panels
WHITE, INK = 255, (40, 40, 40)


class _Row(NamedTuple):
    badness: float
    caption: str
    panels: list[tuple[str, Pixels]]


class ContactSheet:
    """Keeps the worst cases of every set while a run goes on, and draws them at its end.

    The worst are those with the lowest PSNR; of two models, those where the second loses most.
    """

    def __init__(self) -> None:
        self._sets: dict[str, list[_Row]] = {}

    def offer(self, title: str, case: Case, results: Sequence[Picture], figures: PictureFigures) -> None:
        """Keeps a case of the set ``title`` if it is among the worst."""
        scores = [quality.psnr_db for quality in figures.restored]
        badness = -scores[0] if len(scores) == 1 else difference(scores[1], scores[0])
        rows = self._sets.setdefault(title, [])
        if len(rows) == ROWS and badness <= rows[-1].badness:
            return
        labels = ["restored"] if len(results) == 1 else ["A", "B"]
        panels = [(f"degraded {_figures(figures.before)}", _shrunk(case.degraded))]
        for label, result, quality in zip(labels, results, figures.restored, strict=True):
            pixels = np.rint(result * np.float32(255)).astype(np.uint8)
            panels.append((f"{label} {_figures(quality)}", _shrunk(pixels)))
        panels.append(("target", _shrunk(case.clean)))
        rows.append(_Row(badness, case.name, panels))
        rows.sort(key=lambda row: -row.badness)
        del rows[ROWS:]

    def draw(self) -> Pixels:
        """The sheet, H W 3, RGB."""
        strips = []
        for title, rows in self._sets.items():
            for row in rows:
                strips += [_text(f"{title}: {row.caption}", _width(row.panels)), _strip(row.panels)]
        widest = max(strip.shape[1] for strip in strips)
        return np.vstack([_padded(strip, strip.shape[0], widest) for strip in strips])


def check_sheet_path(path: Path) -> None:
    """Raises ``UsageError`` for a kind of picture that is not written."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the contact sheet {path} must end in one of {', '.join(SUFFIXES)}")


def write_sheet(path: Path, sheet: ContactSheet) -> None:
    """Writes the sheet; the file is there whole or not at all. Raises ``OutputError``."""
    pixels = np.ascontiguousarray(sheet.draw()[:, :, ::-1])
    written, data = cv2.imencode(path.suffix.lower(), pixels)
    if not written:
        raise OutputError(f"{path} cannot be encoded")
    write_whole(path, data.tobytes())


def _figures(quality: Quality) -> str:
    return f"{quality.psnr_db:.2f} dB, SSIM {quality.ssim:.3f}"


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = PANEL / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _width(panels: Sequence[tuple[str, Pixels]]) -> int:
    return len(panels) * (PANEL + GAP) - GAP


def _strip(panels: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Panels side by side, each under its caption."""
    height = max(pixels.shape[0] for _, pixels in panels)
    columns = [np.vstack([_text(text, PANEL), _padded(p, height + GAP, PANEL)]) for text, p in panels]
    gap = np.full((columns[0].shape[0], GAP, 3), WHITE, np.uint8)
    return np.hstack([part for column in columns for part in (column, gap)][:-1])


def _text(text: str, width: int) -> Pixels:
    """A line of text, as wide as asked for; OpenCV's letters are ASCII alone."""
    line: NDArray[np.uint8] = np.full((LINE, width, 3), WHITE, np.uint8)
    plain = text.replace("σ", "sigma ").encode("ascii", "replace").decode()
    cv2.putText(line, plain, (2, LINE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
    return line


def _padded(pixels: Pixels, height: int, width: int) -> Pixels:
    rest = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, rest, constant_values=WHITE)
