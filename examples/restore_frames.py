"""Restores pictures from your own program.

python examples/restore_frames.py noisy.png restored.png
"""

from __future__ import annotations

import sys

import cv2

from measnet import Restorer


def main(source: str, target: str) -> None:
    restorer = Restorer("nano", channel_order="bgr")  # OpenCV's order
    frame = cv2.imread(source)
    if frame is None:
        sys.exit(f"{source} cannot be read")
    cv2.imwrite(target, restorer(frame))


if __name__ == "__main__":
    main(*sys.argv[1:3])
