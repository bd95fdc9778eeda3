"""Figures of a sequence and of its methods: those of each frame, and their means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean

from measnet.evaluation.measure import Quality, gained, mean, quality
from measnet.evaluation.protocol import to_picture
from measnet.evaluation.video.as_run import Flicker
from measnet.evaluation.video.stopwatch import Taken
from measnet.evaluation.video.warping import MotionField, WarpingError
from measnet.image import Pixels

DEGRADED = "degraded"
"""The name of what nobody has restored."""


@dataclass(frozen=True)
class MethodFigures:
    """One method on one sequence."""

    frames: tuple[Quality, ...]
    flicker: float | None
    """As ``measnet.runtime.flicker``, against the clean video; in steps of 8 bits."""

    warping: float | None
    """Warping error in steps of 8 bits, as ``measnet.evaluation.video.warping`` says."""

    taken: Taken | None
    """For one frame; None for what nobody has computed."""

    @property
    def mean(self) -> Quality:
        return mean(self.frames)


@dataclass(frozen=True)
class SequenceFigures:
    """All methods on one sequence, in the order of the tables."""

    name: str
    size: tuple[int, int]
    """Width and height."""

    clean_warping: float | None
    """The clean video's own."""

    methods: dict[str, MethodFigures]
    alone: dict[str, str] = field(default_factory=dict)
    """For every method that fuses frames, the one that restores each alone."""

    @property
    def length(self) -> int:
        return len(self.methods[DEGRADED].frames)

    def gain(self, method: str) -> float:
        """The method's gain over the degraded frames, in dB."""
        return gained(self.methods[DEGRADED].mean.psnr_db, self.methods[method].mean.psnr_db)

    def warping(self, method: str) -> float | None:
        """Times the clean video's own; None where that stands still."""
        own, found = self.clean_warping, self.methods[method].warping
        return None if not own or found is None else found / own

    def worst(self, method: str) -> tuple[int, float] | None:
        """The frame that fusing helps least, and its gain over the same frame restored alone, in dB."""
        if method not in self.alone:
            return None
        both = zip(self.methods[self.alone[method]].frames, self.methods[method].frames, strict=True)
        gains = [gained(alone.psnr_db, fused.psnr_db) for alone, fused in both]
        least = min(range(len(gains)), key=gains.__getitem__)
        return least, gains[least]

    def last(self, method: str) -> float | None:
        """The gain of fusing in the last frame, which has most before it, over the same frame alone."""
        if method not in self.alone:
            return None
        alone, fused = (self.methods[name].frames[-1] for name in (self.alone[method], method))
        return gained(alone.psnr_db, fused.psnr_db)


@dataclass(frozen=True)
class Trial:
    """One setting of a classical tool, in the mean over all sequences."""

    setting: str
    gain_db: float
    taken: Taken
    """For one frame."""


@dataclass(frozen=True)
class VideoFigures:
    """Figures of all sequences, and the settings of classical tools that were tried."""

    sequences: list[SequenceFigures]
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Every method that all sequences have."""
        return list(self.sequences[0].methods)

    def mean(self, method: str) -> Quality:
        """The mean over sequences."""
        return mean([one.methods[method].mean for one in self.sequences])

    def gain(self, method: str) -> float:
        """The method's gain over the degraded frames, in dB, the mean over sequences."""
        return gained(self.mean(DEGRADED).psnr_db, self.mean(method).psnr_db)

    def flicker(self, method: str) -> float | None:
        """The mean over sequences."""
        return _mean(one.methods[method].flicker for one in self.sequences)

    def warping(self, method: str) -> float | None:
        """Times the clean video's own, the mean over sequences that move."""
        return _mean(one.warping(method) for one in self.sequences)

    def worst(self, method: str) -> float | None:
        """The least gain of any frame over the same frame restored alone, in dB."""
        found = [worst[1] for one in self.sequences if (worst := one.worst(method)) is not None]
        return min(found) if found else None

    def last(self, method: str) -> float | None:
        """The last frame's gain over itself alone, in dB, the mean over sequences."""
        return _mean(one.last(method) for one in self.sequences)

    def fps(self, method: str) -> float | None:
        """Frames a second by the clock, over all sequences."""
        seconds = _mean(taken.clock for taken in self._taken(method))
        return 1 / seconds if seconds else None

    def cores(self, method: str) -> float | None:
        """Seconds of one core's work for a frame, over all sequences."""
        return _mean(taken.cores for taken in self._taken(method))

    def _taken(self, method: str) -> list[Taken]:
        found = [one.methods[method].taken for one in self.sequences]
        return [taken for taken in found if taken is not None]


class Tally:
    """Gathers the figures of one method on one sequence, frame by frame."""

    def __init__(self) -> None:
        self._frames: list[Quality] = []
        self._flicker = Flicker()
        self._warping = WarpingError()

    def add(self, result: Pixels, clean: Pixels, motion: MotionField | None) -> None:
        """The next frame (H W 3 each), and the clean video's motion towards it."""
        self._frames.append(quality(to_picture(result), to_picture(clean)))
        self._flicker.add(clean, result, cut=motion is None)
        self._warping.add(result, motion)

    def figures(self, taken: Taken | None) -> MethodFigures:
        """The result; ``taken`` is for one frame."""
        return MethodFigures(tuple(self._frames), self._flicker.value, self._warping.value, taken)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
