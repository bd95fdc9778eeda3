"""The contact sheet of video: stills side by side, and under each a crop over time.

Under a still lies one of its rows, as every frame has it, from the first downwards: an x-t slice. Still
things draw straight lines there, moving ones slanted lines, and shimmer breaks them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from measnet.evaluation.panels import GAP, WHITE, enlarged, stacked, strip, text, with_most_detail
from measnet.evaluation.table import decibels
from measnet.evaluation.video.figures import DEGRADED, VideoFigures
from measnet.evaluation.video.measure import CLEAN
from measnet.image import Pixels, eight_bits

MOST_SEQUENCES = 8
SIDE = 150  # pixels: of a crop
ZOOM = 2
SLICE = 150  # frames at most, the last ones
SLICE_HEIGHT = 200  # pixels, about
RUN_IN = 5  # frames
TICK = 4  # pixels: of the marks at the row that is shown over time, and at the frame that is the still
MARK = (255, 0, 0)


class _Stills:
    """One method's crop of one sequence: one frame, and one row of every frame."""

    def __init__(self) -> None:
        self.count = 0
        self.still: Pixels | None = None
        self.still_number = 0
        self.rows: deque[Pixels] = deque(maxlen=SLICE)

    def add(self, crop: Pixels, *, is_still: bool) -> None:
        if is_still:
            self.still, self.still_number = crop.copy(), self.count
        self.rows.append(crop[len(crop) // 2].copy())
        self.count += 1

    def draw(self) -> Pixels:
        assert self.still is not None
        still, middle = enlarged(self.still, ZOOM), len(self.still) // 2 * ZOOM
        times = max(1, round(SLICE_HEIGHT / len(self.rows)))
        over_time = np.stack(self.rows).repeat(times, axis=0).repeat(ZOOM, axis=1)
        line = (self.still_number - self.count + len(self.rows)) * times
        for columns in (slice(0, TICK), slice(-TICK, None)):
            still[middle - 1 : middle + ZOOM + 1, columns] = MARK
            over_time[max(0, line) : max(0, line + times), columns] = MARK
        gap = np.full((GAP, still.shape[1], 3), WHITE, np.uint8)
        return np.vstack([still, gap, over_time])


class VideoSheet:
    """Gathers crops while a run goes on, and draws them at its end: of the first sequences, the square with
    most detail of the first clean frame; as a still, the frame with most contrast there, once there were some
    frames to be fused with."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[slice, slice]] = {}
        self._shown: dict[int, tuple[bool, float, int]] = {}
        self._stills: dict[int, dict[str, _Stills]] = {}

    def add(self, number: int, results: Mapping[str, Pixels]) -> None:
        """The next frame of a sequence, by its number: H W 3 by method, the clean one among the first."""
        if number >= MOST_SEQUENCES:
            return
        if number not in self._places:
            self._places[number] = with_most_detail(eight_bits(results[CLEAN]), SIDE)[0]
        stills, place = self._stills.setdefault(number, {}), self._places[number]
        if CLEAN in results:
            self._choose(number, results[CLEAN][place])
        for method, pixels in results.items():
            one = stills.setdefault(method, _Stills())
            one.add(eight_bits(pixels[place]), is_still=one.count == self._shown[number][-1])

    def _choose(self, number: int, clean: Pixels) -> None:
        """Chooses the next frame as the still, if it is the best so far."""
        clean_stills = self._stills[number].get(CLEAN)
        count = 0 if clean_stills is None else clean_stills.count
        found = (count >= RUN_IN, float(clean.std()), count)
        if found[:2] > self._shown.get(number, (False, -1.0, 0))[:2]:
            self._shown[number] = found

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
                text(f"{one.name}; below each still the row between its marks, frame by frame", row.shape[1]),
                row,
            ]
        return stacked(strips)


def _settings(figures: VideoFigures) -> set[str]:
    return {trial.setting for tried in figures.trials.values() for trial in tried}
