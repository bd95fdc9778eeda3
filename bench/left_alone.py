"""Measures what models do to videos and pictures with little wrong: a restorer should leave these alone.

    python bench/left_alone.py FILE... [--models nano small] [--frames 8]
    python bench/left_alone.py FILE... --parts [--models nano small]

Prints for each file and model how far its mean brightness moves, in steps of 8 bits, and the PSNR between
source and result in dB, over the first frames, scaled down to 640 pixels across.

With ``--parts`` the first frame of each file, at its own size, is cut into squares, each restored as a
picture of its own: a camera close to a road or a wall sees no more than that, and it looks like haze. Prints
how many of them have a colour whose mean moves by more than 3 and more than 10 steps, and which moves most.
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
SIDES = (144, 192, 288)  # of parts, pixels
DARK = 30  # steps: darker parts may well be lightened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", nargs="+", default=["nano", "small"])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--parts", action="store_true")
    options = parser.parse_args()
    restorers = {model: Restorer(model) for model in options.models}
    if options.parts:
        for model, restorer in restorers.items():
            look_at_parts(model, restorer, options.files)
        return
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


def look_at_parts(model: str, restorer: Restorer, files: list[str]) -> None:
    for side in SIDES:
        moved: list[tuple[float, str]] = []
        for path in files:
            frame = eight_bits(next(read_frames(Path(path))))
            height, width = frame.shape[:2]
            for top, left in itertools.product(
                range(0, height - side + 1, side), range(0, width - side + 1, side)
            ):
                part = frame[top : top + side, left : left + side]
                if part.mean() < DARK:
                    continue
                off = restorer(part).mean(axis=(0, 1)) - part.mean(axis=(0, 1))
                moved.append((float(np.abs(off).max()), f"{path} at {left},{top}"))
        if moved:
            far = [sum(steps > least for steps, _ in moved) / len(moved) for least in (3, 10)]
            worst, where = max(moved)
            print(
                f"{model}, {side}x{side}: {len(moved)} parts, {far[0]:.1%} moved by more than 3 steps, "
                f"{far[1]:.1%} by more than 10; {worst:.0f} at most, {where}",
                flush=True,
            )


def frames(path: str, count: int) -> Iterator[Pixels]:
    for pixels in itertools.islice(read_frames(Path(path)), count):
        scale = min(1, WIDEST / pixels.shape[1])
        yield np.asarray(
            cv2.resize(eight_bits(pixels), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )


if __name__ == "__main__":
    main()
