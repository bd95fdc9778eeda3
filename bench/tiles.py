"""Measures what tiles cost in exactness: a picture in tiles against the same picture restored whole.

    python bench/tiles.py PICTURE... [--model nano] [--tile 256] [--noise 0]

Per picture: PSNR against the whole-frame result, and seam contrast, of tiles that decide each for itself, and
of tiles that are given the whole picture's decisions after 1, 2, 3, ... sweeps. Seam contrast is how much the
mean difference to the whole frame changes from the core of one tile to that of its neighbour, in 8-bit steps:
what an eye sees as a checkerboard.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.image import Image, Pixels
from measnet.metrics import psnr
from measnet.runtime.restorer import MOST_SWEEPS
from measnet.runtime.tiles import Tile, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--noise", type=float, default=0.0, help="sigma of added noise, in 8-bit steps")
    options = parser.parse_args()
    whole = Restorer(options.model, tile="off")
    tiled = Restorer(options.model, tile=options.tile)
    print(f"{options.model}, tiles of {options.tile}, noise {options.noise:g}")
    for path in options.pictures:
        pixels = read(path, options.noise)
        expected = whole.restore(pixels).image
        plan = tiled.tiles_for(*pixels.shape[:2])
        steering = tiled.unsteered()
        print(f"{path.name}, {pixels.shape[1]}x{pixels.shape[0]}, {len(plan)} tiles")
        for sweeps in range(MOST_SWEEPS + 1):
            done = tiled.restore(pixels, steering)
            tell("each for itself" if not sweeps else f"{sweeps} sweeps", done.image, expected, plan)
            assert done.decisions is not None
            steering = tiled.steer(done.decisions, 1)
        tell("as it is", tiled.restore(pixels).image, expected, plan)


def tell(name: str, found: Image, expected: Image, plan: list[Tile]) -> None:
    seam = seam_contrast(found - expected, plan)
    print(f"  {name:16} {psnr(found, expected):6.1f} dB   seam contrast {seam:6.3f}", flush=True)


def read(path: Path, noise: float) -> Pixels:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    noisy = picture[:, :, ::-1] + np.random.default_rng(0).normal(0, noise, picture.shape)
    return np.ascontiguousarray(np.clip(noisy.round(), 0, 255).astype(np.uint8))


def seam_contrast(difference: Image, tiles: list[Tile]) -> float:
    """Of ``difference`` (1 3 H W, 0 to 1): root mean square, over neighbouring tiles and channels, of how far
    apart its means over their cores are, in 8-bit steps."""
    height, width = difference.shape[2:]
    means = {
        (core.top, core.left): 255
        * difference[0, :, core.top : core.top + core.height, core.left : core.left + core.width].mean((1, 2))
        for core in cores(tiles, height, width, 1)
    }
    tops, lefts = (sorted({key[axis] for key in means}) for axis in (0, 1))
    steps = [means[top, a] - means[top, b] for top in tops for a, b in itertools.pairwise(lefts)]
    steps += [means[a, left] - means[b, left] for left in lefts for a, b in itertools.pairwise(tops)]
    return float(np.sqrt(np.mean(np.square(steps)))) if steps else 0.0


if __name__ == "__main__":
    main()
