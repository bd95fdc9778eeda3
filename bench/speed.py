"""Measures frames per second of models, the whole path of one picture, models and backends in turns.

    python bench/speed.py [--model nano small FILE.onnx] [--size 360x640] [--rounds 8] [--threads 1]
                          [--backends onnxruntime torch]

Prints the median time of each by the clock, its processor time, which other work on the machine lengthens
less, and both as a ratio to the first one's: the median over the turns. Threads are the backend's:
as many as it likes, unless said.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from measnet import Restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--size", default="360x640")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "torch"])
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    restorers = {
        f"{model}, {backend}": Restorer(model, backend, threads=options.threads)
        for model in options.model
        for backend in options.backends
    }
    clocks = {"by the clock": time.perf_counter, "processor": time.process_time}
    times: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in clocks} for name in restorers}
    for turn in range(options.rounds + 1):
        for name, restorer in restorers.items():
            began = [clock() for clock in clocks.values()]
            restorer(pixels)
            took = [clock() - start for clock, start in zip(clocks.values(), began, strict=True)]
            if turn:  # the first turn warms up
                for label, spent in zip(clocks, took, strict=True):
                    times[name][label].append(spent)
    first = next(iter(times.values()))
    for name, measured in times.items():
        parts = [f"{name:32}"]
        for label, seconds in measured.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, first[label], strict=True))
            parts.append(f"{1000 * statistics.median(seconds):8.1f} ms {label} x{ratio:.2f}")
        print("  ".join(parts))


if __name__ == "__main__":
    main()
