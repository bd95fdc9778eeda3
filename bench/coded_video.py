"""Measures models on coded noisy video, each frame alone, beside ffmpeg's filters at their best setting.

    python bench/coded_video.py [--data ../shared/data/video_clean] [--model nano --model small]
    python bench/coded_video.py --frames 4 --sequences blackswan,bmx-trees --filters nlmeans    # a minute

--data holds sequences, each a folder of clean frames. Frames get Gaussian noise (8-bit RGB, clipped and
rounded, the same in every run), are made yuv420p and coded. Models and filters get the coded clip and are
held against the clean frames: PSNR over RGB and SSIM, means over the frames of a sequence, then over the
sequences. A filter is credited with the one setting of its grid that gains most in the mean, which a user
could not know beforehand.

Every decoded frame becomes RGB as measnet-run makes it, the filters' too; what they give is kept without
loss. Some filters look at the frames around, models do not. Seconds are of one core's work, per frame.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from panels import enlarged, make_folder, stacked, strip, with_most_detail, write_png

from measnet import Restorer
from measnet.command_line import run_command
from measnet.errors import InputError, MEASNetError, OutputError, UsageError
from measnet.evaluation.measure import ssim
from measnet.image import Pixels
from measnet.image_header import IMAGE_ENDINGS
from measnet.metrics import psnr
from measnet.runtime.colour import YuvWriter
from measnet.runtime.frame import Colour, Frame
from measnet.runtime.sources.video import VideoFile

Clip = list[Pixels]

ENCODERS = {"h264": "libx264", "hevc": "libx265"}
RATE = 24  # frames per second

FILTERS = {
    "hqdn3d": ("hqdn3d=4", "hqdn3d=8:6:4:4", "hqdn3d=10:7:5:5", "hqdn3d=12:9:4:4", "hqdn3d=16:12:6:6"),
    "nlmeans": (
        "nlmeans=s=4",
        "nlmeans=s=6",
        "nlmeans=s=8",
        "nlmeans=s=4:p=5:r=5",
        "nlmeans=s=5:p=5:r=5",
        "nlmeans=s=6:p=5:r=5",
        "nlmeans=s=8:p=7:r=5",
        "nlmeans=s=10:p=7:r=5",
    ),
    "atadenoise": (
        "atadenoise=0a=0.01:0b=0.02:1a=0.01:1b=0.02:2a=0.01:2b=0.02",
        "atadenoise",
        "atadenoise=0a=0.04:0b=0.1:1a=0.04:1b=0.1:2a=0.04:2b=0.1",
    ),
    "bm3d": ("bm3d=sigma=15", "bm3d=sigma=20", "bm3d=sigma=30", "bm3d=sigma=40"),
}
"""Settings that are tried, by filter; bm3d looks for no like blocks, which gained less and took longer."""

CROP = 160  # pixels: the side of a crop on the sheets
ZOOM = 2


@dataclass
class Sequence:
    """A clean clip, and its noisy one as it comes out of the codec."""

    name: str
    clean: Clip
    coded_file: Path
    coded: Clip


@dataclass
class Figures:
    """Results of one method; a dict holds one for each sequence."""

    method: str
    psnr_db: dict[str, float]
    ssim: dict[str, float]
    seconds: float | None
    """Processor time of one frame on one core."""

    shown: dict[str, Pixels]
    """The middle frame."""

    @property
    def mean_db(self) -> float:
        return mean(self.psnr_db.values())

    @property
    def mean_ssim(self) -> float:
        return mean(self.ssim.values())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data/video_clean"),
    show_default=True,
    help="A folder of sequences, each a folder of frames.",
)
@click.option("--sequences", metavar="NAME,NAME", help="These sequences only.")
@click.option("--frames", default=12, show_default=True, type=click.IntRange(1), help="Of each sequence.")
@click.option("--sigma", default=18.0, show_default=True, type=click.FloatRange(0), help="Of the noise.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the noise.")
@click.option("--codec", default="h264", show_default=True, type=click.Choice(list(ENCODERS)))
@click.option("--crf", default=28, show_default=True, type=click.IntRange(0, 51), help="The codec's quality.")
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="nano, .onnx, .safetensors. [default: nano]"
)
@click.option(
    "--filters", default=",".join(FILTERS), show_default=True, metavar="NAME,NAME", help="Of ffmpeg, or none."
)
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="Of models and filters."
)
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="All figures.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="FOLDER", help="Crops side by side, as .png."
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool, **options: Any) -> None:
    """Measure what models gain on coded noisy video, beside ffmpeg's filters."""
    run_command(lambda: measure(**options), debug=debug, interrupted="interrupted; nothing was written")


def measure(
    data: Path,
    sequences: str | None,
    frames: int,
    sigma: float,
    seed: int,
    codec: str,
    crf: int,
    models: tuple[str, ...],
    filters: str,
    threads: int,
    markdown: bool,
    json_file: Path | None,
    sheet: Path | None,
) -> None:
    wanted = [name for name in filters.split(",") if name and name != "none"]
    if unknown := [name for name in wanted if name not in FILTERS]:
        raise UsageError(f"there is no grid for the filter {unknown[0]}; choose from {', '.join(FILTERS)}")
    if shutil.which("ffmpeg") is None:
        raise UsageError("ffmpeg is not there; install it")
    restorers = {model: Restorer(model, threads=threads) for model in models or ("nano",)}
    with tempfile.TemporaryDirectory() as place:
        clips = [
            degraded(folder, frames, sigma, seed, codec, crf, Path(place))
            for folder in folders(data, sequences)
        ]
        before = figures("coded", clips, {clip.name: clip.coded for clip in clips}, None)
        found = [restored(model, restorer, clips) for model, restorer in restorers.items()]
        tried: dict[str, list[dict[str, Any]]] = {}
        for name in wanted:
            if name not in known_filters():
                say(f"{name}: left out, this ffmpeg has no such filter")
                continue
            try:
                best, tried[name] = best_setting(name, clips, threads, Path(place), before.mean_db)
            except MEASNetError as error:
                say(f"{name}: left out, {error}")
                continue
            found.append(best)
    noise = f"noise of sigma {sigma:g}, {ENCODERS[codec]} -preset medium -crf {crf}"
    print(f"{len(clips)} sequences of {', '.join(str(n) for n in lengths(clips))} frames, {noise}")
    print(table(rows(before, found), markdown))
    if json_file is not None:
        facts = {"sigma": sigma, "seed": seed, "codec": codec, "crf": crf, "frames": lengths(clips)}
        told = {**facts, "threads": threads, "methods": [as_json(one, before) for one in (before, *found)]}
        write_text(json_file, json.dumps({**told, "settings_tried": tried}, indent=2) + "\n")
    if sheet is not None:
        write_sheets(sheet, clips, before, found, list(restorers))


def folders(data: Path, sequences: str | None) -> list[Path]:
    """The sequences' folders. Raises ``InputError`` when one that was named, or any, is missing."""
    if not data.is_dir():
        raise InputError(f"{data} is not a folder of sequences")
    if sequences is not None:
        found = [data / name for name in sequences.split(",") if name]
    else:
        found = sorted(path for path in data.iterdir() if path.is_dir())
    if missing := [path for path in found if not path.is_dir()]:
        raise InputError(f"there is no sequence {missing[0]}")
    if not found:
        raise InputError(f"{data} holds no folders of frames")
    return found


def degraded(
    folder: Path, frames: int, sigma: float, seed: int, codec: str, crf: int, place: Path
) -> Sequence:
    clean = read_clean(folder, frames)
    height, width = clean[0].shape[:2]
    chance = np.random.default_rng(seed)
    writer = YuvWriter(Colour(), width, height, "420", "left")
    planes = []
    for pixels in clean:
        noisy = np.rint(np.clip(pixels + chance.normal(0, sigma, pixels.shape), 0, 255)).astype(np.uint8)
        planes.append(writer.write(noisy).to_ndarray().tobytes())
    path = place / f"{folder.name}.mkv"
    form = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", str(RATE)]
    quality = ["-preset", "medium", "-crf", str(crf), "-pix_fmt", "yuv420p"]
    if codec == "hevc":
        quality += ["-x265-params", "log-level=error"]
    ffmpeg([*form, "-i", "-", "-c:v", ENCODERS[codec], *quality, str(path)], fed=b"".join(planes))
    return Sequence(folder.name, clean, path, read_video(path, len(clean)))


def read_clean(folder: Path, frames: int) -> Clip:
    """The first frames, of even sides: the codec takes no others."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)[:frames]
    clip = []
    for path in paths:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} cannot be read as a picture")
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        clip.append(np.ascontiguousarray(picture[:height, :width, ::-1]))
    if len({picture.shape for picture in clip}) != 1:
        raise InputError(f"{folder} holds no frames, or frames of several sizes")
    return clip


def read_video(path: Path, frames: int) -> Clip:
    """Frames as measnet-run reads them."""
    source = VideoFile(path)
    try:
        clip = [np.asarray(item.pixels) for item in source.read() if isinstance(item, Frame)]
    finally:
        source.close()
    if len(clip) != frames:
        raise MEASNetError(f"{len(clip)} of {frames} frames came back from ffmpeg")
    return clip


def ffmpeg(arguments: list[str], fed: bytes | None = None) -> float:
    """Runs it and gives the seconds that cores worked. Raises ``MEASNetError`` with its last line."""
    before = worked()
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments]
    done = subprocess.run(command, input=fed, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        raise MEASNetError(f"ffmpeg failed: {next((s for s in reversed(lines) if s.strip()), 'silently')}")
    return worked() - before


def worked() -> float:
    """Seconds that cores have worked for all programs that were run; others on the machine do not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def known_filters() -> set[str]:
    listed = subprocess.run(["ffmpeg", "-v", "quiet", "-filters"], capture_output=True, text=True, check=True)
    return {words[1] for line in listed.stdout.splitlines() if len(words := line.split()) > 2}


def restored(model: str, restorer: Restorer, clips: list[Sequence]) -> Figures:
    """Every frame alone."""
    seconds: list[float] = []
    results: dict[str, Clip] = {}
    for clip in clips:
        results[clip.name] = []
        for pixels in clip.coded:
            began = time.process_time()
            results[clip.name].append(restorer(pixels))
            seconds.append(time.process_time() - began)
    found = figures(Path(model).name, clips, results, float(np.median(seconds)))
    say(f"{found.method}: {found.mean_db:.2f} dB")
    return found


def best_setting(
    name: str, clips: list[Sequence], threads: int, place: Path, before: float
) -> tuple[Figures, list[dict[str, Any]]]:
    """The setting with the best mean PSNR, and what each of them gains and takes."""
    kept: dict[str, Clip] = {}
    best, best_db, best_seconds = "", -np.inf, 0.0
    tried = []
    frames = sum(len(clip.clean) for clip in clips)
    idle = sum(filtered(clip, "null", threads, place)[1] for clip in clips)
    for setting in FILTERS[name]:
        results, worked_for = {}, -idle
        for clip in clips:
            results[clip.name], spent = filtered(clip, setting, threads, place)
            worked_for += spent
        mean_db = mean(sequence_psnr(clip, results[clip.name]) for clip in clips)
        seconds = max(0.0, worked_for / frames)
        say(f"{setting}: {mean_db - before:+.2f} dB, {seconds:.2f} s")
        tried.append({"setting": setting, "gain_db": mean_db - before, "core_seconds_per_frame": seconds})
        if mean_db > best_db:
            kept, best, best_db, best_seconds = results, setting, mean_db, seconds
    return figures(best, clips, kept, best_seconds), tried


def filtered(clip: Sequence, setting: str, threads: int, place: Path) -> tuple[Clip, float]:
    """The coded clip through a filter of ffmpeg, and the seconds of the whole, reading and writing too."""
    path = place / "filtered.mkv"
    few = ["-filter_threads", str(threads), "-threads", str(threads)]
    lossless = ["-pix_fmt", "yuv420p", "-c:v", "ffv1", str(path)]
    spent = ffmpeg([*few, "-i", str(clip.coded_file), "-vf", setting, *lossless])
    return read_video(path, len(clip.clean)), spent


def figures(method: str, clips: list[Sequence], results: dict[str, Clip], seconds: float | None) -> Figures:
    return Figures(
        method,
        {clip.name: sequence_psnr(clip, results[clip.name]) for clip in clips},
        {clip.name: sequence_ssim(clip, results[clip.name]) for clip in clips},
        seconds,
        {clip.name: results[clip.name][len(clip.clean) // 2] for clip in clips},
    )


def sequence_psnr(clip: Sequence, results: Clip) -> float:
    return mean(psnr(done, clean, peak=255) for done, clean in zip(results, clip.clean, strict=True))


def sequence_ssim(clip: Sequence, results: Clip) -> float:
    pairs = zip(results, clip.clean, strict=True)
    return mean(ssim(np.float32(done / 255), np.float32(clean / 255)) for done, clean in pairs)


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def lengths(clips: list[Sequence]) -> list[int]:
    return sorted({len(clip.clean) for clip in clips})


def rows(before: Figures, found: list[Figures]) -> list[list[str]]:
    """The table's cells, its head first. Of the coded clips a sequence's cell is the PSNR, else the gain."""
    head = ["", "PSNR, dB", "gain, dB", "SSIM", "core s/frame", *before.psnr_db]
    cells = [head, ["coded", f"{before.mean_db:.2f}", "", f"{before.mean_ssim:.3f}", ""]]
    cells[-1] += [f"{value:.2f}" for value in before.psnr_db.values()]
    for one in found:
        seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
        gain = one.mean_db - before.mean_db
        row = [one.method, f"{one.mean_db:.2f}", f"{gain:+.2f}", f"{one.mean_ssim:.3f}", seconds]
        cells.append(row + [f"{value - before.psnr_db[name]:+.2f}" for name, value in one.psnr_db.items()])
    return cells


def table(cells: list[list[str]], markdown: bool) -> str:
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )


def as_json(one: Figures, before: Figures) -> dict[str, Any]:
    return {
        "method": one.method,
        "psnr_db": one.mean_db,
        "gain_db": one.mean_db - before.mean_db,
        "ssim": one.mean_ssim,
        "core_seconds_per_frame": one.seconds,
        "sequences": {
            name: {"psnr_db": value, "gain_db": value - before.psnr_db[name], "ssim": one.ssim[name]}
            for name, value in one.psnr_db.items()
        },
    }


def write_sheets(
    folder: Path, clips: list[Sequence], before: Figures, found: list[Figures], models: list[str]
) -> None:
    """The two crops with most detail of each sequence's middle frame, the best filter's among them."""
    make_folder(folder)
    shown = [before, *sorted(found[len(models) :], key=lambda one: -one.mean_db)[:1], *found[: len(models)]]
    for clip in clips:
        clean = clip.clean[len(clip.clean) // 2]
        strips = []
        for place in with_most_detail(clean, CROP, 2):
            panels = [
                (f"{one.method} {one.psnr_db[clip.name]:.2f} dB", one.shown[clip.name]) for one in shown
            ]
            panels.append(("clean", clean))
            strips.append(strip([(name, enlarged(pixels[place], ZOOM)) for name, pixels in panels]))
        write_png(folder / f"{clip.name}.png", stacked(strips))


def write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None


def say(line: str) -> None:
    """Tells of progress, apart from the table."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
