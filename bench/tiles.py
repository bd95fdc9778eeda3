"""What tiles cost in exactness: a picture in tiles against the same picture restored whole.

    python bench/tiles.py PICTURE... [--model nano] [--tile 256] [--noise 0]

Per picture: PSNR against the whole-frame result, and seam contrast (how much larger the steps of the
difference to the whole frame are across the middle of what tiles share than elsewhere; 1 is no seam), of tiles
that decide each for itself, and of tiles that are given the whole picture's decisions after 1, 2, 3, ... sweeps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.image import Image, Pixels, to_image
from measnet.metrics import psnr
from measnet.runtime.restorer import SWEEPS
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
        image = to_image(pixels)
        expected = whole.restore(pixels).image
        plan = tiled.plan(*pixels.shape[:2])
        steering = tiled.steer(np.zeros(tiled.decisions_size, np.float32), 0)
        print(f"{path.name}, {pixels.shape[1]}x{pixels.shape[0]}, {len(plan)} tiles")
        for sweeps in range(SWEEPS + 2):
            done = tiled.restore(pixels, steering)
            seam = seam_contrast(done.image - expected, plan, image.shape[2:])
            name = "each for itself" if not sweeps else f"{sweeps} sweeps"
            print(f"  {name:16} {psnr(done.image, expected):6.1f} dB   seam contrast {seam:5.2f}", flush=True)
            assert done.decisions is not None
            steering = tiled.steer(done.decisions, 1)


def read(path: Path, noise: float) -> Pixels:
    picture = cv2.imread(str(path))
    assert picture is not None, path
    noisy = picture[:, :, ::-1] + np.random.default_rng(0).normal(0, noise, picture.shape)
    return np.ascontiguousarray(np.clip(noisy.round(), 0, 255).astype(np.uint8))


def seam_contrast(difference: Image, tiles: list[Tile], size: tuple[int, ...]) -> float:
    """Mean step of ``difference`` (1 3 H W) across the middle of overlaps, over its mean step elsewhere."""
    height, width = size
    middles = cores(tiles, height, width, 1)
    rows = sorted({core.top for core in middles} - {0})
    columns = sorted({core.left for core in middles} - {0})
    down = np.abs(np.diff(difference, axis=2)).mean(axis=(0, 1, 3))  # H-1
    across = np.abs(np.diff(difference, axis=3)).mean(axis=(0, 1, 2))  # W-1
    at = [down[row - 1] for row in rows] + [across[column - 1] for column in columns]
    elsewhere = np.concatenate([down, across]).mean()
    return float(np.mean(at) / elsewhere) if at and elsewhere else 1.0


if __name__ == "__main__":
    main()
