"""What the weights are worth: PSNR before and after, on pictures they never saw.

    python bench/quality.py --clean McMaster/ --pairs derain/ [--model nano] [--report FILE.json]
    python bench/quality.py --video examples/car-park.mp4 --video-clean examples/car-park.clean.mp4

``--clean``: a folder of clean pictures; noise of sigma 15, 25 and 50 is added as the paper's protocol does
(N(0, sigma) on 8-bit pixels, clipped, truncated). ``--pairs``: a folder with ``input`` and ``target``.
Pictures are cropped at the centre to multiples of 16; results are clipped, not rounded; PSNR is over RGB,
its mean over pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet import Restorer
from measnet.metrics import psnr

Pixels = NDArray[np.uint8]


def read(path: Path) -> Pixels:
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert stored is not None, f"{path} cannot be read"
    height, width = (side // 16 * 16 for side in stored.shape[:2])
    top, left = (stored.shape[0] - height) // 2, (stored.shape[1] - width) // 2
    return np.ascontiguousarray(stored[top : top + height, left : left + width], np.uint8)


def noisy_pairs(folder: Path, sigma: int) -> Iterator[tuple[Pixels, Pixels]]:
    rng = np.random.default_rng(sigma)
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        clean = read(path)
        noisy = clean + rng.standard_normal(clean.shape) * sigma
        yield np.clip(noisy, 0, 255).astype(np.uint8), clean


def stored_pairs(folder: Path) -> Iterator[tuple[Pixels, Pixels]]:
    for path in sorted((folder / "input").iterdir()):
        yield read(path), read(folder / "target" / path.name)


def video_pairs(degraded: Path, clean: Path) -> Iterator[tuple[Pixels, Pixels]]:
    import av

    with av.open(str(degraded)) as a, av.open(str(clean)) as b:
        for x, y in zip(a.decode(video=0), b.decode(video=0), strict=True):
            yield x.to_ndarray(format="rgb24"), y.to_ndarray(format="rgb24")


def measure(restorer: Restorer, pairs: Iterator[tuple[Pixels, Pixels]]) -> dict[str, float]:
    before, after = [], []
    for degraded, clean in pairs:
        target = clean.astype(np.float32)[None].transpose(0, 3, 1, 2) / 255
        source = degraded.astype(np.float32)[None].transpose(0, 3, 1, 2) / 255
        before.append(psnr(source, target))
        after.append(psnr(np.clip(restorer.restore(degraded).image, 0, 1), target))
    gain = float(np.mean(after) - np.mean(before))
    return {
        "pictures": len(before),
        "before_db": round(float(np.mean(before)), 2),
        "after_db": round(float(np.mean(after)), 2),
        "gain_db": round(gain, 2),
        "improved": int(sum(a > b for a, b in zip(after, before, strict=True))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--clean", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--video-clean", type=Path)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    restorer = Restorer(options.model)
    rows: dict[str, dict[str, float]] = {}
    for folder in options.clean:
        for sigma in (15, 25, 50):
            rows[f"{folder.name}, noise {sigma}"] = measure(restorer, noisy_pairs(folder, sigma))
    for folder in options.pairs:
        rows[folder.name] = measure(restorer, stored_pairs(folder))
    if options.video:
        rows[options.video.name] = measure(restorer, video_pairs(options.video, options.video_clean))
    print("| set | pictures | before, dB | after, dB | gain, dB | improved |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(value) for value in row.values()) + " |")
    if options.report:
        figures = {"model": restorer.description, "sets": rows}
        options.report.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
