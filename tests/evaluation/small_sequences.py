"""Small sequences for tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

HEIGHT, WIDTH = 48, 64


def moving(count: int, *, step: int = 1, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Frames (H W 3, uint8) of a soft pattern that moves to the right by ``step`` pixels a frame."""
    grain = np.random.default_rng(5).random((height // 8 + 2, width // 8 + 40, 3)).astype(np.float32)
    scene = cv2.resize(grain, (grain.shape[1] * 8, grain.shape[0] * 8), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(scene * 180 + 40, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(pixels[:height, 160 - t * step :][:, :width]) for t in range(count)]


def write_folder(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    """The frames as 000.png, 001.png and so on."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{number:03}.png"), pixels[:, :, ::-1])
    return folder


def write_lossless(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """The frames as they are, in a video file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path
