"""Sequences to be measured: where they lie, and their frames, clean and degraded, as often as they are asked
for. Frames are read anew each time, so that a few at most are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import av
import numpy as np

from measnet.errors import InputError, UsageError, first_line
from measnet.evaluation.video.as_run import Colour, YuvWriter, describe, read_frames
from measnet.evaluation.video.degrade import (
    CodecStep,
    DegradeStep,
    FrameStep,
    coded,
    degrade_frames,
    encode,
)
from measnet.file_name import for_ffmpeg
from measnet.image import Pixels
from measnet.train.data.pictures import is_named_picture

SMALLEST = 32  # pixels a side: smaller frames have no room for motion, nor for a coder


@dataclass(frozen=True)
class SequenceFiles:
    """The files of a sequence: the clean one, and the degraded one unless that is to be made."""

    name: str
    clean: Path
    degraded: Path | None = None


def find_sequences(videos: Sequence[Path], targets: Sequence[Path]) -> list[SequenceFiles]:
    """The sequences of every video, each a file, a folder of frames or a folder of such folders.

    Without ``targets`` the videos are clean; else they are degraded, and each has its target. Raises
    ``InputError`` for what is missing or empty, ``UsageError`` for another number of targets.
    """
    if not targets:
        return [SequenceFiles(name, path) for video in videos for name, path in _sequences(video)]
    if len(videos) != len(targets):
        raise UsageError(
            f"{len(videos)} videos have {len(targets)} targets: give a --video-target for every --video"
        )
    found = []
    for video, target in zip(videos, targets, strict=True):
        degraded, clean = dict(_sequences(video)), dict(_sequences(target))
        if len(degraded) == len(clean) == 1:
            ((name, path),) = degraded.items()
            found.append(SequenceFiles(name, clean=next(iter(clean.values())), degraded=path))
            continue
        if lone := sorted(degraded.keys() ^ clean.keys()):
            raise InputError(f"the sequence {lone[0]} is not both in {video} and in {target}")
        found += [SequenceFiles(name, clean[name], degraded=path) for name, path in degraded.items()]
    return found


class Footage:
    """One sequence, ready to be measured.

    Args:
        place: where it lies.
        chain: degrades it; empty where it lies degraded already.
        seed: of the noise.
        limit: so many frames are taken, or all.
        folder: for what a coder makes of it.

    Raises:
        InputError: it cannot be read, is too small, or changes its size.
    """

    def __init__(
        self,
        place: SequenceFiles,
        chain: Sequence[DegradeStep],
        *,
        seed: int,
        limit: int | None,
        folder: Path,
    ) -> None:
        self.place = place
        self.name = place.name
        self._seed = seed
        self._limit = limit
        self._even = coded(chain)
        declared = describe(place.clean).frames
        if place.degraded is not None and place.degraded.is_dir() and place.clean.is_dir():
            self._check_number(describe(place.degraded).frames, declared)
        self.frames = declared if declared is None or limit is None else min(declared, limit)
        """As the clean sequence declares them; None when it does not say."""

        self._coded: Path | None = None
        self._after: list[tuple[int, FrameStep]] = []
        for number, step in enumerate(chain):
            if isinstance(step, FrameStep):
                self._after.append((number, step))
                continue
            self._coded = self._encoded(step, folder / f"{number}.mkv")
            self._after = []
        file = place.degraded or self._coded or place.clean
        self.intra = not self._after and describe(file).intra
        """True where each of the degraded frames was coded by itself."""

    def _check_number(self, degraded: int | None, clean: int | None) -> None:
        """Refuses folders of two lengths before hours of work, and not behind them."""
        if degraded != clean:
            raise InputError(
                f"{self.place.degraded} and {self.place.clean} have not the same number of frames: "
                f"{degraded} and {clean}"
            )

    def _encoded(self, step: CodecStep, path: Path) -> Path:
        encode(self.degraded(), path, step)
        return path

    def clean(self) -> Iterator[Pixels]:
        """The clean frames: H W 3, RGB."""
        return self._alike(read_frames(self.place.clean), self.place.clean)

    def degraded(self) -> Iterator[Pixels]:
        """The degraded frames, as measnet-run would get them."""
        if self.place.degraded is not None:
            return self._alike(read_frames(self.place.degraded), self.place.degraded)
        frames = self.clean() if self._coded is None else read_frames(self._coded)
        steps = [step for _, step in self._after]
        first = self._after[0][0] if self._after else 0
        if not steps:
            return frames
        return degrade_frames(frames, steps, seed=self._seed, name=self.name, first=first)

    def pairs(self) -> Iterator[tuple[Pixels, Pixels]]:
        """The degraded frames, each with its clean one. Raises ``InputError`` where they do not match."""
        return self.with_clean(self.degraded(), str(self.place.degraded or self.name))

    def with_clean(self, frames: Iterator[Pixels], name: str) -> Iterator[tuple[Pixels, Pixels]]:
        """Frames, called ``name``, each with its clean one. Raises ``InputError`` where they do not match."""
        for frame, clean in zip_longest(frames, self.clean()):
            if frame is None or clean is None:
                raise InputError(f"{name} and {self.place.clean} have not the same number of frames")
            if frame.shape != clean.shape:
                raise InputError(
                    f"{name} has {size_of(frame)} pixels and {self.place.clean} {size_of(clean)}: "
                    "not the same video"
                )
            yield frame, clean

    def planes(self) -> Iterator[av.VideoFrame]:
        """The degraded frames as ffmpeg's filters take them: as they lie in a video file, else in 4:4:4."""
        file = self.place.degraded if self.place.degraded is not None else self._coded
        if file is not None and not self._after and _has_planes(file):
            yield from islice(_decoded(file), self._limit)
            return
        writer: YuvWriter | None = None
        for number, pixels in enumerate(self.degraded()):
            if writer is None:
                writer = YuvWriter(_FULL, pixels.shape[1], pixels.shape[0], "444", "left")
            frame = writer.write(pixels)
            frame.pts = number
            yield frame

    def _alike(self, frames: Iterator[Pixels], path: Path) -> Iterator[Pixels]:
        """The first frames, of one size, that has room for what follows; of even sides for a coder."""
        first: Pixels | None = None
        for number, pixels in enumerate(islice(frames, self._limit)):
            if first is None:
                first = pixels
                if min(pixels.shape[:2]) < SMALLEST:
                    raise InputError(
                        f"{path} has frames of {size_of(pixels)} pixels; a sequence needs {SMALLEST} x "
                        f"{SMALLEST} at least"
                    )
            if pixels.shape != first.shape:
                raise InputError(
                    f"{path}: frame {number} has {size_of(pixels)} pixels, those before it {size_of(first)}"
                )
            if self._even:
                height, width = (side // 2 * 2 for side in pixels.shape[:2])
                pixels = np.ascontiguousarray(pixels[:height, :width])
            yield pixels
        if first is None:
            raise InputError(f"{path} has no frames")


def size_of(pixels: Pixels) -> str:
    """``640 x 360``."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _sequences(place: Path) -> list[tuple[str, Path]]:
    """Each sequence's name and place."""
    if not place.exists():
        raise InputError(f"the video {place} does not exist")
    if place.is_file():
        return [(place.name, place)]
    if not place.is_dir():
        raise InputError(f"{place} is a pipe or a device; give a file or a folder")
    try:
        inside = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{place} cannot be read: {error.strerror}") from None
    if any(is_named_picture(path) for path in inside):
        return [(place.resolve().name, place)]
    found = [(path.name, path) for path in inside if path.is_dir()]
    if not found:
        raise InputError(f"{place} holds neither frames nor folders of frames; give videos one by one")
    return found


def _has_planes(path: Path) -> bool:
    """Tells whether a file is a video in YUV."""
    info = describe(path)
    return info.kind == "video" and not av.VideoFormat(info.pixel_format).is_rgb


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    try:
        with av.open(for_ffmpeg(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                frame.pts = number
                yield frame
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be decoded: {first_line(error)}") from None


_FULL = Colour(matrix=6, primaries=6, transfer=6, range=2)
