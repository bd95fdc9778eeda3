"""Draws docs/images/tasks.jpg: frames of real footage, damaged here, as the bundled nano restores them, by
itself and told which damage it is (``--task``).

    python bench/tasks_picture.py VIDEO [--model nano] [--out docs/images/tasks.jpg]

VIDEO is a folder with two clips that phones took, both Apache-2.0: a skyline of androidx/media (2bc207851df3,
hdr10-video-with-sdr-container.mp4), and a keyboard of dmlc/decord (d2e56190286a, video_0.mov). Prints PSNR
before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.evaluation.panels import stacked, strip, write_picture
from measnet.evaluation.protocol import to_picture
from measnet.evaluation.video.as_run import read_frames
from measnet.metrics import psnr
from measnet.train.degradations.coded import Coder, code_frames
from measnet.train.degradations.haze import add_haze
from measnet.train.degradations.noise import add_gaussian_noise, add_sensor_noise
from measnet.train.degradations.picture import Picture, to_light, to_stored, to_uint8
from measnet.train.degradations.rain import add_rain

WIDTH = 480
CODER = Coder(crf=24)
Damage = Callable[[np.random.Generator, Picture], Picture]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("docs/images/tasks.jpg"))
    options = parser.parse_args()
    skyline, keyboard = (
        first_frame(options.video / name) for name in ("hdr10-video-with-sdr-container.mp4", "video_0.mov")
    )
    rows = []
    for name, clean, damage, task in (
        ("noise and H.264", keyboard, noisy, "denoise"),
        ("rain", skyline, rainy, "derain"),
        ("haze", skyline, hazy, "dehaze"),
        ("low light", skyline, dark, "lowlight"),
    ):
        damaged = code_frames([to_uint8(damage(np.random.default_rng(3), clean))], CODER)[0]
        with Restorer(options.model) as free, Restorer(options.model, task=task) as told:
            restored, also = free(damaged), told(damaged)
        figures = [psnr(pixels, to_uint8(clean), peak=255) for pixels in (damaged, restored, also)]
        print("{}: {:.2f} dB, restored {:.2f} dB, told the task {:.2f} dB".format(name, *figures))
        rows.append(strip([(f"{name}: source", damaged), ("restored", restored), (f"--task {task}", also)]))
    write_picture(options.out, stacked(rows))


def first_frame(path: Path) -> Picture:
    """Its first frame, ``WIDTH`` wide, with sides that are multiples of 8."""
    picture = to_picture(next(iter(read_frames(path))))
    height = round(picture.shape[0] * WIDTH / picture.shape[1]) // 8 * 8
    return np.asarray(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA), np.float32)


def noisy(rng: np.random.Generator, clean: Picture) -> Picture:
    return add_gaussian_noise(rng, clean, sigma=22)


def rainy(rng: np.random.Generator, clean: Picture) -> Picture:
    return add_rain(rng, clean)


def hazy(rng: np.random.Generator, clean: Picture) -> Picture:
    return add_haze(rng, clean)


def dark(rng: np.random.Generator, clean: Picture) -> Picture:
    """An eighth of the light, and the noise of a sensor that gets so little."""
    light = to_stored(to_light(clean) / np.float32(8))
    return add_sensor_noise(rng, light, shot=4e-4, read=2e-3, grain=0.0)


if __name__ == "__main__":
    main()
