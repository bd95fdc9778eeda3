"""Measures what --task gains and costs: pairs restored freely, held to their own task, and to each other.

    python bench/tasks.py PAIRS [--model small] [--pictures 6]

PAIRS has a folder per task (dehaze, derain, ...) with input/ and target/ in it. Prints the mean PSNR in dB
over the first pictures of each, and how far the prompt alone moves the result: the mean PSNR between a
picture restored freely and as held to the task that changes it most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.image import Pixels
from measnet.metrics import psnr

Pair = tuple[Pixels, Pixels]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--pictures", type=int, default=6)
    options = parser.parse_args()
    with Restorer(options.model, "torch") as free:
        tasks = sorted(free.tasks)
        held = {task: Restorer(options.model, "torch", task=task) for task in tasks}
        print(
            "| degraded by | as it was | free | "
            + " | ".join(f"held to {task}" for task in tasks)
            + " | moved |"
        )
        print("|---" * (len(tasks) + 4) + "|")
        for folder in sorted(path for path in options.pairs.iterdir() if (path / "input").is_dir()):
            pairs = read_pairs(folder, options.pictures)
            freely = [free(degraded) for degraded, _ in pairs]
            forced = {task: [restorer(degraded) for degraded, _ in pairs] for task, restorer in held.items()}
            row = [mean_psnr([d for d, _ in pairs], pairs), mean_psnr(freely, pairs)]
            row += [mean_psnr(forced[task], pairs) for task in tasks]
            row.append(min(mean_psnr(freely, list(zip(freely, forced[t], strict=True))) for t in tasks))
            print(f"| {folder.name} | " + " | ".join(f"{figure:.2f}" for figure in row) + " |", flush=True)


def read_pairs(folder: Path, most: int) -> list[Pair]:
    names = sorted(path.name for path in (folder / "input").iterdir())[:most]
    return [(read(folder / "input" / name), read(folder / "target" / name)) for name in names]


def read(path: Path) -> Pixels:
    return np.asarray(cv2.imread(str(path)), np.uint8)[:, :, ::-1]


def mean_psnr(restored: list[Pixels], pairs: list[Pair]) -> float:
    return float(
        np.mean([psnr(done, clean, peak=255) for done, (_, clean) in zip(restored, pairs, strict=True)])
    )


if __name__ == "__main__":
    main()
