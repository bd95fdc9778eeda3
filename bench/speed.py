"""Measures frames per second of a model, the whole path of one picture, backends interleaved.

    python bench/speed.py [--model nano] [--size 360x640] [--rounds 8] [--backends onnxruntime torch]

Prints the median time of each backend and the ratio to the first one, measured in turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from measnet import Restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", default="360x640")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "torch"])
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    restorers = {name: Restorer(options.model, name) for name in options.backends}
    times: dict[str, list[float]] = {name: [] for name in restorers}
    for turn in range(options.rounds + 1):
        for name, restorer in restorers.items():
            began = time.perf_counter()
            restorer(pixels)
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - began)
    first = statistics.median(times[options.backends[0]])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratio = median / first
        print(f"{name:12} {1000 * median:8.1f} ms  {1 / median:6.2f} fps  x{ratio:.2f}")


if __name__ == "__main__":
    main()
