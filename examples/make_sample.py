"""Cuts the sample clip out of its source and adds the noise that it is there to show.

    python examples/make_sample.py car-detection.mp4

writes ``car-park.mp4`` (with noise) and ``car-park.clean.mp4`` (without) beside this script. The source is
named in README.md in this folder. Needs ffmpeg on the PATH.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from measnet.train.degradations import add_gaussian_noise

START, SECONDS = "15.2", "3"
HEIGHT, WIDTH = 360, 640
RATE = "25/2"
SIGMA = 25  # of the noise, in 8-bit steps of R, G and B
COLOUR = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


def main(source: str) -> None:
    folder = Path(__file__).parent
    cut = ["-ss", START, "-t", SECONDS, "-i", source]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    scaled = ["-vf", f"scale={WIDTH}:{HEIGHT}:flags=lanczos"]
    reader = ["ffmpeg", "-nostdin", "-v", "error", *cut, *scaled, *raw, "-"]
    content = subprocess.run(reader, check=True, stdout=subprocess.PIPE).stdout
    clean = np.frombuffer(content, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)

    rng = np.random.default_rng(0)
    noisy = [add_gaussian_noise(rng, frame.astype(np.float32) / np.float32(255), SIGMA) for frame in clean]
    for name, frames, quality in (
        ("car-park.clean.mp4", list(clean), "16"),
        ("car-park.mp4", [(frame * 255).astype(np.uint8) for frame in noisy], "23"),
    ):
        writer = ["ffmpeg", "-v", "error", "-y", *raw, "-s", f"{WIDTH}x{HEIGHT}", "-r", RATE, "-i", "-"]
        writer += [*cut, "-map", "0:v", "-map", "1:a"]
        writer += ["-vf", "scale=out_color_matrix=bt709:out_range=tv", *COLOUR]
        writer += ["-c:v", "libx264", "-preset", "slow", "-crf", quality, "-pix_fmt", "yuv420p"]
        writer += ["-c:a", "aac", "-b:a", "64k", "-movflags", "+faststart", str(folder / name)]
        subprocess.run(writer, input=b"".join(frame.tobytes() for frame in frames), check=True)


if __name__ == "__main__":
    main(sys.argv[1])
