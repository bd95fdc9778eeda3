"""Measures what models do to videos and pictures with little wrong: a restorer should leave these alone.

    python bench/left_alone.py FILE... [--models nano small] [--frames 8]

Prints for each file and model how far its mean brightness moves, in steps of 8 bits, and the PSNR between
source and result in dB, over the first frames, scaled down to 640 pixels across.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.evaluation.video.as_run import read_frames
from measnet.image import Pixels, eight_bits
from measnet.metrics import psnr

WIDEST = 640  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", nargs="+", default=["nano", "small"])
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    restorers = {model: Restorer(model) for model in options.models}
    for path in options.files:
        shown = list(frames(path, options.frames))
        for model, restorer in restorers.items():
            results = [restorer(frame) for frame in shown]
            moved = np.mean(
                [result.mean() - frame.mean() for frame, result in zip(shown, results, strict=True)]
            )
            like = np.mean(
                [psnr(result, frame, peak=255) for frame, result in zip(shown, results, strict=True)]
            )
            print(f"{path}  {model}: brightness {moved:+.1f}, {like:.2f} dB from the source", flush=True)


def frames(path: str, count: int) -> Iterator[Pixels]:
    for pixels in itertools.islice(read_frames(Path(path)), count):
        scale = min(1, WIDEST / pixels.shape[1])
        yield np.asarray(
            cv2.resize(eight_bits(pixels), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )


if __name__ == "__main__":
    main()
