"""``measnet-run``: restores videos, images, folders of images and live streams.

Only options are read here; everything heavy is imported once there is something to do, so that
``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import INTERRUPTED
from measnet.errors import MEASNetError, UsageError
from measnet.headed_help import HeadedCommand

if TYPE_CHECKING:
    from measnet.runtime.background import BackgroundChecker
    from measnet.runtime.compare.comparison import Comparison
    from measnet.runtime.compare.layout import Layout
    from measnet.runtime.console import Console
    from measnet.runtime.experts import Experts
    from measnet.runtime.frame import Frame
    from measnet.runtime.guard import Guard
    from measnet.runtime.job import Job, JobOptions
    from measnet.runtime.overall import Overall
    from measnet.runtime.preview.preview import Preview
    from measnet.runtime.report import RunReport
    from measnet.runtime.restorer import Restorer
    from measnet.runtime.sources.options import SourceOptions

_EXAMPLES = """\b
Examples:
  measnet-run clip.mp4                        writes clip.restored.mp4 beside it
  measnet-run photo.jpg shots/                photo.restored.jpg and shots.restored/
  measnet-run clip.mp4 -o out.mkv --crf 14    elsewhere, in better quality
  measnet-run clip.mp4                        again, when it was cut off: goes on where it was
  measnet-run clip.mp4 --start 1:30 --duration 10   ten seconds of it, exact to the frame
  measnet-run clip.mp4 --dry-run              what would happen, and how long it would take
  measnet-run clip.mp4 --strength 0.7         leave some of the grain
  measnet-run clip.mp4 --compare slider       and a page that shows both, with a slider between
  measnet-run clip.mp4 --preview              source and result in a window, or in the terminal
  measnet-run clip.mp4 --verify 1/30          check every 30th frame against PyTorch
  ffmpeg ... -f yuv4mpegpipe - | measnet-run - -o - | ffmpeg -i - ...   in the middle of a pipe
  measnet-run camera:0 -o door.mp4            a camera, until Ctrl-C
  measnet-run rtsp://cam/stream -o yard.mkv --frames 1000

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""


PLACES = ("auto", "window", "terminal")

HEADINGS = {
    "Result": (
        *("out", "overwrite", "strength", "compare", "codec", "crf", "preset", "bits", "pixel_format"),
        *("sound", "raw_out"),
    ),
    "Which part of the input, and how it is read": (
        *("start", "duration", "frames", "interlaced", "track", "keep_tracks", "raw"),
    ),
    "What restores": ("model", "backend", "tile", "threads"),
    "Checks on the way": ("verify", "verify_share", "checkpoint", "on_fault"),
    "The run itself": ("dry_run", "preview", "report", "restart", "quiet", "debug", "version"),
}


def _tile(context: click.Context, option: click.Parameter, value: str) -> int | str:
    if value in ("auto", "off"):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter("must be auto, off or a number of pixels", context, option)


def _every(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """``1/200`` and ``200``: every 200th."""
    if value is None:
        return None
    number = value.removeprefix("1/")
    if not number.isdecimal() or int(number) < 1:
        raise click.BadParameter("must be a share of the frames such as 1/200", context, option)
    return int(number)


def _time(context: click.Context, option: click.Parameter, value: str | None) -> Fraction | None:
    if value is None:
        return None
    from measnet.runtime.sources.excerpt import parse_time

    try:
        return parse_time(value)
    except UsageError as error:
        raise click.BadParameter(str(error), context, option) from None


class _RunCommand(HeadedCommand):
    """``--preview`` may stand alone, whatever follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        pairs = zip(args, [*args[1:], ""], strict=True)
        return super().parse_args(
            ctx,
            [
                "--preview=auto" if word == "--preview" and after not in PLACES else word
                for word, after in pairs
            ],
        )


@click.command(
    cls=_RunCommand,
    headings=HEADINGS,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--out", metavar="PATH", help="Result; its ending says which kind of file.")
@click.option(
    "--model",
    default="nano",
    show_default=True,
    metavar="NAME|FILE",
    help="nano, nano-five-task, or an .onnx, .engine or .ckpt file.",
)
@click.option(
    "--backend",
    type=click.Choice(
        [
            "auto",
            *("onnxruntime", "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"),
            *("tensorrt", "torch"),
        ]
    ),
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What computes: auto, onnxruntime, onnxruntime-cpu, -cuda or -tensorrt, tensorrt, torch.",
)
@click.option(
    "--verify",
    callback=_every,
    metavar="1/N",
    help="Check one frame in N against PyTorch, in the background.",
)
@click.option(
    "--verify-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    metavar="0..1",
    help="Most of the time that checking may take; frames beyond it are left out.",
)
@click.option("--checkpoint", metavar="FILE", help="With --verify: what .onnx or .engine came from.")
@click.option(
    "--on-fault",
    type=click.Choice(["fallback", "stop", "ignore"]),
    default="fallback",
    show_default=True,
    help="When a frame comes back black, frozen or not at all: go on in float32, stop, or count.",
)
@click.option(
    "--tile",
    default="auto",
    show_default=True,
    callback=_tile,
    metavar="N",
    help="Restore in squares of N pixels; auto: where memory asks for it; off: never.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for the engine.")
@click.option("--crf", type=click.IntRange(0, 63), metavar="0..63", help="Video quality, lower is better.")
@click.option(
    "--codec",
    metavar="NAME",
    help="Video codec: h264, hevc, vp9, av1, prores, ffv1, or a graphics card's, as h264_nvenc.",
)
@click.option(
    "--bits", type=click.Choice(["8", "10", "12", "16"]), help="Per channel of a video; else as the source."
)
@click.option("--pixel-format", metavar="NAME", help="Of a video, as yuv422p10le; else as the source.")
@click.option(
    "--sound",
    type=click.Choice(["copy", "convert", "none"]),
    default="copy",
    show_default=True,
    help="Copy it or refuse; convert it where the file cannot hold it; leave it out.",
)
@click.option("--preset", metavar="NAME", help="Encoder effort, in the encoder's own words.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    metavar="0..1",
    help="Share of the restored picture; the rest is the source.",
)
@click.option(
    "--compare",
    type=click.Choice(["side", "split", "slider"]),
    help="Also make NAME.compare: source and result side by side, half and half, or as a page with a slider.",
)
@click.option(
    "--start", metavar="TIME", callback=_time, help="Begin there: seconds or [hh:]mm:ss.fff of the video."
)
@click.option("--duration", metavar="TIME", callback=_time, help="Restore so much of it.")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.")
@click.option(
    "--interlaced",
    type=click.Choice(["deinterlace", "refuse", "keep"]),
    default="deinterlace",
    show_default=True,
    help="What to do with frames that the decoder finds interlaced.",
)
@click.option(
    "--track", type=click.IntRange(min=1), metavar="N", help="Which of several video tracks, from 1."
)
@click.option("--keep-tracks", is_flag=True, help="Copy the other video tracks as they are.")
@click.option("--raw", metavar="WxH:FORMAT@RATE", help="INPUT is raw video: 640x360:yuv420p@25.")
@click.option(
    "--raw-out", type=click.Choice(["rgb24", "bgr24"]), help="With -o -: bare pixels instead of y4m."
)
@click.option(
    "--dry-run", is_flag=True, help="Try a few frames, say what would happen and how long it takes."
)
@click.option(
    "--preview",
    type=click.Choice(PLACES),
    help="Show source and result meanwhile; alone: a window, else the terminal.",
)
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Figures as JSON, and beside it as .svg a picture of who restored what.",
)
@click.option("--restart", is_flag=True, help="Begin anew what an earlier run left unfinished.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="measnet", prog_name="measnet-run")
def main(inputs: tuple[str, ...], **options: Any) -> None:
    """Restore noisy, hazy, rainy, blurred or dark videos and images.

    INPUT is a video, an image, a folder of images, camera:N, a stream's address, or - for standard
    input. Several, or a pattern ('shots/*.png'), are restored one after another.
    """
    from measnet.runtime.console import Console
    from measnet.runtime.patterns import expanded

    console = Console(quiet=options["quiet"], stdout_taken=options["out"] == "-")
    try:
        inputs = expanded(inputs)
    except UsageError as error:
        console.error(str(error))
        sys.exit(error.exit_code)
    session = _Session(console, options, several=len(inputs) > 1)
    try:
        status = session.run(inputs)
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


class _Session:
    """All inputs of one command, with the engine they share."""

    def __init__(self, console: Console, options: dict[str, Any], *, several: bool) -> None:
        self._console = console
        self._options = options
        self._several = several
        self._stop = threading.Event()
        self._restorer: Restorer | None = None
        self._reports: dict[int, RunReport] = {}
        self._overall: Overall | None = None
        self._preview: Preview | None = None
        self._last_was_picture = False

    def run(self, inputs: tuple[str, ...]) -> int:
        """The exit status: that of the first input that failed."""
        status = self._guarded(partial(self._check_report, inputs))
        if status:
            return status
        with self._stopping_on_signals():
            numbers = list(range(len(inputs)))
            if self._several:
                status, numbers = self._look_ahead(inputs)
            if self._options["preview"] is not None and not self._options["dry_run"] and numbers:
                layout: Layout = "split" if self._options["compare"] == "split" else "side"
                self._preview = self._console.preview(self._options["preview"], layout)
            for place, index in enumerate(numbers):
                if self._overall is not None:
                    self._overall.begin(place)
                outcome = self._guarded(partial(self._restore, index, inputs[index]))
                status = status or outcome
                if self._overall is not None:
                    self._overall.end()
                if self._stop.is_set():
                    break
            if self._restorer is not None:
                self._restorer.close()
            if self._preview is not None:
                if self._last_was_picture:
                    self._preview.linger(self._stop)
                self._preview.close()
        if self._several and self._options["dry_run"]:
            self._console.planned(list(self._reports.values()))
        if self._options["report"] is not None:
            outcome = self._guarded(self._write_report)
            status = status or outcome
        return status

    def _look_ahead(self, inputs: tuple[str, ...]) -> tuple[int, list[int]]:
        """Says at once what cannot be restored; the exit status of that, and the numbers of the others."""
        from measnet.runtime.overall import Amount, Overall
        from measnet.runtime.report import RunReport
        from measnet.runtime.survey import Survey

        amounts: dict[int, Amount] = {}
        survey: Survey | None = None

        def look_at(index: int) -> int:
            nonlocal survey
            try:
                self._check_out(inputs[index])
                survey = survey or Survey(self._job_options())
                amounts[index] = survey.look_at(inputs[index])
            except MEASNetError as error:
                self._reports[index] = RunReport(input=inputs[index], error=str(error))
                raise
            return 0

        status = 0
        for index in range(len(inputs)):
            outcome = self._guarded(partial(look_at, index))
            status = status or outcome
        self._overall = Overall(list(amounts.values()))
        return status, list(amounts)

    def _restore(self, index: int, spec: str) -> int:
        from measnet.runtime.job import Job
        from measnet.runtime.report import RunReport

        self._check_out(spec)
        try:
            job = Job(spec, self._job_options())
        except MEASNetError as error:
            self._reports[index] = RunReport(input=spec, error=str(error))
            raise
        self._reports[index] = job.report
        rehearsal = self._options["dry_run"]
        try:
            comparison = self._comparison(spec, job)
            restorer = self._shared_restorer()
            verifier = None if rehearsal else self._verifier(restorer)
        except BaseException as error:
            job.report.error = str(error)
            job.close()
            raise
        if rehearsal:
            job.rehearse(restorer)
            job.report.also = self._beside(comparison)
            self._console.result(job.report)
            return 0
        try:
            status = self._run_job(job, restorer, verifier)
            if status == 0 and comparison is not None and job.report.output is not None:
                status = self._compare(comparison, spec, Path(job.report.output))
            return status
        finally:
            if verifier is not None:
                verifier.close()

    def _beside(self, comparison: Comparison | None) -> list[str]:
        """What the run would do beside its result."""
        options, also = self._options, []
        if options["strength"] < 1:
            also.append(f"{options['strength']:g} of the restored picture, the rest is the source")
        if options["verify"] is not None:
            every = "every frame" if options["verify"] == 1 else f"one frame in {options['verify']}"
            also.append(f"{every} is checked against the network in float32")
        if comparison is not None:
            also.append(str(comparison.target))
        return also

    def _run_job(self, job: Job, restorer: Restorer, verifier: BackgroundChecker | None) -> int:
        from measnet.runtime.guard import Guard, safer_than

        options = self._options
        guard = Guard(restorer, options["on_fault"], partial(safer_than, restorer, options["checkpoint"]))
        try:
            with self._console.progress(
                job.target.name, job.length, overall=self._overall, preview=self._preview
            ) as on_progress:
                job.run(
                    guard,
                    verifier,
                    self._stop,
                    on_progress,
                    self._console.note,
                    self._begun_preview(job),
                    self._new_record(job, guard),
                )
        finally:
            guard.close()
            job.report.faults = guard.faults.for_report()
            if job.report.status != "failed":
                self._console.result(job.report)
        return INTERRUPTED if job.report.status == "partial" else 0

    def _new_record(self, job: Job, guard: Guard) -> Callable[[int], Experts] | None:
        if self._options["report"] is None:
            return None
        from measnet.runtime.experts import Experts

        by_number = job.info.kind == "images"
        return partial(Experts, by_number=by_number, faults=lambda: guard.faults.frames)

    def _begun_preview(self, job: Job) -> Callable[[Frame, Frame], None]:
        """What is to be called with every frame of ``job`` and what became of it."""
        self._last_was_picture = job.info.kind == "images" and job.info.frames == 1
        if self._preview is None:
            return lambda source, restored: None
        self._preview.begin(job.info)
        return self._preview.offer

    def _comparison(self, spec: str, job: Job) -> Comparison | None:
        how = self._options["compare"]
        if how is None:
            return None
        if "-" in (spec, self._options["out"]):
            raise UsageError("--compare needs both the source and the result in a file")
        if how == "slider" and self._options["start"]:
            raise UsageError(
                "--compare slider shows the source from its beginning, not from --start; use side or split"
            )
        from measnet.runtime.compare.comparison import Comparison

        return Comparison(Path(spec), job.info, job.target, how, overwrite=self._options["overwrite"])

    def _compare(self, comparison: Comparison, spec: str, result: Path) -> int:
        from measnet.runtime.sources.choose import open_source

        with self._console.counting(comparison.target.name) as on_progress:
            whole = comparison.make(
                result,
                lambda: open_source(spec, self._source_options()),
                crf=self._options["crf"],
                on_progress=on_progress,
                stop=self._stop,
            )
        if not whole:
            return INTERRUPTED
        self._console.also(comparison.target)
        return 0

    def _job_options(self) -> JobOptions:
        from measnet.runtime.job import JobOptions

        options = self._options
        return JobOptions(
            out=options["out"],
            overwrite=options["overwrite"],
            codec=options["codec"],
            crf=options["crf"],
            preset=options["preset"],
            bits=options["bits"] and int(options["bits"]),
            pixel_format=options["pixel_format"],
            sound=options["sound"],
            frames=options["frames"],
            verify_every=options["verify"],
            strength=options["strength"],
            source=self._source_options(),
            raw_out=options["raw_out"],
            tile=options["tile"],
            threads=options["threads"],
            on_fault=options["on_fault"],
            restart=options["restart"],
        )

    def _source_options(self) -> SourceOptions:
        from measnet.runtime.sources.excerpt import Excerpt
        from measnet.runtime.sources.options import SourceOptions
        from measnet.runtime.sources.raw import parse_raw

        options = self._options
        return SourceOptions(
            excerpt=Excerpt(options["start"], options["duration"]),
            interlaced=options["interlaced"],
            track=options["track"],
            keep_tracks=options["keep_tracks"],
            raw=None if options["raw"] is None else parse_raw(options["raw"]),
        )

    def _check_out(self, spec: str) -> None:
        out = self._options["out"]
        if self._several and out is not None and not Path(out).is_dir():
            raise UsageError(f"--out {out} is one place for several inputs; give an existing folder instead")

    def _shared_restorer(self) -> Restorer:
        if self._restorer is None:
            from measnet.runtime.restorer import Restorer

            options = self._options
            self._restorer = Restorer(
                options["model"],
                options["backend"],
                tile=options["tile"],
                threads=options["threads"],
            )
        return self._restorer

    def _verifier(self, restorer: Restorer) -> BackgroundChecker | None:
        if self._options["verify"] is None:
            return None
        from measnet.runtime.background import BackgroundChecker
        from measnet.runtime.parity import Verifier

        verifier = Verifier(restorer, self._options["checkpoint"])
        return BackgroundChecker(verifier, self._options["verify_share"])

    def _check_report(self, inputs: tuple[str, ...]) -> int:
        """The report must not take the place of what is read."""
        report = self._options["report"]
        if report is not None and report.exists():
            from measnet.runtime.sinks.aside import is_same

            for read in (*inputs, self._options["model"], self._options["checkpoint"]):
                if read is not None and is_same(Path(read), report):
                    raise UsageError(f"--report {report} is what is read; give it another name")
        return 0

    def _write_report(self) -> int:
        from measnet.runtime.report import write_pictures, write_reports

        reports = [self._reports[index] for index in sorted(self._reports)]
        for picture in write_pictures(self._options["report"], reports):
            self._console.also(picture)
        write_reports(self._options["report"], reports)
        return 0

    def _guarded(self, step: Callable[[], int]) -> int:
        """The exit status of ``step``; its error becomes one line, unless --debug."""
        try:
            return step()
        except MEASNetError as error:
            if self._options["debug"]:
                raise
            self._console.error(str(error))
            return error.exit_code
        except Exception as error:
            if self._options["debug"]:
                raise
            self._console.error(
                f"{type(error).__name__}: {error} (a fault of this program; --debug shows where)"
            )
            return 1

    @contextlib.contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks for a tidy end, the second ends at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
