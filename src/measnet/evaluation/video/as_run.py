"""Video as measnet-run reads and restores it: the one place where this takes from ``measnet.runtime``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from measnet.errors import InputError
from measnet.evaluation.video.stopwatch import Stopwatch, Taken
from measnet.image import Pixels
from measnet.runtime.colour import RgbReader, YuvWriter, read_colour
from measnet.runtime.flicker import Flicker
from measnet.runtime.frame import Colour, Frame, StreamInfo
from measnet.runtime.options import STEADY
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.sources.choose import open_source
from measnet.runtime.steady import Steady
from measnet.runtime.temporal import DEPTH, TemporalFusion

if TYPE_CHECKING:
    from measnet.runtime.restorer import Restorer

__all__ = [
    "DEPTH",
    "Colour",
    "Flicker",
    "RestoredFrames",
    "RgbReader",
    "VideoRestorer",
    "YuvWriter",
    "describe",
    "read_colour",
    "read_frames",
    "with_next",
]

T = TypeVar("T")


def read_frames(path: Path) -> Iterator[Pixels]:
    """The frames of a video file, or of a folder of pictures in the order of their names: H W 3, RGB.

    Raises ``InputError`` for what cannot be read, and for a frame that cannot be decoded: a measure leaves
    none out.
    """
    source = open_source(_on_disk(path))
    try:
        for item in source.read():
            if source.damaged:
                break
            if isinstance(item, Frame):
                yield item.pixels
        if source.damaged:
            raise InputError(
                f"{path} has frames that cannot be decoded, and a measure leaves none out; repair it, or "
                "take a part without them (--limit N takes the first N)"
            )
    finally:
        source.close()


def describe(path: Path) -> StreamInfo:
    """Reads what a video file or a folder of pictures says of itself. Raises ``InputError``."""
    source = open_source(_on_disk(path))
    source.close()
    return source.info


@dataclass(frozen=True)
class RestoredFrames:
    """One frame restored, in both ways, and what each took."""

    alone: Pixels
    fused: Pixels | None
    """None where frames do not help each other."""

    taken_alone: Taken
    taken_fused: Taken
    """Restoring included."""


def with_next(frames: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each with the one that follows it; None behind the last."""
    return cast("Iterator[tuple[T, T | None]]", pairwise(chain(frames, [None])))


class VideoRestorer:
    """Restores the frames of one video, in their order: decisions held steady, frames fused over time.

    ``temporal`` is measnet-run's: frames that what moves is averaged over, at most; 0 leaves each alone. A
    frame is fused with the one that follows it, too, as frames of a file are. ``intra`` is what the file's
    ``StreamInfo`` says.
    """

    def __init__(self, restorer: Restorer, temporal: int, *, intra: bool = False) -> None:
        self._restorer = restorer
        self._steady = Steady(STEADY) if restorer.steerable else None
        self._scenes = SceneCut()
        self._fusion = TemporalFusion(temporal, ahead=True, intra=intra) if temporal else None
        self._next: RestoredFrames | None = None

    def restore(self, pixels: Pixels, following: Pixels | None = None) -> RestoredFrames:
        """The next frame, H W 3, uint8 or uint16. ``following`` is the one after it, which is to be the next;
        None where there is none, or where it should not be looked at."""
        this = self._next or self._restore(pixels)
        self._next = None
        if following is None or self._fusion is None:
            return this
        self._next = self._restore(following)
        return replace(this, fused=this.fused if self._fusion.before is None else self._fusion.before)

    def _restore(self, pixels: Pixels) -> RestoredFrames:
        """Restores a frame, and fuses it with those before it. The time taken includes the look ahead that
        completes the frame before."""
        with Stopwatch() as restoring:
            new_scene = self._scenes.begins_with(pixels)
            if self._steady is None:
                alone = self._restorer.restore(pixels).pixels
            else:
                alone = self._steady.restore(self._restorer, pixels, new_scene=new_scene).pixels
        with Stopwatch() as fusing:
            fused = None if self._fusion is None else self._fusion.fuse(pixels, alone, new_scene)
        return RestoredFrames(alone, fused, restoring.taken, restoring.taken + fusing.taken)


def _on_disk(path: Path) -> str:
    """The path as no name of a camera, an address or standard input reads."""
    return str(path) if path.is_absolute() else f"{os.curdir}{os.sep}{path}"
