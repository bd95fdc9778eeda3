"""Makes the picture at the top of the README from the sample clip and the bundled weights.

    python examples/before_after.py

writes docs/before-after.jpg: one frame, noisy at the left, as measnet-run restores it at the right, helped by
the frames before it, and a detail of both.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.evaluation.video.as_run import DEPTH, VideoRestorer, read_frames, with_next

ROOT = Path(__file__).parents[1]
FRAME = 18
DETAIL = (slice(150, 270), slice(255, 415))  # rows and columns, shown three times as large


def main() -> None:
    video = VideoRestorer(Restorer("nano"), DEPTH)
    frames = with_next(read_frames(ROOT / "examples" / "car-park.mp4"))
    for noisy, following in islice(frames, FRAME + 1):
        restored = video.restore(noisy, following).fused

    assert restored is not None, "it is, at any depth above 0"
    middle = noisy.shape[1] // 2
    split = np.hstack([noisy[:, :middle], restored[:, middle:]])
    split[:, middle - 1 : middle + 1] = 255
    details = np.vstack([noisy[DETAIL], restored[DETAIL]])
    scale = split.shape[0] / details.shape[0]
    large = cv2.resize(details, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    gap = np.full((split.shape[0], 8, 3), 255, np.uint8)
    picture = np.hstack([split, gap, large[: split.shape[0]]])
    cv2.imwrite(str(ROOT / "docs" / "before-after.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
