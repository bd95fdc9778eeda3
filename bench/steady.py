"""Measures what ``--steady`` gains in flicker, and what it costs in dB.

    python bench/steady.py VIDEO [--target CLEAN] [--model nano] [--frames 60] [--shares 0 0.9]

Flicker is that of ``measnet.runtime.flicker``: how much the restoration changes from frame to frame beyond
what the source does, in 8-bit steps. With the clean video also PSNR.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from measnet import Restorer
from measnet.evaluation.video.as_run import read_frames
from measnet.metrics import psnr
from measnet.runtime.flicker import Flicker
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.steady import Steady


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--target")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.9])
    options = parser.parse_args()
    for share in options.shares:
        restorer, steady, flicker, gains = Restorer(options.model), Steady(share), Flicker(), []
        scenes = SceneCut()
        clean = None if options.target is None else read_frames(Path(options.target))
        for pixels in islice(read_frames(Path(options.video)), options.frames):
            new_scene = scenes.begins_with(pixels)
            restored = steady.restore(restorer, pixels, new_scene=new_scene).pixels
            flicker.add(pixels, restored, cut=new_scene)
            if clean is not None:
                gains.append(psnr(restored, next(clean), peak=255))
        quality = f"   {np.mean(gains):.3f} dB" if gains else ""
        print(f"steady {share:g}: flicker {flicker.value:.4f}{quality}", flush=True)


if __name__ == "__main__":
    main()
