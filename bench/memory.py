"""Measures the peak memory of one inference per pixel, and the estimate that decides about tiles.

    python bench/memory.py [MODEL] [--backend onnxruntime|torch]

Each size runs in a process of its own; what the process took before the first inference is subtracted.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

SIZES = [(256, 256), (512, 512), (720, 1280), (1080, 1920)]


def one(model: str, backend: str, height: int, width: int) -> None:
    import numpy as np

    from measnet.runtime.memory import bytes_per_pixel
    from measnet.runtime.restorer import Restorer

    restorer = Restorer(model, backend, tile="off")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    restorer(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    estimate = bytes_per_pixel(restorer._backend.description.config)
    print(
        f"{height:5}x{width:<5} {(peak - before) / 2**20:8.0f} MiB  "
        f"{(peak - before) / (height * width):6.0f} B/pixel  estimate {estimate:6.0f} B/pixel"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        one(options.model, options.backend, *options.size)
        return
    for height, width in SIZES:
        own = [sys.executable, __file__, options.model, "--backend", options.backend]
        subprocess.run([*own, "--size", str(height), str(width)], check=True)


if __name__ == "__main__":
    main()
