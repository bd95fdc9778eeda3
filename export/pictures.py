"""The pictures that a graph is measured on: of the user's own, of the sample clip, or made up.

Commands read them and hand them on; nothing else here knows where pictures come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import measnet
from measnet.errors import InputError
from measnet.image import Image, Pixels, to_image
from measnet.runtime.frame import Frame
from measnet.runtime.sources.choose import is_live, open_source

FARTHEST = 25  # frames between two that are taken, so that a long video is not read to its end


def sample_clip() -> Path | None:
    """The sample clip of a checkout; None where there is none."""
    clip = Path(measnet.__file__).parents[2] / "examples" / "car-park.mp4"
    return clip if clip.is_file() else None


def real_pictures(source: str | None, count: int, height: int, width: int) -> tuple[Image, str]:
    """``count`` or fewer pictures of this size (B 3 H W), and where they are from, in words.

    ``source`` is a video, a picture or a folder of pictures; None takes the sample clip of a checkout, or
    made-up pictures where there is none. Pictures are cropped in the middle, and what is too small is
    grown by reflection. Raises ``InputError`` for a source that cannot be read.
    """
    path = source or sample_clip()
    if path is None:
        return sample_pictures(count, height, width), "made-up pictures"
    pictures = [to_image(fitted(frame.pixels, height, width)) for frame in spread_frames(str(path), count)]
    return np.concatenate(pictures), f"{len(pictures)} of {Path(path).name}"


def spread_frames(path: str, count: int) -> Iterator[Frame]:
    """Gives up to ``count`` frames of a source, evenly apart; one at least.

    Raises ``InputError`` for a source that is live, cannot be read, or has no picture.
    """
    if is_live(path):
        raise InputError(f"{path} is live; give a video, a picture or a folder of pictures")
    source = open_source(path)
    number = taken = 0
    try:
        step = min(max(1, (source.info.frames or count) // count), FARTHEST)
        for item in source.read():
            if not isinstance(item, Frame):
                continue
            if number % step == 0:
                yield item
                taken += 1
                if taken == count:
                    break
            number += 1
    finally:
        source.close()
    if not taken:
        raise InputError(f"{path} has no picture that can be read")


def fitted(pixels: Pixels, height: int, width: int, place: tuple[float, float] = (0.5, 0.5)) -> Pixels:
    """A part of a picture, H W 3, of this size; grown by reflection where too small.

    ``place`` says which: (0, 0) is the upper left corner, (1, 1) the lower right one.
    """
    rows, columns = (max(0, have - want) for have, want in zip(pixels.shape, (height, width), strict=False))
    top, left = int(rows * place[0]), int(columns * place[1])
    part = pixels[top : top + height, left : left + width]
    return np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0)), mode="reflect")


def sample_pictures(batch: int, height: int, width: int, seed: int = 0) -> Image:
    """B different noisy pictures with edges and smooth areas, so that routers have something to decide."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((batch, 3, 6, 6), np.float32)
    rows = np.arange(height) * 6 // height
    columns = np.arange(width) * 6 // width
    blocks = coarse[:, :, rows][:, :, :, columns]
    slope = np.linspace(-0.3, 0.3, width, dtype=np.float32)
    strength = np.linspace(0.02, 0.2, batch, dtype=np.float32)[:, None, None, None]
    noise = rng.standard_normal(blocks.shape, np.float32) * strength
    return np.clip(0.2 + 0.6 * blocks + slope + noise, 0, 1).astype(np.float32)
