"""``python -m measnet.train.fusion``: pictures and clips in, ``trust.onnx`` out.

    python -m measnet.train.fusion photos/ --clip walk.mp4 --out trust.onnx

Scenes are made of the pictures and cut out of the clips, degraded, restored by the model and fused by the
rule; the network learns to correct the rule's trust. ``src/measnet/weights/trust.onnx`` is the one in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click
import numpy as np

from measnet.command_line import HELP, run_command, say
from measnet.errors import InputError, UsageError
from measnet.evaluation.video.as_run import read_frames
from measnet.image import Pixels
from measnet.number_options import Number, WholeNumber
from measnet.runtime.restorer import Restorer
from measnet.train.data.pictures import list_pictures
from measnet.train.fusion.learning import learn
from measnet.train.fusion.lessons import Lessons, add_lessons, draw_chain
from measnet.train.fusion.scenes import FRAMES, HEIGHT, WIDTH, made_up_scene, piece_of_clip
from measnet.train.fusion.trust_network import write_onnx
from measnet.whole_file import check_place

MOST_FRAMES = 240  # of a clip
FROM_CLIPS = 0.3  # of the scenes, where there are clips


@click.command(context_settings=HELP)
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The graph to write, .onnx."
)
@click.option(
    "--clip", "clips", multiple=True, type=click.Path(path_type=Path), help="A clean video; may be repeated."
)
@click.option(
    "--scenes", default=400, show_default=True, type=WholeNumber(min=2), help="To make; 3 MB of memory each."
)
@click.option(
    "--minutes", default=10, show_default=True, type=Number(min=0, min_open=True), help="To learn from them."
)
@click.option("--model", default="nano", show_default=True, help="Restores them, as in measnet-run.")
@click.option("--seed", default=0, show_default=True, type=WholeNumber(min=0))
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(
    pictures: Path,
    out: Path,
    clips: Sequence[Path],
    scenes: int,
    minutes: float,
    model: str,
    seed: int,
    debug: bool,
) -> None:
    """Learn how far fusion over time may trust the past, from a folder of clean PICTURES."""
    run_command(lambda: _learn(pictures, out, clips, scenes, minutes, model, seed), debug=debug)


def _learn(
    pictures: Path, out: Path, clips: Sequence[Path], scenes: int, minutes: float, model: str, seed: int
) -> None:
    if out.suffix != ".onnx":
        raise UsageError(f"--out {out} does not end in .onnx")
    check_place(out, "--out", [model, *clips])
    paths = list_pictures(pictures)
    footage = [_frames(clip) for clip in clips]
    lessons = Lessons([], [])
    with Restorer(model) as restorer:
        for number in range(scenes):
            rng = np.random.default_rng([seed, number])
            if footage and rng.random() < FROM_CLIPS:
                clean = piece_of_clip(rng, footage[int(rng.integers(len(footage)))])
            else:
                clean = made_up_scene(rng, paths)
            add_lessons(lessons, rng, clean, restorer, draw_chain(rng))
            if (number + 1) % 20 == 0:
                say(f"{number + 1} of {scenes} scenes")
    network, gain = learn(
        lessons,
        60 * minutes,
        seed,
        lambda step, gain: say(f"step {step}: {gain:+.3f} dB over the rule, on squares held out"),
    )
    write_onnx(network, out)
    say(f"{out}: {gain:+.3f} dB over the rule, on squares held out of {len(lessons.squares)}")


def _frames(clip: Path) -> list[Pixels]:
    frames = list(islice(read_frames(clip), MOST_FRAMES))
    height, width = frames[0].shape[:2] if frames else (0, 0)
    if len(frames) < FRAMES or height < HEIGHT or width < WIDTH:
        raise InputError(f"{clip}: a clip needs {FRAMES} frames of {WIDTH}x{HEIGHT} pixels at least")
    return frames
