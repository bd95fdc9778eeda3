"""Clean footage as a data set: frames of a video, evenly spaced, as pictures."""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.errors import InputError, first_line
from measnet.file_name import for_ffmpeg
from measnet.image import eight_bits
from measnet.runtime.colour import RgbReader, read_colour
from measnet.train.data.prepared import prepare
from measnet.train.data.sets import ImageSet, Pair
from measnet.whole_file import write_whole

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".m4v", ".mpg", ".mpeg")
MOST_FRAMES = 400  # of one video: neighbours teach little that is new
LONGEST_SIDE = 2048  # larger frames are scaled down, which also makes them cleaner


def take_frames(video: Path, folder: Path, most: int = MOST_FRAMES, *, leads: bool = True) -> ImageSet:
    """Writes up to ``most`` frames of ``video``, evenly spaced in time, as PNG into ``folder``; task
    ``clean``.

    A folder that is complete is used again. Raises ``InputError`` when no frame decodes, ``OutputError`` when
    the frames cannot be written.
    """
    prepare(folder, lambda: _write_frames(video, folder, most), leads=leads)
    frames = sorted(folder.glob("*.png"))
    return ImageSet(video.name, "clean", tuple(Pair(None, frame) for frame in frames))


def _write_frames(video: Path, folder: Path, most: int) -> None:
    written = 0
    try:
        with av.open(for_ffmpeg(video)) as container:
            if not container.streams.video:
                raise InputError(f"{video} has no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            length = float(container.duration or 0) / av.time_base
            gap = length / most  # seconds; 0 takes every frame until there are enough
            due = -math.inf
            reader: RgbReader | None = None
            for frame in container.decode(stream):
                if written >= most:
                    break
                if frame.time is not None and frame.time < due:
                    continue
                due = (frame.time or 0.0) + gap
                reader = reader or RgbReader(read_colour(frame), frame.width, frame.height)
                pixels = _limited(eight_bits(reader.read(frame)))
                encoded, content = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
                assert encoded
                write_whole(folder / f"{written:06}.png", content.tobytes())
                written += 1
    except (av.FFmpegError, OSError) as error:
        if not written:
            raise InputError(f"cannot read {video}: {first_line(error)}") from None
    if not written:
        raise InputError(f"no frame of {video} could be decoded")


def _limited(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
