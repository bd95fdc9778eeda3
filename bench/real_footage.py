"""Draws contact sheets of really degraded pictures and clips, which have no clean ones: for the eye.

    python bench/real_footage.py OUT [FILE...] [--model nano --model runs/x/best.safetensors] [--frames 1]

Without FILE it takes the noisy and hazy pictures and seven of the clips of --data. Every picture, and some
frames of every clip, are restored by each model, each frame alone. OUT gets one sheet per picture: the source
and each model's result, and the two places with most detail three times as large. Prints per picture and
model the mean absolute change, and how far the mean brightness moves, both in 8-bit steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from measnet import Restorer
from measnet.command_line import run_command
from measnet.errors import InputError, OutputError
from measnet.evaluation.panels import enlarged, stacked, strip, with_most_detail, write_picture
from measnet.image import Pixels
from measnet.image_header import IMAGE_ENDINGS
from measnet.runtime.frame import Frame
from measnet.runtime.sinks.orientation import turn_of, turned
from measnet.runtime.sources.choose import open_source

FOLDERS = ("real_degraded/noise", "real_degraded/haze")
CLIPS = (
    "rain_night_crowd.mp4",
    "flipping_a_pancake.mkv",
    "pixel7_videoOnly_cleaned.mp4",
    "chaplin.mp4",
    "realshort.mp4",
    "car-detection.mp4",
    "cockatoo.mp4",
)
WIDEST = 640  # pixels: of a whole picture on a sheet
CROP, CROPS, ZOOM = 140, 2, 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data"),
    show_default=True,
    help="Where the files are taken from that no FILE names.",
)
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="nano, .onnx, .safetensors. [default: nano]"
)
@click.option("--frames", default=1, show_default=True, type=click.IntRange(1), help="Of each clip.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool, **options: Any) -> None:
    """Restore really degraded pictures and clips, for looking at by eye."""
    run_command(lambda: restore(**options), debug=debug, interrupted="interrupted; sheets so far are kept")


def restore(
    out: Path, files: tuple[Path, ...], data: Path, models: tuple[str, ...], frames: int, threads: int
) -> None:
    paths = files or usual(data)
    restorers = {label: Restorer(model, threads=threads) for label, model in labels(models).items()}
    make_folder(out)
    unread = 0
    for path in paths:
        try:
            shown = pick(path, frames)
        except InputError as error:
            click.echo(f"error: {error}", err=True)
            unread += 1
            continue
        for number, pixels in shown:
            results = {label: restorer(pixels) for label, restorer in restorers.items()}
            name = path.name if number is None else f"{path.name}.{number}"
            for label, result in results.items():
                change = result.astype(np.float32) - pixels
                print(
                    f"{name}  {label}: change {np.abs(change).mean():.2f}, brightness {change.mean():+.2f}",
                    flush=True,
                )
            write_picture(out / f"{name}.png", sheet(pixels, results))
    if unread:
        raise InputError(f"{unread} of {len(paths)} files could not be read")


def usual(data: Path) -> tuple[Path, ...]:
    pictures = []
    for folder in FOLDERS:
        if not (data / folder).is_dir():
            raise InputError(f"{data / folder} is not a folder of pictures")
        pictures += sorted(p for p in (data / folder).iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
    return (*pictures, *(data / "video" / clip for clip in CLIPS))


def labels(models: tuple[str, ...]) -> dict[str, str]:
    """Models by what they are called on the sheets: their file's name, where no other has the same."""
    models = tuple(dict.fromkeys(models)) or ("nano",)
    names = [Path(model).name for model in models]
    return {
        name if names.count(name) == 1 else model: model for name, model in zip(names, models, strict=True)
    }


def pick(path: Path, frames: int) -> list[tuple[int | None, Pixels]]:
    """The picture, or frames spread evenly over the clip with their numbers: 8 bits, upright."""
    source = open_source(str(path))
    try:
        info = source.info
        turn = None if info.display_matrix is None else turn_of(info.display_matrix)
        length = info.frames or frames
        wanted = {int((place + 0.5) * length / frames) for place in range(frames)}
        found: list[tuple[int | None, Pixels]] = []
        number = 0
        for item in source.read():
            if not isinstance(item, Frame):
                continue
            if number in wanted:
                # More bits are rounded down to 8, as a screen would show them.
                pixels = item.pixels if item.pixels.dtype == np.uint8 else (item.pixels >> 8).astype(np.uint8)
                upright = pixels if turn is None else turned(pixels, turn)
                found.append((None if item.picture is not None else number, upright))
                if number == max(wanted):
                    break
            number += 1
    finally:
        source.close()
    if not found:
        raise InputError(f"{path}: it ends before the frame that was wanted")
    return found


def sheet(source: Pixels, results: dict[str, Pixels]) -> Pixels:
    """The whole picture in a row, and each place with most detail in one below."""
    shown = {"source": source, **results}
    strips = [strip([(label, fitted(pixels, WIDEST)) for label, pixels in shown.items()])]
    for place in with_most_detail(source, CROP, CROPS):
        strips.append(strip([(label, enlarged(pixels[place], ZOOM)) for label, pixels in shown.items()]))
    return stacked(strips)


def fitted(pixels: Pixels, widest: int) -> Pixels:
    """The picture scaled down to ``widest`` pixels across, if it is wider."""
    height, width = pixels.shape[:2]
    if width <= widest:
        return pixels
    size = (widest, max(1, round(height * widest / width)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def make_folder(folder: Path) -> None:
    """Makes it, or raises ``OutputError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}") from None


if __name__ == "__main__":
    main()
