"""``measnet-eval``: a model's gain in dB, compared with the paper, a classical tool or another model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import HELP, read_by, run_command, say
from measnet.evaluation.request import Request
from measnet.headed_help import HeadedCommand
from measnet.number_options import WholeNumber
from measnet.printable import printable
from measnet.runtime.options import parse_tile

if TYPE_CHECKING:
    from rich.progress import Progress

    from measnet import Restorer
    from measnet.evaluation.cases import PictureCases
    from measnet.evaluation.contact_sheet import ContactSheet
    from measnet.evaluation.measure import SetFigures
    from measnet.evaluation.video.figures import VideoFigures
    from measnet.evaluation.video.measure import VideoOptions
    from measnet.evaluation.video.sheet import VideoSheet
    from measnet.image import Pixels

_PATH = click.Path(path_type=Path)
_EXAMPLES = """\b
Examples:
  measnet-eval --data datasets/                          every published set found there
  measnet-eval --clean McMaster/ --sigma 25 --classical  noise, against non-local means
  measnet-eval --pairs derain=rain/ --contact-sheet worst.jpg
  measnet-eval --model x.ckpt --against x.onnx --data datasets/ --report loss.json
  measnet-eval --video noisy.mp4 --video-target clean.mp4
  measnet-eval --video clips/ --degrade sensor:18,h264:28 --classical --contact-sheet x.png

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""
HEADINGS = {
    "Models": ("model", "against", "backend", "against_backend", "tile", "threads", "temporal"),
    "Pictures": ("data", "pairs", "clean", "sigma", "protocol"),
    "Video": ("video", "video_target", "degrade", "video_task"),
    "Both": ("tasks", "seed", "limit", "classical", "report", "contact_sheet", "debug", "version"),
}


@click.command(cls=HeadedCommand, headings=HEADINGS, epilog=_EXAMPLES, context_settings=HELP)
@click.option(
    "--model",
    multiple=True,
    metavar="MODEL",
    help="nano, .onnx, .ckpt; twice: side by side.  [default: nano]",
)
@click.option("--against", metavar="MODEL", help="A second model, whose loss is told.")
@click.option("--backend", default="auto", show_default=True, help="What computes, as in measnet-run.")
@click.option(
    "--against-backend", metavar="NAME", help="What computes the second model.  [default: as the first]"
)
@click.option("--data", multiple=True, type=_PATH, metavar="FOLDER", help="Data sets in the authors' layout.")
@click.option("--pairs", multiple=True, metavar="TASK=FOLDER", help="A folder with input/ and target/.")
@click.option("--clean", multiple=True, type=_PATH, metavar="FOLDER", help="Clean pictures, to be noised.")
@click.option(
    "--video",
    multiple=True,
    type=_PATH,
    metavar="PLACE",
    help="A file, a folder of frames, or a folder of such.",
)
@click.option("--video-target", multiple=True, type=_PATH, metavar="PLACE", help="The same without the harm.")
@click.option(
    "--degrade", metavar="STEP,STEP", help="Of a clean --video: noise, sensor, haze, lowlight, h264, hevc."
)
@click.option(
    "--video-task",
    default="denoise",
    show_default=True,
    metavar="TASK",
    help="What was done to it.",
)
@click.option(
    "--temporal",
    type=WholeNumber(0, 64),
    default=12,
    show_default=True,
    metavar="FRAMES",
    help="Frames that help each other; 0: each alone.",
)
@click.option("--tasks", metavar="TASK,TASK", help="Measure these tasks only.")
@click.option("--sigma", multiple=True, type=WholeNumber(1, 255), help="Noise levels.  [default: 15, 25, 50]")
@click.option("--seed", default=0, show_default=True, type=WholeNumber(min=0), help="Of the noise.")
@click.option(
    "--limit",
    type=WholeNumber(min=1),
    metavar="N",
    help="Pictures of a set, frames of a video.",
)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "full"]),
    default="paper",
    show_default=True,
    help="As published, or in full, as video always is.",
)
@click.option(
    "--tile", default="auto", show_default=True, callback=read_by(parse_tile), help="As in measnet-run."
)
@click.option("--threads", type=WholeNumber(min=1), metavar="N", help="To compute.  [default: all]")
@click.option("--classical", is_flag=True, help="Measure classical tools too.")
@click.option("--report", type=_PATH, metavar="FILE", help="Figures as JSON, per picture too.")
@click.option(
    "--contact-sheet",
    type=_PATH,
    metavar="FILE",
    help="The worst cases, stills of video: .jpg or .png.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet", prog_name="measnet-eval")
def main(debug: bool, **options: Any) -> None:
    """Measure PSNR and SSIM of a model on pictures and on video, and of two models side by side.

    Pictures: the gain, and the paper's tables with published figures. Video: each frame alone and fused
    with those before it, flicker, warping error, worst frame and speed.
    """
    request = Request(**options)
    run_command(lambda: _run(request), debug=debug, interrupted="stopped; nothing was written")


def _run(request: Request) -> None:
    from measnet.evaluation.contact_sheet import ContactSheet
    from measnet.evaluation.evaluation_report import Conditions, write_report
    from measnet.evaluation.panels import stacked, write_picture
    from measnet.evaluation.protocol import PROTOCOLS
    from measnet.evaluation.table import tables
    from measnet.evaluation.video.sheet import VideoSheet
    from measnet.evaluation.video.table import video_tables
    from measnet.evaluation.video.video_report import video_report

    request.check_results()
    models = request.models()
    found = request.sets(lambda line: say(f"warning: {line}", err=True))
    sets, videos = request.wanted(found, request.videos())
    sheet, video_sheet = (ContactSheet(), VideoSheet()) if request.contact_sheet else (None, None)
    figures: list[SetFigures] = []
    video_figures: VideoFigures | None = None
    names = [Path(model).name for model, _ in models]
    if len(names) == 2:
        names = [f"{letter} {name}" for letter, name in zip("AB", names, strict=True)]
    with ExitStack() as stack:
        stack.enter_context(_threads_of_opencv(request.threads))
        restorers = [stack.enter_context(_restorer(*model, request, steered=not sets)) for model in models]
        if sets:
            figures = _measure(sets, restorers, request, sheet)
        if videos is not None:
            by_name = dict(zip(names, restorers, strict=True))
            video_figures = _measure_videos(videos, by_name, video_sheet)
        descriptions = [restorer.description for restorer in restorers]

    for name, facts in zip(names, descriptions, strict=True):
        say(f"{name}: {facts['variant']}, {facts['precision']}, {facts['backend']}")
    protocol = PROTOCOLS[request.protocol if sets else "full"]
    parts = []
    if figures:
        parts += [
            f"Protocol {protocol.name}: {protocol.text}; seed {request.seed}.\n",
            tables(figures, names),
        ]
    if videos is not None and video_figures is not None:
        parts += [_about(videos), video_tables(video_figures)]
    for line in "\n".join(parts).splitlines():
        say(line)
    if request.report is not None:
        video = None if video_figures is None or videos is None else video_report(video_figures, videos)
        conditions = Conditions(descriptions, protocol, request.seed)
        write_report(request.report, figures, conditions, video)
        say("")
        say(f"figures: {request.report}")
    if request.contact_sheet is not None and sheet is not None and video_sheet is not None:
        drawn = [sheet.draw()] if figures else []
        if video_figures is not None:
            drawn.append(video_sheet.draw(video_figures))
        write_picture(request.contact_sheet, stacked(drawn))
        say(f"to look at: {request.contact_sheet}")


def _about(videos: VideoOptions) -> str:
    """The making and judging of the videos, in a line."""
    made = f"degraded by {', then '.join(step.text for step in videos.chain)}; " if videos.chain else ""
    fused = f"up to {videos.temporal} frames fused" if videos.temporal else "each frame alone"
    return f"Video: {made}whole frames, rounded to 8 bits as a user gets them; {fused}; seed {videos.seed}.\n"


def _measure(
    sets: Sequence[PictureCases],
    restorers: Sequence[Restorer],
    request: Request,
    sheet: ContactSheet | None,
) -> list[SetFigures]:
    from measnet.evaluation.classical import TOOLS
    from measnet.evaluation.measure import measure
    from measnet.evaluation.protocol import PROTOCOLS

    found = []
    with _progress() as bar:
        for one in sets:
            task = bar.add_task(one.title, total=len(one) or None)

            def watch(*seen: Any, title: str = one.title, task: Any = task) -> None:
                bar.advance(task)
                if sheet is not None:
                    sheet.offer(title, *seen)

            found.append(
                measure(
                    one,
                    restorers,
                    PROTOCOLS[request.protocol],
                    seed=request.seed,
                    tools=TOOLS[one.task] if request.classical else (),
                    watch=watch,
                )
            )
    return found


def _measure_videos(
    videos: VideoOptions, restorers: Mapping[str, Restorer], sheet: VideoSheet | None
) -> VideoFigures:
    from measnet.evaluation.video.measure import Watcher, measure_video

    with _progress() as bar, tempfile.TemporaryDirectory(prefix="measnet-eval-") as folder:

        class Shown(Watcher):
            """Shows a measurement on a bar, and on the sheet."""

            def begin(self, title: str, frames: int | None) -> None:
                for task in bar.task_ids:
                    bar.remove_task(task)
                bar.add_task(title, total=frames)

            def frame(self, number: int, results: Mapping[str, Pixels]) -> None:
                if sheet is not None:
                    sheet.add(number, results)

            def step(self) -> None:
                bar.advance(bar.task_ids[-1])

            def note(self, line: str) -> None:
                bar.console.print(printable(f"note: {line}"), highlight=False, markup=False, soft_wrap=True)

        return measure_video(videos, restorers, Path(folder), Shown())


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _restorer(model: str, backend: str, request: Request, *, steered: bool) -> Restorer:
    from measnet import Restorer

    return Restorer(model, backend, tile=request.tile, threads=request.threads, steered=steered)


@contextmanager
def _threads_of_opencv(count: int | None) -> Iterator[None]:
    """Sets the threads of OpenCV meanwhile; None leaves all cores."""
    import cv2

    before = cv2.getNumThreads()
    try:
        if count is not None:
            cv2.setNumThreads(count)
        yield
    finally:
        cv2.setNumThreads(before)
