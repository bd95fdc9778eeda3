"""Pictures of source and result beside each other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from measnet.errors import InputError, OutputError
from measnet.image_header import orientation
from measnet.runtime.compare.layout import Layout, laid_out
from measnet.runtime.frame import Pixels
from measnet.runtime.sinks.orientation import EXIF_TURNS, turned
from measnet.runtime.sources.images import Images
from measnet.whole_file import write_whole


def compare_pictures(source: Path, restored: Path, target: Path, layout: Layout) -> None:
    """Writes one picture of two image files, as a viewer would show them (EXIF orientation applied).

    Raises:
        InputError: one of them cannot be read.
        OutputError: ``target`` cannot be written.
    """
    picture = laid_out(_shown(source), _shown(restored), layout)
    sound, data = cv2.imencode(target.suffix, picture)
    if not sound:
        raise OutputError(f"a picture of {picture.shape[1]}×{picture.shape[0]} cannot be {target.suffix}")
    write_whole(target, data.tobytes())


def _shown(path: Path) -> Pixels:
    for frame in Images(path).read():
        pixels = frame.pixels // 257 if frame.pixels.dtype == np.uint16 else frame.pixels
        assert frame.picture is not None
        turn = EXIF_TURNS[orientation(frame.picture.metadata.exif)]
        return turned(pixels.astype(np.uint8), turn)[..., ::-1]
    raise InputError(f"{path} cannot be read; it was there a moment ago")
