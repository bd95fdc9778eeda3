"""Times frames of several cameras restored one by one and in batches, as measnet-serve could do it.

python bench/batching.py [--model nano] [--size 320x192] [--rounds 12] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from measnet.runtime.backends.choice import choose_backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--size", default="320x192", metavar="WxH")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    backend = choose_backend(options.model, options.backend, options.threads)
    backend.activate()
    rows, columns = backend.description.fit(height, width)
    frames = np.random.default_rng(1).random((4, 3, rows, columns), np.float32)
    seconds: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for round_number in range(options.rounds + 1):
        for batch, found in seconds.items():
            # The processor's own time: other programs on the machine do not count.
            started = time.process_time()
            for first in range(0, 4, batch):
                backend.infer(frames[first : first + batch])
            if round_number:  # the first pays for what is prepared once
                found.append((time.process_time() - started) / 4)
    print(f"{options.model} on {backend.facts['provider']}, {columns}x{rows}, {options.threads} thread(s)")
    alone = statistics.median(seconds[1])
    for batch, found in seconds.items():
        middle = statistics.median(found)
        print(f"batch of {batch}: {middle * 1e3:6.1f} ms a frame, {middle / alone:.2f} of one by one")


if __name__ == "__main__":
    main()
