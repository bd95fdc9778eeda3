"""Measures the cost of looking at every frame against that of restoring it: both in turns, in one process.

python bench/health.py [--frames 12]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from measnet import Restorer
from measnet.runtime.frame import Frame
from measnet.runtime.health import Health
from measnet.runtime.sources.video import VideoFile

CLIP = Path(__file__).parents[1] / "examples" / "car-park.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    restoring, looking = [], []
    health = Health()
    with Restorer("nano") as restorer:
        frames = (item.pixels for item in VideoFile(CLIP).read() if isinstance(item, Frame))
        for pixels, _ in zip(frames, range(options.frames + 1), strict=False):
            began = time.perf_counter()
            restored = restorer(np.ascontiguousarray(pixels))
            middle = time.perf_counter()
            health.fault_in(restored, pixels)
            restoring.append(middle - began)
            looking.append(time.perf_counter() - middle)
    # The first frame of a size also pays for what is prepared once.
    restored_ms, looked_ms = (1000 * statistics.median(times[1:]) for times in (restoring, looking))
    height, width = pixels.shape[:2]
    print(
        f"{width}x{height}: restoring {restored_ms:.1f} ms, looking {looked_ms:.2f} ms, "
        f"{looked_ms / restored_ms:.2%} of it"
    )


if __name__ == "__main__":
    main()
