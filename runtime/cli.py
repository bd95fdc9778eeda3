"""``measnet-run``: restores videos, images, folders of images and live streams.

Only options are read here; everything heavy is imported once there is something to do, so that
``--help`` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import click

from measnet.command_line import HELP, read_by, run_command, status_of
from measnet.headed_help import HeadedCommand
from measnet.number_options import Number, WholeNumber
from measnet.runtime.live.credentials import hide_arguments
from measnet.runtime.options import (
    Checks,
    Encoding,
    EngineOptions,
    Live,
    Operating,
    Reading,
    RunOptions,
    flag,
)

if TYPE_CHECKING:
    from measnet.runtime.console import Console
    from measnet.runtime.restorer import Restorer

_USUAL_EXAMPLES = """\b
Examples:
  measnet-run clip.mp4                    writes clip.restored.mp4 beside it; again: goes on
  measnet-run photo.jpg shots/            photo.restored.jpg and shots.restored/
  measnet-run clip.mp4 --compare slider   and a page that shows both, with a slider between
  measnet-run clip.mp4 --dry-run          what would happen, and how long it would take
  measnet-run camera:0 -o door.mp4        a camera, until Ctrl-C; or rtsp://cam/stream

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""

_EXAMPLES = """\b
Examples:
  measnet-run clip.mp4                        writes clip.restored.mp4 beside it
  measnet-run photo.jpg shots/                photo.restored.jpg and shots.restored/
  measnet-run clip.mp4 -o out.mkv --crf 14    elsewhere, in better quality
  measnet-run clip.mp4                        again, when it was cut off: goes on where it was
  measnet-run clip.mp4 --start 1:30 --duration 10   ten seconds of it, exact to the frame
  measnet-run clip.mp4 --dry-run              what would happen, and how long it would take
  measnet-run clip.mp4 --strength 0.7         leave some of the grain
  measnet-run clip.mp4 --steady 0             each frame for itself, whatever flickers
  measnet-run clip.mp4 --temporal 0           and none helped by those before it: faster, noisier
  measnet-run clip.mp4 --task dehaze          held to haze, whatever the frames look like
  measnet-run clip.mp4 --compare slider       and a page that shows both, with a slider between
  measnet-run clip.mp4 --preview              source and result in the terminal
  measnet-run clip.mp4 --verify 1/30          check every 30th frame against PyTorch
  ffmpeg ... -f yuv4mpegpipe - | measnet-run - -o - | ffmpeg -i - ...   in the middle of a pipe
  measnet-run camera:0 -o door.mp4            a camera, until Ctrl-C
  measnet-run rtsp://cam/stream -o yard.mkv --frames 1000

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""


USUAL = (
    *("out", "overwrite", "model", "strength", "task", "temporal", "compare", "crf", "start", "duration"),
    *("verify", "tile", "dry_run", "preview", "report", "quiet"),
)

HEADINGS = {
    "Result": (
        *(
            "out",
            "parts",
            "overwrite",
            "strength",
            "task",
            "steady",
            "temporal",
            "compare",
            "codec",
            "crf",
            "preset",
            "bits",
        ),
        *("pixel_format", "sound", "raw_out"),
    ),
    "Which part of the input, and how it is read": (
        *("start", "duration", "frames", "interlaced", "track", "keep_tracks", "raw"),
    ),
    "What restores": ("model", "backend", "tile", "memory", "threads", "ray"),
    "Checks on the way": ("verify", "verify_share", "checkpoint", "on_fault"),
    "Cameras and streams": ("late", "max_latency", "ladder", "reconnect", "insecure"),
    "Who looks after it": ("console", "metrics", "log"),
    "The run itself": ("dry_run", "preview", "report", "restart", "quiet", "debug", "version", "help_all"),
}


class _BackendName(click.Choice[str]):
    """Takes the address of a Triton server as well as names."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.choices or str(value).startswith("triton://"):
            return str(value)
        self.fail(
            f"there is no backend {str(value)!r}; choose one of {', '.join(self.choices)} or "
            "triton://HOST:PORT/MODEL",
            param,
            ctx,
        )


BACKEND = _BackendName(
    [
        *("auto", "onnxruntime", "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"),
        *("tensorrt", "torch"),
    ]
)


def options_of(*kinds: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command every option that ``kinds`` declare, in their order."""

    def declare(command: Callable[..., Any]) -> Callable[..., Any]:
        for kind in reversed(kinds):
            hints = get_type_hints(kind)
            for one in reversed(fields(kind)):
                if "words" in one.metadata:
                    command = _declared(one, hints[one.name])(command)
        return command

    return declare


def _declared(one: Field[Any], hint: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    how = one.metadata
    several = one.default == ()
    parse = None if how.get("late") or "choices" in how else how.get("parse")
    return click.option(
        *how.get("names", (flag(one.name),)),
        one.name,
        type=BACKEND if one.name == "backend" else _type_of(hint, how),
        default=None if several else one.default,
        is_flag=hint is bool,
        multiple=several,
        show_default=one.default not in (None, False, ()),
        callback=None if parse is None else read_by(parse),
        metavar=how.get("metavar"),
        help=how["words"],
    )


def _type_of(hint: Any, how: Mapping[str, Any]) -> Any:
    """The type that click reads an option by; None reads text, or a flag."""
    if "parse" in how:
        return click.Choice(how["choices"]) if "choices" in how else None
    if NoneType in get_args(hint):
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    if "between" in how:
        return (WholeNumber if hint is int else Number)(**how["between"])
    return click.Path(path_type=Path) if hint is Path else None


@click.command(
    cls=HeadedCommand,
    headings=HEADINGS,
    usual=USUAL,
    usual_epilog=_USUAL_EXAMPLES,
    epilog=_EXAMPLES,
    context_settings=HELP,
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options_of(RunOptions, Operating, Reading, EngineOptions, Checks, Live, Encoding)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Restore all files of folders into -o FOLDER by the workers of a Ray cluster; local: here.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet", prog_name="measnet-run")
@click.pass_obj  # opens the engine; None where the command is called by its name
def main(
    opens: Callable[[RunOptions], Restorer] | None,
    /,
    inputs: tuple[str, ...],
    ray: str | None,
    quiet: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Restore noisy, hazy, rainy or dark videos and images.

    INPUT is a video, an image, a folder of images, camera:N, a stream's address, or - for standard
    input. Several, or a pattern ('shots/*.png'), are restored one after another.
    """

    def run() -> int:
        hide_arguments()
        from measnet.runtime.console import Console

        # SVT-AV1 tells its settings on stderr, unless it is to tell errors.
        os.environ.setdefault("SVT_LOG", "1")
        kind = Console
        if values["log"] == "json":
            from measnet.runtime.operations.log import JsonConsole

            kind = JsonConsole
        console = kind(quiet=quiet, stdout_taken="-" in values["out"])
        return status_of(partial(restore, console), debug=debug, tell=console.error)

    def restore(console: Console) -> int:
        options = RunOptions.named(values)
        if ray is None:
            from measnet.runtime.session import Session

            return Session(console, options, debug=debug, opens=opens).run(inputs)
        from measnet.runtime.fleet.run import restore_archive

        return restore_archive(ray, inputs, options, console)

    run_command(run, debug=debug)
