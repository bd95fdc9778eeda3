"""Restores raw frames, bytes in and bytes out, with ONNX Runtime alone: what any language can do with a graph
of ``measnet-export --io uint8-nhwc``.

    ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - |
        python examples/restore_bytes.py nano-dynamic.bytes.onnx 360x640 |
        ffmpeg -f rawvideo -pix_fmt rgb24 -s 640x360 -r 25 -i - out.mp4

The second argument is HEIGHTxWIDTH of the frames; ffmpeg's -s is width x height.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime


def main(graph: str, size: str) -> None:
    height, width = (int(side) for side in size.split("x"))
    session = onnxruntime.InferenceSession(graph, providers=onnxruntime.get_available_providers())
    while frame := sys.stdin.buffer.read(height * width * 3):
        image = np.frombuffer(frame, np.uint8).reshape(1, height, width, 3)
        (restored,) = session.run(["restored"], {"image": image})
        sys.stdout.buffer.write(restored.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:3])
