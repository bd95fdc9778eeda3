"""Measuring: every sequence restored alone and fused, and by classical tools in their best settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from measnet.errors import InputError, MEASNetError
from measnet.evaluation.classical import TOOLS
from measnet.evaluation.protocol import to_picture
from measnet.evaluation.video.as_run import DEPTH, VideoRestorer, with_next
from measnet.evaluation.video.degrade import DegradeStep
from measnet.evaluation.video.figures import (
    DEGRADED,
    MethodFigures,
    SequenceFigures,
    Tally,
    Trial,
    VideoFigures,
)
from measnet.evaluation.video.filters import GRID, FrameByFrame, VideoTool, new_filter
from measnet.evaluation.video.sequences import Footage, SequenceFiles
from measnet.evaluation.video.stopwatch import Taken
from measnet.evaluation.video.warping import MotionSeeker, WarpingError
from measnet.image import Pixels
from measnet.metrics import psnr

if TYPE_CHECKING:
    from measnet.runtime.restorer import Restorer

CLEAN = "clean"


@dataclass(frozen=True)
class VideoOptions:
    """The request for sequences."""

    places: tuple[SequenceFiles, ...]
    chain: tuple[DegradeStep, ...] = ()
    """Degrades the sequences; empty where they lie degraded."""

    task: str = "denoise"
    """The damage that was done to them: it chooses the classical tools."""

    temporal: int = DEPTH
    """Frames that help each other at most, as in measnet-run; 0 restores each alone only."""

    seed: int = 0
    limit: int | None = None
    classical: bool = False
    threads: int = 1
    """Threads of classical tools."""


class Watcher:
    """Receives what happens; does nothing with it."""

    def begin(self, title: str, frames: int | None) -> None:
        """Something begins that takes so many frames, if that is known."""

    def frame(self, number: int, results: Mapping[str, Pixels]) -> None:
        """The next frame of a sequence, by its number: results by method, the clean one among the first."""

    def step(self) -> None:
        """One more frame is done."""

    def note(self, line: str) -> None:
        """Something that the reader of the figures should know."""


def measure_video(
    options: VideoOptions,
    restorers: Mapping[str, Restorer],
    folder: Path,
    watcher: Watcher,
    grid: Mapping[str, Sequence[str]] = GRID,
) -> VideoFigures:
    """Figures of all methods on all sequences. ``restorers`` are called by the models' names; ``folder`` is
    for what coders make; ``grid`` has the filters to try, by family and setting.

    Raises ``InputError`` for sequences that cannot be read.
    """
    footages = []
    for number, place in enumerate(options.places):
        own = folder / str(number)
        own.mkdir()
        watcher.begin(f"{place.name}: degrading" if options.chain else place.name, None)
        footages.append(Footage(place, options.chain, seed=options.seed, limit=options.limit, folder=own))
    sequences = [
        _measure_models(number, one, restorers, options.temporal, watcher)
        for number, one in enumerate(footages)
    ]
    found = VideoFigures(sequences)
    return _with_tools(found, footages, options, watcher, grid) if options.classical else found


def _measure_models(
    number: int, footage: Footage, restorers: Mapping[str, Restorer], temporal: int, watcher: Watcher
) -> SequenceFigures:
    watcher.begin(f"{footage.name}: restoring", footage.frames)
    videos = {
        name: VideoRestorer(restorer, temporal, intra=footage.intra) for name, restorer in restorers.items()
    }
    tallies: dict[str, Tally] = {}
    taken: dict[str, list[Taken]] = {}
    motion_seeker, clean_warping = MotionSeeker(), WarpingError()
    size = (0, 0)
    for (degraded, clean), next_pair in with_next(footage.pairs()):
        size = (clean.shape[1], clean.shape[0])
        motion = motion_seeker.look(clean)
        clean_warping.add(clean, motion)
        results = {DEGRADED: degraded}
        for name, video in videos.items():
            done = video.restore(degraded, None if next_pair is None else next_pair[0])
            results[alone_name(name)] = done.alone
            taken.setdefault(alone_name(name), []).append(done.taken_alone)
            if done.fused is not None:
                results[fused_name(name)] = done.fused
                taken.setdefault(fused_name(name), []).append(done.taken_fused)
        for method, pixels in results.items():
            tallies.setdefault(method, Tally()).add(pixels, clean, motion)
        watcher.frame(number, results | {CLEAN: clean})
        watcher.step()
    return SequenceFigures(
        footage.name,
        size,
        clean_warping.value,
        {
            method: tally.figures(_usual(taken[method]) if method in taken else None)
            for method, tally in tallies.items()
        },
        {fused_name(name): alone_name(name) for name in restorers if fused_name(name) in tallies},
    )


def _usual(taken: Sequence[Taken]) -> Taken:
    """The median: the first frame takes longer."""
    return Taken(median(one.cores for one in taken), median(one.clock or 0.0 for one in taken))


def alone_name(model: str) -> str:
    """The method that restores each frame alone."""
    return f"{model}, each frame alone"


def fused_name(model: str) -> str:
    """The method that fuses frames over time, measnet-run's own."""
    return f"{model}, fused"


def _with_tools(
    found: VideoFigures,
    footages: Sequence[Footage],
    options: VideoOptions,
    watcher: Watcher,
    grid: Mapping[str, Sequence[str]],
) -> VideoFigures:
    """The figures with those of every classical tool in its best setting added."""
    sequences, trials = found.sequences, dict(found.trials)
    before = found.mean(DEGRADED).psnr_db
    for family, settings in _grid(options, grid).items():
        try:
            tried = [_try(setting, make, footages, before, watcher) for setting, make in settings.items()]
            best = max(tried, key=lambda trial: trial.gain_db)
            make = settings[best.setting]
            results = [
                _measure_tool(number, best.setting, make(), one, watcher)
                for number, one in enumerate(footages)
            ]
        except InputError:
            raise
        except MEASNetError as error:
            watcher.note(f"{family} is left out: {error}")
            continue
        trials[family] = tried
        sequences = [
            replace(one, methods=one.methods | {best.setting: figures})
            for one, figures in zip(sequences, results, strict=True)
        ]
    return VideoFigures(sequences, trials)


def _grid(
    options: VideoOptions, filters: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Callable[[], VideoTool]]]:
    """The classical tools of the task, by family and setting."""
    if options.task != "denoise":
        return {tool.name: {tool.name: partial(FrameByFrame, tool)} for tool in TOOLS[options.task]}
    return {
        family: {setting: partial(new_filter, setting, options.threads) for setting in settings}
        for family, settings in filters.items()
    }


def _try(
    setting: str,
    make: Callable[[], VideoTool],
    footages: Sequence[Footage],
    before: float,
    watcher: Watcher,
) -> Trial:
    """Measures the gain of a setting, by PSNR alone."""
    watcher.begin(f"trying {setting}", _total(footages))
    means, taken, count = [], Taken(0.0, 0.0), 0
    for footage in footages:
        tool, reached = make(), []
        for result, clean in footage.with_clean(tool.run(footage), setting):
            reached.append(_psnr(result, clean))
            watcher.step()
        means.append(fmean(reached))
        taken += tool.taken
        count += len(reached)
    return Trial(setting, fmean(means) - before, taken.per(count))


def _psnr(result: Pixels, clean: Pixels) -> float:
    if result.dtype == clean.dtype == np.uint8:
        return psnr(result, clean, peak=255)
    return psnr(to_picture(result), to_picture(clean))


def _measure_tool(
    number: int, setting: str, tool: VideoTool, footage: Footage, watcher: Watcher
) -> MethodFigures:
    watcher.begin(f"{footage.name}: {setting}", footage.frames)
    tally, motion_seeker, count = Tally(), MotionSeeker(), 0
    for result, clean in footage.with_clean(tool.run(footage), setting):
        tally.add(result, clean, motion_seeker.look(clean))
        watcher.frame(number, {setting: result})
        watcher.step()
        count += 1
    return tally.figures(tool.taken.per(count))


def _total(footages: Sequence[Footage]) -> int | None:
    counts = [one.frames for one in footages]
    return None if None in counts else sum(count for count in counts if count is not None)
