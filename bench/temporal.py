"""Measures frames that help each other against each frame alone: noise, coded noise, and a scene that stands.

    python bench/temporal.py [--data ../shared/data/video_clean] [--model nano] [--frames 24]
    python bench/temporal.py --frames 6 --sequences blackswan,dog    # a minute

--data holds sequences, each a folder of clean frames; their middle of 448x320 is taken. Prints PSNR over RGB
in dB, means over the frames: the source, each frame alone, fused; what the last frame and the worst one gain;
the warping error of frames alone and fused (how much neighbours differ after the clean video's motion, as a
multiple of the clean video's own); and the time of fusing as a share of restoring, one thread each.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from coded_video import Clip, degraded, folders, read_clean, read_video, say, table

from measnet import Restorer
from measnet.command_line import run_command
from measnet.image import Pixels
from measnet.metrics import psnr
from measnet.runtime.temporal import TemporalFusion

SIGMA, CODED_SIGMA, CRF = 20.0, 18.0, 28
ROWS, COLUMNS = 320, 448
SAMPLE = Path(__file__).parents[1] / "examples"


@dataclass
class Case:
    """A clip as a camera would give it, and the clean one."""

    name: str
    source: Clip
    clean: Clip


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("../shared/data/video_clean"), show_default=True
)
@click.option("--sequences", metavar="NAME,...", help="Of --data; all of them if not given.")
@click.option("--model", default="nano", show_default=True)
@click.option("--frames", default=14, show_default=True, type=click.IntRange(2))
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(data: Path, sequences: str | None, model: str, frames: int, debug: bool) -> None:
    """Measure frames that help each other."""

    def work() -> int:
        cv2.setNumThreads(1)
        found = folders(data, sequences)
        rows = [["clip", "source", "alone", "fused", "last frame", "worst frame", "warping", "fused", "time"]]
        with tempfile.TemporaryDirectory() as place, Restorer(model, threads=1) as restorer:
            for make in (noisy, coded):
                cases = [make(folder, frames, Path(place)) for folder in found]
                measured = [measure(case, restorer) for case in cases]
                rows += [[case.name, *cells(values)] for case, values in zip(cases, measured, strict=True)]
                rows.append([f"mean, {make.__name__}", *cells(np.mean(measured, axis=0))])
            for case in (still(found[0], frames), sample()):
                rows.append([case.name, *cells(measure(case, restorer))])
        say(table(rows, markdown=True))
        return 0

    run_command(work, debug=debug, interrupted="interrupted; nothing was printed")


def noisy(folder: Path, frames: int, place: Path) -> Case:
    """Noise of σ 20 in every frame."""
    clean = [middle(frame) for frame in read_clean(folder, frames)]
    return Case(f"{folder.name}, σ {SIGMA:g}", noised(clean), clean)


def coded(folder: Path, frames: int, place: Path) -> Case:
    """Noise of σ 18, then H.264."""
    clip = degraded(folder, frames, CODED_SIGMA, 0, "h264", CRF, place)
    name = f"{folder.name}, σ {CODED_SIGMA:g}, CRF {CRF}"
    return Case(name, [middle(frame) for frame in clip.coded], [middle(frame) for frame in clip.clean])


def still(folder: Path, frames: int) -> Case:
    """One frame again and again, with other noise each time."""
    clean = [middle(read_clean(folder, 1)[0])] * frames
    return Case(f"a frame of {folder.name} that stands, σ {SIGMA:g}", noised(clean), clean)


def sample() -> Case:
    """The sample clip."""
    names = ("car-park.mp4", "car-park.clean.mp4")
    source, clean = (read_video(SAMPLE / name, 38) for name in names)
    return Case("examples/car-park.mp4", source, clean)


def noised(clean: Clip) -> Clip:
    chance = np.random.default_rng(0)
    return [np.rint(np.clip(c + chance.normal(0, SIGMA, c.shape), 0, 255)).astype(np.uint8) for c in clean]


def middle(frame: Pixels) -> Pixels:
    top, left = max(0, frame.shape[0] - ROWS) // 2, max(0, frame.shape[1] - COLUMNS) // 2
    return np.ascontiguousarray(frame[top : top + ROWS, left : left + COLUMNS])


def measure(case: Case, restorer: Restorer) -> list[float]:
    """PSNR of source, alone, fused and the last fused frame, the worst gain, both warping errors, time."""
    fusion = TemporalFusion()
    alone, fused, restoring, fusing = [], [], 0.0, 0.0
    for frame in case.source:
        started = time.process_time()
        alone.append(restorer(frame))
        restored = time.process_time()
        fused.append(fusion.fuse(frame, alone[-1]))
        restoring += restored - started
        fusing += time.process_time() - restored
    by_frame = [
        [psnr(a, c, peak=255) for a, c in zip(clip, case.clean, strict=True)]
        for clip in (case.source, alone, fused)
    ]
    source, single, together = map(np.array, by_frame)
    flows = [motion(b, a) for a, b in zip(case.clean, case.clean[1:], strict=False)]
    own = warping(case.clean, flows) or np.nan  # of a scene that stands it is 0
    return [
        *(source.mean(), single.mean(), together.mean(), together[-1] - single[-1]),
        *((together - single).min(), warping(alone, flows) / own, warping(fused, flows) / own),
        fusing / restoring,
    ]


def motion(now: Pixels, before: Pixels) -> np.ndarray:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = flow.calc(cv2.cvtColor(now, cv2.COLOR_RGB2GRAY), cv2.cvtColor(before, cv2.COLOR_RGB2GRAY), None)
    rows, columns = np.mgrid[: now.shape[0], : now.shape[1]].astype(np.float32)
    return found + np.dstack([columns, rows])


def warping(clip: Clip, flows: list[np.ndarray]) -> float:
    """The median over neighbours of the mean absolute difference after motion."""
    errors = []
    for before, now, flow in zip(clip, clip[1:], flows, strict=False):
        moved = cv2.remap(
            before.astype(np.float32), flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        errors.append(float(np.abs(moved - now).mean()))
    return float(np.median(errors))


def cells(values: list[float]) -> list[str]:
    source, alone, fused, last, worst, warped_alone, warped, ratio = values
    gain = f"{fused:.2f} ({fused - alone:+.2f})"
    return [
        *(f"{source:.2f}", f"{alone:.2f}", gain, f"{last:+.2f}", f"{worst:+.2f}"),
        *("–" if np.isnan(warped) else f"{value:.2f}" for value in (warped_alone, warped)),
        f"{ratio:.2f}",
    ]


if __name__ == "__main__":
    main()
