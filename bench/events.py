"""Makes a clip in which something happens all the time, restores it, and shows what fusing makes of it.

    python bench/events.py SEQUENCES OUT [--model nano] [--degrade sensor:18,h264:28] [--threads 1]

``SEQUENCES`` is a folder of folders of frames: eight clean sequences of 25 frames each. They become one clip
of 480x270, 200 frames at 10 a second, with a cut between any two, and in each of them an event: a subtitle,
rain, a flash over all and one over half of the picture, a lamp that flickers, snow, a fade to black, a fade
from black with a thing that flies through, and, where the camera stands, a thing that crosses, stops and
vanishes.

Prints by event what fusing gains in its mean and in its worst frame, and how far what has just changed is
from the frame restored alone, in 8-bit steps. OUT gets sheets of five frames each: source, alone, fused, and
eight times the difference of the two.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from measnet import Restorer
from measnet.evaluation.video.as_run import DEPTH, VideoRestorer, read_frames, with_next
from measnet.evaluation.video.degrade import CodecStep, degrade_frames, encode, parse_chain
from measnet.image import Pixels
from measnet.metrics import psnr

SIZE, LENGTH = (480, 270), 25
Event = Callable[[np.ndarray, int], np.ndarray]


def _subtitle(frame: np.ndarray, number: int) -> np.ndarray:
    if 8 <= number < 18:
        text = "I never said so." if number < 13 else "You did, yesterday!"
        frame = frame.astype(np.uint8)
        for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            cv2.putText(frame, text, (110, 250), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, width, cv2.LINE_AA)
    return frame.astype(np.float64)


def _rain(frame: np.ndarray, number: int) -> np.ndarray:
    rng, drops = np.random.default_rng(number), np.zeros_like(frame)
    for x, y in rng.integers(0, SIZE, (220, 2)).tolist():
        cv2.line(drops, (x, y), (x + 4, y + 16), (190, 190, 190), 1, cv2.LINE_AA)
    return frame + drops * 0.7


def _flash(frame: np.ndarray, number: int) -> np.ndarray:
    frame = frame + 110.0 * (number == 9)
    frame[:, : SIZE[0] // 2] += 110.0 * (number == 17)
    return frame


def _lamp(frame: np.ndarray, number: int) -> np.ndarray:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    lit = np.exp(-((x - 330) ** 2 + (y - 90) ** 2) / 2 / 90**2)[..., None]
    return frame * (0.6 + 0.6 * lit * (number % 3 != 1))


def _snow(frame: np.ndarray, number: int) -> np.ndarray:
    rng, flakes = np.random.default_rng(7), np.zeros_like(frame)
    places, speeds = rng.integers(0, SIZE, (150, 2)), rng.integers(5, 14, 150)
    for (x, y), speed in zip(places.tolist(), speeds.tolist(), strict=True):
        centre = ((x + 2 * number) % SIZE[0], (y + speed * number) % SIZE[1])
        cv2.circle(flakes, centre, 1 + speed // 6, (235, 235, 235), -1, cv2.LINE_AA)
    return np.maximum(frame, flakes)


def _fade_out(frame: np.ndarray, number: int) -> np.ndarray:
    return frame * min(1.0, (LENGTH - 1 - number) / 10)


def _fade_in(frame: np.ndarray, number: int) -> np.ndarray:
    frame = frame * min(1.0, number / 8)
    return cv2.circle(frame, (24 * number - 40, 60 + 4 * number), 18, (230, 40, 40), -1, cv2.LINE_AA)


def _crossing(frame: np.ndarray, number: int) -> np.ndarray:
    if number < 21:
        x = min(10 + 18 * number, 280)
        thing = cv2.resize(frame[60:200, 180:320], (80, 80), interpolation=cv2.INTER_AREA)
        frame[150:230, x : x + 80] = 255 - thing
    return frame


EVENTS: dict[str, Event] = {
    "subtitle": _subtitle,
    "rain": _rain,
    "flashes": _flash,
    "lamp": _lamp,
    "snow": _snow,
    "fade to black": _fade_out,
    "fade from black": _fade_in,
    "crossing": _crossing,
}


def clip(folder: Path) -> Iterator[Pixels]:
    """The clean frames of the whole clip. Where a thing crosses, the first frame of the sequence stands."""
    places = sorted(path for path in folder.iterdir() if path.is_dir())
    for place, (name, event) in zip(places, EVENTS.items(), strict=False):
        first: Pixels | None = None
        for number, pixels in enumerate(read_frames(place)):
            first = pixels if first is None else first
            frame = cv2.resize(first if name == "crossing" else pixels, SIZE, interpolation=cv2.INTER_AREA)
            yield np.rint(np.clip(event(frame.astype(np.float64), number), 0, 255)).astype(np.uint8)


def degraded(frames: list[Pixels], chain: str, folder: Path) -> Iterator[Pixels]:
    """The frames after a chain of ``measnet-eval --degrade``; what a coder makes lies in ``folder``."""
    for number, step in enumerate(parse_chain(chain)):
        if isinstance(step, CodecStep):
            encode(frames, folder / f"{number}.mkv", step)
            frames = list(read_frames(folder / f"{number}.mkv"))
        else:
            frames = list(degrade_frames(frames, [step], seed=0, name="events", first=number))
    yield from frames


def sheet(rows: list[tuple[Pixels, Pixels, Pixels]]) -> Pixels:
    """A row for each frame: source, alone, fused, and the difference of the two."""
    lines = []
    for source, alone, fused in rows:
        apart = np.clip(128 + 8 * (fused.astype(np.float64) - alone), 0, 255).astype(np.uint8)
        lines.append(np.hstack([source, alone, fused, apart]))
    return np.vstack(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--degrade", default="sensor:18,h264:28")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clean = list(clip(options.sequences))
    with (
        tempfile.TemporaryDirectory() as folder,
        Restorer(options.model, threads=options.threads) as restorer,
    ):
        video, done = VideoRestorer(restorer, DEPTH), []
        for source, following in with_next(degraded(clean, options.degrade, Path(folder))):
            both = video.restore(source, following)
            assert both.fused is not None
            done.append((source, both.alone, both.fused))
    print("| event | alone, dB | fused gains, dB | worst frame | changed places off by |")
    print("|---|---|---|---|---|")
    for place, name in enumerate(EVENTS):
        gains, alone, off = [], [], [0.0]
        numbers = range(place * LENGTH, (place + 1) * LENGTH)
        for number in numbers:
            _, single, fused = done[number]
            alone.append(psnr(single, clean[number], peak=255))
            gains.append(psnr(fused, clean[number], peak=255) - alone[-1])
            if number > numbers[0]:
                changed = np.abs(clean[number].astype(float) - clean[number - 1]).mean(axis=2) > 40
                if changed.sum() > 100:
                    apart = (fused[changed].astype(float) - single[changed]).mean(axis=0)
                    off.append(float(np.abs(apart).max()))
        worst = int(np.argmin(gains))
        print(
            f"| {name} | {np.mean(alone):.2f} | {np.mean(gains):+.2f} | {gains[worst]:+.2f} ({worst}) "
            f"| {max(off):.1f} |",
            flush=True,
        )
        for part in range(0, LENGTH, 5):
            picture = sheet(done[place * LENGTH + part : place * LENGTH + part + 5])
            path = options.out / f"{name.replace(' ', '-')}-{part:02}.jpg"
            cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


if __name__ == "__main__":
    main()
