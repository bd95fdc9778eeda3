"""The contact sheet of video: stills beside one another, and under each a crop over time.

Under a still lies one of its rows, as every frame has it, from the first downwards: an x-t slice. What stands
still draws straight lines there, what moves slanted ones, and what shimmers breaks them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import cv2
import numpy as np

from measnet.evaluation.panels import GAP, enlarged, stacked, strip, text, with_most_detail
from measnet.evaluation.table import decibels
from measnet.evaluation.video.figures import DEGRADED, VideoFigures
from measnet.evaluation.video.measure import CLEAN
from measnet.image import Pixels

MOST_SEQUENCES = 8
SIDE = 150  # pixels: of a crop
ZOOM = 2
SLICE = 150  # frames at most, the last ones
SLICE_HEIGHT = 200  # pixels, about
TICK = 4  # pixels beside the row that is shown over time


class _Stills:
    """One method's crop of one sequence: the last frame, and one row of every frame."""

    def __init__(self) -> None:
        self.last: Pixels | None = None
        self.rows: deque[Pixels] = deque(maxlen=SLICE)

    def add(self, crop: Pixels) -> None:
        self.last = crop.copy()
        self.rows.append(self.last[len(crop) // 2])

    def draw(self) -> Pixels:
        assert self.last is not None
        still, middle = enlarged(self.last, ZOOM), len(self.last) // 2 * ZOOM
        for columns in (slice(0, TICK), slice(-TICK, None)):
            still[middle - 1 : middle + ZOOM + 1, columns] = (255, 0, 0)
        times = max(1, round(SLICE_HEIGHT / len(self.rows)))
        over_time = np.stack(self.rows).repeat(times, axis=0).repeat(ZOOM, axis=1)
        gap = np.full((GAP, still.shape[1], 3), 255, np.uint8)
        return np.vstack([still, gap, over_time])


class VideoSheet:
    """Gathers crops while a run goes on, and draws them at its end: of the first sequences, the square with
    most detail of the first clean frame."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[slice, slice]] = {}
        self._stills: dict[int, dict[str, _Stills]] = {}

    def add(self, number: int, results: Mapping[str, Pixels]) -> None:
        """The next frame of a sequence, by its number: H W 3 by method, the clean one among the first."""
        if number >= MOST_SEQUENCES:
            return
        if number not in self._places:
            self._places[number] = with_most_detail(_eight_bits(results[CLEAN]), SIDE)[0]
        stills = self._stills.setdefault(number, {})
        for method, pixels in results.items():
            stills.setdefault(method, _Stills()).add(_eight_bits(pixels[self._places[number]]))

    def draw(self, figures: VideoFigures) -> Pixels:
        """The sheet, H W 3, RGB: degraded, the best classical tool, the models, clean."""
        tools = [method for method in figures.methods if method in _settings(figures)]
        best = max(tools, key=figures.gain, default=None)
        models = [method for method in figures.methods if method != DEGRADED and method not in tools]
        shown = [DEGRADED, *([] if best is None else [best]), *models]
        strips = []
        for number, stills in self._stills.items():
            one = figures.sequences[number]
            panels = [
                (f"{method} {decibels(one.methods[method].mean.psnr_db)} dB", stills[method].draw())
                for method in shown
            ]
            row = strip([*panels, (CLEAN, stills[CLEAN].draw())], ZOOM * SIDE)
            strips += [
                text(f"{one.name}, below: the row between the marks, frame by frame", row.shape[1]),
                row,
            ]
        return stacked(strips)


def _settings(figures: VideoFigures) -> set[str]:
    return {trial.setting for tried in figures.trials.values() for trial in tried}


def _eight_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else cv2.convertScaleAbs(pixels, alpha=1 / 257).astype(np.uint8)
