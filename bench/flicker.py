"""Measures how much restorations of real clips flicker: each frame alone, held steady, and fused.

    python bench/flicker.py VIDEO... [--model nano] [--frames 40] [--threads 1]

Flicker is that of ``measnet.runtime.flicker``: how much the restoration changes from frame to frame beyond
what the source does, in 8-bit steps; no clean video is needed. *alone* is ``--steady 0 --temporal 0``,
*steady* ``--temporal 0``, *fused* what ``measnet-run`` does where nobody says otherwise; then how much less
that is.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from measnet import Restorer
from measnet.evaluation.video.as_run import DEPTH, VideoRestorer, describe, read_frames, with_next
from measnet.runtime.flicker import Flicker
from measnet.runtime.scene_cut import SceneCut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| clip | alone | steady | fused | fused to steady |\n|---|---|---|---|---|")
    with Restorer(options.model, threads=options.threads) as restorer:
        for path in options.videos:
            video, scenes = VideoRestorer(restorer, DEPTH, intra=describe(path).intra), SceneCut()
            measures = alone, steady, fused = Flicker(), Flicker(), Flicker()
            for pixels, following in with_next(islice(read_frames(path), options.frames)):
                cut, done = scenes.begins_with(pixels), video.restore(pixels, following)
                assert done.fused is not None
                results = (restorer.restore(pixels).pixels, done.alone, done.fused)
                for measure, result in zip(measures, results, strict=True):
                    measure.add(pixels, result, cut=cut)
            if not (alone.value and steady.value and fused.value):
                print(f"| {path.name} | nothing to compare |", flush=True)
                continue
            print(
                f"| {path.name} | {alone.value:.3f} | {steady.value:.3f} | {fused.value:.3f} "
                f"| {fused.value / steady.value - 1:+.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
