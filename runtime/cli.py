"""``measnet-run``: restores videos, images, folders of images and live streams.

Only options are read here; everything heavy is imported once there is something to do, so that
``--help`` answers at once.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any, get_args

import click

from measnet.command_line import HELP, INTERRUPTED, print_any_name, read_by
from measnet.errors import MEASNetError
from measnet.headed_help import HeadedCommand
from measnet.runtime.live.title import hide_arguments
from measnet.runtime.operations.command_line import operating_options
from measnet.runtime.options import RECONNECT, PreviewPlace, RunOptions, parse_every, parse_tile, parse_time

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
  measnet-run clip.mp4 --preview              source and result in a window, or in the terminal
  measnet-run clip.mp4 --verify 1/30          check every 30th frame against PyTorch
  ffmpeg ... -f yuv4mpegpipe - | measnet-run - -o - | ffmpeg -i - ...   in the middle of a pipe
  measnet-run camera:0 -o door.mp4            a camera, until Ctrl-C
  measnet-run rtsp://cam/stream -o yard.mkv --frames 1000

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""


PLACES = get_args(PreviewPlace)

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
        """See click.ParamType."""
        return value if str(value).startswith("triton://") else super().convert(value, param, ctx)


class _RunCommand(HeadedCommand):
    """``--preview`` may stand alone, whatever follows it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        pairs = itertools.pairwise([*args, ""])
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
    usual=USUAL,
    usual_epilog=_USUAL_EXAMPLES,
    epilog=_EXAMPLES,
    context_settings=HELP,
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--out",
    multiple=True,
    metavar="PATH",
    help="Result; its ending says which kind of file, .m3u8 is for browsers. Or a receiver: rtsp://, "
    "rtmp://, srt://, udp://, tcp://. For several give it again.",
)
@click.option(
    "--parts",
    metavar="TIME",
    callback=read_by(parse_time),
    help="Of a camera or stream: begin another file after so long, NAME.0001.mp4 and on.",
)
@click.option(
    "--model",
    default="nano",
    show_default=True,
    metavar="NAME|FILE",
    help="nano, small, or an .onnx, .engine or .ckpt file.",
)
@click.option(
    "--backend",
    type=_BackendName(
        [
            "auto",
            *("onnxruntime", "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt"),
            *("tensorrt", "torch"),
        ]
    ),
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What computes: auto, onnxruntime, onnxruntime-cpu, -cuda or -tensorrt, tensorrt, torch, or "
    "triton://HOST:PORT/MODEL.",
)
@click.option(
    "--verify",
    callback=read_by(parse_every),
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
    callback=read_by(parse_tile),
    metavar="N",
    help="Restore in squares of N pixels; auto: where memory asks for it; off: never.",
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="Most that one inference may take, tiles are sized by it; else what is free.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Restore all files of folders into -o FOLDER by the workers of a Ray cluster; local: here.",
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
    "--task",
    metavar="NAME",
    help="Hold the prompt to one degradation: denoise, derain, dehaze, deblur, lowlight or compression.",
)
@click.option(
    "--steady",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="0..1",
    help="Against flicker: the share of each image-level decision that comes from the frames before.  "
    "[default: 0.9, where the model can be steered]",
)
@click.option(
    "--temporal",
    type=click.IntRange(0, 64),
    default=12,
    show_default=True,
    metavar="FRAMES",
    help="Let the frames of a video help each other: up to so many before each one. 0: none.",
)
@click.option(
    "--compare",
    type=click.Choice(["side", "split", "slider"]),
    help="Also make NAME.compare: source and result side by side, half and half, or as a page with a slider.",
)
@click.option(
    "--start",
    metavar="TIME",
    callback=read_by(parse_time),
    help="Begin there: seconds or [hh:]mm:ss.fff of the video.",
)
@click.option("--duration", metavar="TIME", callback=read_by(parse_time), help="Restore so much of it.")
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
@operating_options
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Figures as JSON, and beside it as .svg a picture of who restored what.",
)
@click.option(
    "--late",
    type=click.Choice(["drop-oldest", "drop-newest", "block"]),
    help="Which frame goes when the engine is not done; block: the source waits.  "
    "[default: drop-oldest for cameras and streams, block for files]",
)
@click.option(
    "--max-latency",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Leave out frames that are older when the engine would take them; do less per second if need be.",
)
@click.option(
    "--ladder/--no-ladder",
    default=True,
    show_default=True,
    help="With --max-latency: fewer frames, nano for small, a smaller picture, while the engine is too slow.",
)
@click.option(
    "--reconnect",
    type=click.FloatRange(0),
    default=RECONNECT,
    show_default=True,
    metavar="SECONDS",
    help="How long an outage may last before the run ends; 0: end at the first; inf: at none.",
)
@click.option(
    "--insecure", is_flag=True, help="Take any certificate of rtsps://, https:// and rtmps:// addresses."
)
@click.option("--restart", is_flag=True, help="Begin anew what an earlier run left unfinished.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="measnet", prog_name="measnet-run")
def main(inputs: tuple[str, ...], ray: str | None, quiet: bool, debug: bool, **values: Any) -> None:
    """Restore noisy, hazy, rainy, blurred or dark videos and images.

    INPUT is a video, an image, a folder of images, camera:N, a stream's address, or - for standard
    input. Several, or a pattern ('shots/*.png'), are restored one after another.
    """
    from measnet.runtime.console import Console
    from measnet.runtime.session import Session

    print_any_name()
    hide_arguments()
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells its settings on stderr, unless it is to tell errors
    kind = Console
    if values["log"] == "json":
        from measnet.runtime.operations.log import JsonConsole

        kind = JsonConsole
    console = kind(quiet=quiet, stdout_taken="-" in values["out"])
    try:
        options = RunOptions.named(values)
        if ray is None:
            status = Session(console, options, debug=debug).run(inputs)
        else:
            from measnet.runtime.fleet.run import restore_archive

            status = restore_archive(ray, inputs, options, console)
    except MEASNetError as error:
        if debug:
            raise
        console.error(str(error))
        status = error.exit_code
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)
