"""The pictures that a graph is measured on: of the user's own, of the sample clip, or made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import measnet
from measnet.errors import InputError
from measnet.export.parity import sample_pictures
from measnet.image import Image, Pixels, to_image

FARTHEST = 25  # frames between two that are taken, so that a long video is not read to its end


def real_pictures(source: str | None, count: int, height: int, width: int) -> tuple[Image, str]:
    """``count`` or fewer pictures of this size (B 3 H W), and where they are from, in words.

    ``source`` is a video, a picture or a folder of pictures; None takes the sample clip of a checkout, or
    made-up pictures where there is none. Pictures are cropped in the middle, and what is too small is
    grown by reflection. Raises ``InputError`` for a source that cannot be read.
    """
    clip = Path(measnet.__file__).parents[1] / "examples" / "car-park.mp4"
    if source is None and not clip.is_file():
        return sample_pictures(count, height, width), "made-up pictures"
    path = source or str(clip)
    taken = _spread(path, count)
    pictures = [to_image(_fitted(pixels, height, width)) for pixels in taken]
    return np.concatenate(pictures), f"{len(pictures)} of {Path(path).name}"


def _spread(path: str, count: int) -> list[Pixels]:
    """Up to ``count`` frames of a source, evenly apart."""
    from measnet.runtime.frame import Frame
    from measnet.runtime.sources.choose import is_live, open_source

    if is_live(path):
        raise InputError(f"{path} is live; give a video, a picture or a folder of pictures")
    source = open_source(path)
    try:
        step = min(max(1, (source.info.frames or count) // count), FARTHEST)
        frames: list[Pixels] = []
        number = 0
        for item in source.read():
            if not isinstance(item, Frame):
                continue
            if number % step == 0:
                frames.append(item.pixels)
            number += 1
            if len(frames) == count:
                break
    finally:
        source.close()
    if not frames:
        raise InputError(f"{path} has no picture that can be read")
    return frames


def _fitted(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of a picture, H W 3, of this size; grown by reflection where too small."""
    top, left = (max(0, have - want) // 2 for have, want in zip(pixels.shape, (height, width), strict=False))
    middle = pixels[top : top + height, left : left + width]
    rows, columns = height - middle.shape[0], width - middle.shape[1]
    return np.pad(middle, ((0, rows), (0, columns), (0, 0)), mode="reflect")
