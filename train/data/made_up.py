"""Pictures made up on the spot, for a run that has no data: dead leaves.

Discs of power-law sizes cover each other until nothing shows through, which gives pictures the edges and the
spectrum of natural ones (Lee, Mumford, Huang, "Occlusion Models for Natural Images", 2001).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.train.data.prepared import prepare
from measnet.train.data.sets import ImageSet, Pair
from measnet.whole_file import write_whole

SIDE = 256  # pixels


def make_pictures(folder: Path, count: int = 12, seed: int = 0, *, leads: bool = True) -> ImageSet:
    """Fills ``folder`` with ``count`` pictures, unless it was filled before; task ``clean``.

    Under torchrun one process ``leads`` and writes, the others wait. Raises ``OutputError`` when the pictures
    cannot be written.
    """
    paths = [folder / f"{number:03}.png" for number in range(count)]

    def fill() -> None:
        for number, path in enumerate(paths):
            encoded, content = cv2.imencode(".png", dead_leaves(np.random.default_rng([seed, number])))
            assert encoded
            write_whole(path, content.tobytes())

    prepare(folder, fill, leads=leads)
    return ImageSet("made-up pictures", "clean", tuple(Pair(None, path) for path in paths))


def dead_leaves(rng: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """One picture, side x side x 3, uint8: radii from 3 pixels to a third of the side, density r^-3."""
    picture = np.zeros((side, side, 3), np.uint8)
    smallest, largest = 3.0, side / 3
    for _ in range(4000):
        u = rng.random()
        radius = (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5
        centre = rng.integers(0, side, 2).tolist()
        colour = rng.integers(10, 246, 3).tolist()
        cv2.circle(picture, centre, int(radius), colour, -1)
    return picture
