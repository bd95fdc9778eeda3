"""The worst cases of a run on one picture: degraded, restored, true, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from measnet.evaluation.cases import Case
from measnet.evaluation.measure import PictureFigures, Quality, gained
from measnet.evaluation.panels import GAP, stacked, strip, text
from measnet.image import Pixels
from measnet.train.degradations.picture import Picture

ROWS = 3  # worst cases kept per set
PANEL = 400  # pixels: the width of a panel; no panel is higher


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
        badness = -scores[0] if len(scores) == 1 else gained(scores[1], scores[0])
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
                line = text(f"{title}: {row.caption}", len(row.panels) * (PANEL + GAP) - GAP)
                strips += [line, strip(row.panels, PANEL)]
        return stacked(strips)


def _figures(quality: Quality) -> str:
    return f"{quality.psnr_db:.2f} dB, SSIM {quality.ssim:.3f}"


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = PANEL / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
