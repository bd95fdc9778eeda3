"""Measures what an account of experts costs against restoring: both in turns, on one thread, in its
processor time, which a busy machine changes little.

python bench/experts.py [--frames 12] [--video CLIP]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2

from measnet import Restorer
from measnet.runtime.experts import Experts
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.sources.video import VideoFile

CLIP = Path(__file__).parents[1] / "examples" / "car-park.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--video", type=Path, default=CLIP)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    restoring, looking = [], []
    experts, scenes = Experts(), SceneCut()
    with Restorer("nano", threads=1) as restorer:
        frames = (item for item in VideoFile(options.video).read() if isinstance(item, Frame))
        for frame, _ in zip(frames, range(options.frames + 1), strict=False):
            began = time.thread_time()
            restored = restorer.restore(frame.pixels)
            middle = time.thread_time()
            passing = Restoration(frame, restored.pixels, scenes.begins_with(frame.pixels))
            passing.choices, passing.prompt_weights = restored.choices, restored.prompt_weights
            experts.finished(passing)
            restoring.append(middle - began)
            looking.append(time.thread_time() - middle)
    # The first frame of a size also pays for what is prepared once.
    restored_ms, looked_ms = (1000 * statistics.median(times[1:]) for times in (restoring, looking))
    height, width = frame.pixels.shape[:2]
    print(
        f"{width}x{height}: restoring {restored_ms:.1f} ms, keeping account {looked_ms:.2f} ms, "
        f"{looked_ms / restored_ms:.2%} of it"
    )


if __name__ == "__main__":
    main()
