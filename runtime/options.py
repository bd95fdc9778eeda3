"""Options of a run: one frozen value, which the command line, Python and files of settings all fill.

    RunOptions ─┬─ operating  where it tells how it is
                ├─ reading    which part of the input, and how it is read
                ├─ engine     what restores
                ├─ checks     what is looked at on the way
                ├─ live       what cameras and streams do when they are late, or gone
                └─ encoding   how a video is written

Every field is called as its option on the command line, and no two are called alike: ``RunOptions.named``
takes them flat. Nothing heavy is imported here, as ``--help`` is to answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from measnet.errors import UsageError
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.operations.address import Address

Interlaced = Literal["deinterlace", "refuse", "keep"]
OnFault = Literal["fallback", "stop", "ignore"]
Log = Literal["text", "json"]
RawFormat = Literal["rgb24", "bgr24"]
Sound = Literal["copy", "convert", "none"]
Comparing = Literal["side", "split", "slider"]
Late = Literal["drop-oldest", "drop-newest", "block"]

RECONNECT = 60.0
"""Seconds that an outage may last where nobody says another."""

STEADY = 0.9
"""The share of a video's decisions that comes from the frames before, where nobody says another."""

_TIME = re.compile(r"(?:(?:(\d{1,9}):)?([0-5]?\d):)?(\d{1,12}(?:\.\d{1,12})?)", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_RAW = re.compile(r"(\d{1,6})x(\d{1,6}):(\w+)@(\d{1,9}(?:\.\d{1,6}|/\d{1,9})?)", re.ASCII)


def parse_time(text: str) -> Fraction:
    """Reads ``90``, ``1:30`` and ``00:01:30.000`` as seconds, exactly. Raises UsageError."""
    found = _TIME.fullmatch(text.strip())
    if found is None or (found[2] is not None and Fraction(found[3]) >= 60):
        raise UsageError(f"{text} is not a time; give seconds (90.5) or [hh:]mm:ss.fff (1:30.5)")
    hours, minutes, seconds = found.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)


def parse_every(text: str) -> int:
    """Reads ``1/200`` and ``200``: every 200th. Raises UsageError."""
    number = text.removeprefix("1/")
    if _COUNT.fullmatch(number) is None or int(number) < 1:
        raise UsageError("must be a share of the frames such as 1/200")
    return int(number)


def parse_tile(text: str) -> int | Literal["auto", "off"]:
    """Reads ``auto``, ``off`` or a number of pixels. Raises UsageError."""
    if _COUNT.fullmatch(text) is not None:
        return int(text)
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    raise UsageError("must be auto, off or a number of pixels")


@dataclass(frozen=True, slots=True)
class RawVideo:
    """Frames of ``width`` by ``height`` pixels in FFmpeg's ``pixel_format``, ``rate`` of them a second."""

    width: int
    height: int
    pixel_format: str
    rate: Fraction

    @classmethod
    def parse(cls, text: str) -> RawVideo:
        """Reads ``640x360:yuv420p@25``; the rate may be 29.97 or 30000/1001. Raises UsageError."""
        import av

        found = _RAW.fullmatch(text)
        if found is None or found[4].endswith("/0") or Fraction(found[4]) <= 0:
            raise UsageError(f"--raw {text} is not WxH:FORMAT@RATE, as in 640x360:yuv420p@25")
        try:
            av.VideoFormat(found[3])
        except ValueError:
            raise UsageError(
                f"--raw {text}: FFmpeg has no pixel format {found[3]}; ffmpeg -pix_fmts lists them"
            ) from None
        return cls(int(found[1]), int(found[2]), found[3], Fraction(found[4]))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.pixel_format}@{self.rate}"

    @property
    def demuxer_options(self) -> dict[str, str]:
        """Options for FFmpeg's ``rawvideo``."""
        return {
            "video_size": f"{self.width}x{self.height}",
            "pixel_format": self.pixel_format,
            "framerate": f"{self.rate.numerator}/{self.rate.denominator}",
        }


def option(default: Any, words: str, **how: Any) -> Any:
    """Declares an option for Python and for the command line; ``words`` document it for both.

    ``how`` may have ``parse``, which reads it from text and raises UsageError, and what the command line has
    to know besides: ``metavar``; ``between``, the limits of a number, as click's ranges take them; ``names``,
    if it has others than its field's; ``choices``; and ``late``, to have it parsed with all the others alone.
    """
    return field(default=default, metadata={"words": words, **how})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """Wishes for where a run tells how it is. An address that other machines reach needs a token."""

    console: Address | None = option(
        None,
        "Serve a page with input and result, figures and events; for other machines: 0.0.0.0:PORT.",
        parse=Address.parse,
        metavar="[HOST:]PORT",
    )
    metrics: Address | None = option(
        None, "Serve metrics to Prometheus.", parse=Address.parse, metavar="[HOST:]PORT"
    )
    log: Log = option("text", "What is said on stderr: lines for people, or a JSON value each.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Wishes for how a video is written. None leaves a choice to the container, the source or the encoder."""

    codec: str | None = option(
        None,
        "Video codec: h264, hevc, vp9, av1, prores, ffv1, or a graphics card's, as h264_nvenc.",
        metavar="NAME",
    )
    crf: int | None = option(
        None, "Video quality, lower is better.", between={"min": 0, "max": 63}, metavar="0..63"
    )
    preset: str | None = option(None, "Encoder effort, in the encoder's own words.", metavar="NAME")
    bits: int | None = option(
        None, "Per channel of a video; else as the source.", choices=("8", "10", "12", "16"), parse=int
    )
    pixel_format: str | None = option(None, "Of a video, as yuv422p10le; else as the source.", metavar="NAME")
    sound: Sound = option(
        "copy", "Copy it or refuse; convert it where the file cannot hold it; leave it out."
    )

    def asked_of_pictures(self) -> dict[str, Any]:
        """Options that were given and say how pictures of a video are encoded, by their names on the command
        line."""
        names = ("codec", "crf", "preset", "bits", "pixel_format")
        return {flag(name): value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Wishes for how a video file is read, and which part of it.

    Raises:
        UsageError: the duration is zero.
    """

    start: Fraction | None = option(
        None,
        "Begin there: seconds or [hh:]mm:ss.fff of the video.",
        parse=parse_time,
        metavar="TIME",
    )
    duration: Fraction | None = option(None, "Restore so much of it.", parse=parse_time, metavar="TIME")
    interlaced: Interlaced = option(
        "deinterlace", "What to do with frames that the decoder finds interlaced."
    )
    track: int | None = option(
        None, "Which of several video tracks, from 1.", between={"min": 1}, metavar="N"
    )
    keep_tracks: bool = option(False, "Copy the other video tracks as they are.")
    raw: RawVideo | None = option(
        None,
        "INPUT is raw video: 640x360:yuv420p@25.",
        parse=RawVideo.parse,
        late=True,
        metavar="WxH:FORMAT@RATE",
    )

    def __post_init__(self) -> None:
        if self.duration == 0:
            raise UsageError("--duration 0 leaves nothing to restore; give the seconds wanted")

    @property
    def is_part(self) -> bool:
        """Says whether less than the whole file is wanted."""
        return bool(self.start) or self.duration is not None

    def as_given(self) -> dict[str, Any]:
        """Values by their names on the command line, ready for JSON."""
        return {
            "--start": float(self.start) if self.start else None,
            "--duration": None if self.duration is None else float(self.duration),
            "--raw": None if self.raw is None else str(self.raw),
            "--interlaced": self.interlaced,
            "--track": self.track,
            "--keep-tracks": self.keep_tracks,
        }

    def refuse_for(self, spec: str) -> None:
        """Raises UsageError where ``spec`` is no video file, but was asked for what only those have."""
        for one in fields(self):
            if getattr(self, one.name) != one.default:
                raise UsageError(f"{flag(one.name)} is for video files only; {spec} is not one")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Choice of what restores, as ``measnet.Restorer`` takes it."""

    model: str = option("nano", "nano, small, or an .onnx, .engine or .ckpt file.", metavar="NAME|FILE")
    backend: str = option(
        "auto",
        "What computes: auto, onnxruntime, onnxruntime-cpu, -cuda or -tensorrt, tensorrt, torch, or "
        "triton://HOST:PORT/MODEL.",
        metavar="NAME",
    )
    tile: int | Literal["auto", "off"] = option(
        "auto",
        "Restore in squares of N pixels; auto: where memory asks for it; off: never.",
        parse=parse_tile,
        metavar="N",
    )
    memory: float | None = option(
        None,
        "Most that one inference may take, tiles are sized by it; else what is free.",
        between={"min": 0, "min_open": True, "max": 1_000_000},
        metavar="GB",
    )
    threads: int | None = option(
        None, "CPU threads for the engine.", between={"min": 1, "max": 4096}, metavar="N"
    )
    task: str | None = option(
        None,
        "Undo this, and be sure of it: denoise, derain, dehaze, deblur, lowlight or compression.",
        metavar="NAME",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Choice of what is looked at on the way, and what a fault leads to."""

    verify: int | None = option(
        None,
        "Check one frame in N against PyTorch, in the background.",
        parse=parse_every,
        metavar="1/N",
    )
    verify_share: float = option(
        0.25,
        "Most of the time that checking may take; frames beyond it are left out.",
        between={"min": 0, "max": 1, "min_open": True},
        metavar="0..1",
    )
    checkpoint: str | None = option(
        None, "What .onnx or .engine came from, for --verify and --on-fault fallback.", metavar="FILE"
    )
    on_fault: OnFault = option(
        "fallback",
        "When a frame comes back black, frozen or not at all: go on in float32, stop, or count.",
    )

    def find_checkpoint(self) -> None:
        """Raises ``UsageError`` where ``checkpoint`` is no file."""
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise UsageError(f"the checkpoint {self.checkpoint} is no file that exists")


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Wishes for cameras and streams: what happens to frames that are late, and when the picture is gone.

    Raises:
        UsageError: a number that makes no sense.
    """

    late: Late | None = option(
        None,
        "Which frame goes when the engine is not done; block: the source waits.  "
        "[default: drop-oldest for cameras and streams, block for files]",
    )
    max_latency: float | None = option(
        None,
        "Leave out frames that are older when the engine would take them; do less per second if need be.",
        between={"min": 0, "min_open": True},
        metavar="SECONDS",
    )
    ladder: bool = option(
        True,
        "With --max-latency: fewer frames, nano for small, a smaller picture, while the engine is too slow.",
        names=("--ladder/--no-ladder",),
    )
    reconnect: float = option(
        RECONNECT,
        "How long an outage may last before the run ends; 0: end at the first; inf: at none.",
        between={"min": 0},
        metavar="SECONDS",
    )
    insecure: bool = option(False, "Take any certificate of rtsps://, https:// and rtmps:// addresses.")
    waits: Waits = field(default=USUAL, metadata={"unnamed": True})
    """For Python alone."""

    def __post_init__(self) -> None:
        if self.max_latency is not None and not 0 < self.max_latency < float("inf"):
            raise UsageError("--max-latency must be seconds above 0")
        if not self.reconnect >= 0:
            raise UsageError("--reconnect must be 0 or more seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything that a run may be asked for.

    >>> RunOptions(encoding=Encoding(crf=14), temporal=0)
    """

    out: tuple[str, ...] = option(
        (),
        "Result; its ending says which kind of file, .m3u8 is for browsers. Or a receiver: rtsp://, "
        "rtmp://, srt://, udp://, tcp://. Or window; - is standard output. For several give it again.",
        parse=lambda out: (out,),
        late=True,
        names=("-o", "--out"),
        metavar="PATH",
    )
    parts: Fraction | None = option(
        None,
        "Of a camera or stream: begin another file after so long, NAME.0001.mp4 and on.",
        parse=parse_time,
        metavar="TIME",
    )
    overwrite: bool = option(False, "Replace results that exist.", names=("-y", "--overwrite"))
    restart: bool = option(False, "Begin anew what an earlier run left unfinished.")
    frames: int | None = option(None, "Stop after N frames.", between={"min": 1}, metavar="N")
    strength: float = option(
        1.0,
        "Share of the restored picture; the rest is the source.",
        between={"min": 0, "max": 1},
        metavar="0..1",
    )
    steady: float | None = option(
        None,
        "Against flicker: the share of each image-level decision that comes from the frames before.  "
        f"[default: {STEADY}, where the model can be steered]",
        between={"min": 0, "max": 1, "max_open": True},
        metavar="0..1",
    )
    temporal: int = option(
        12,
        "Let the frames of a video help each other: up to so many before each one. 0: none.",
        between={"min": 0, "max": 64},
        metavar="FRAMES",
    )
    compare: Comparing | None = option(
        None,
        "Also make NAME.compare: source and result side by side, half and half, or as a page with a slider.",
    )
    raw_out: RawFormat | None = option(None, "With -o -: bare pixels instead of y4m.")
    dry_run: bool = option(False, "Try a few frames, say what would happen and how long it takes.")
    preview: bool = option(False, "Show source and result in the terminal meanwhile.")
    report: Path | None = option(
        None, "Figures as JSON, and as .svg a picture of the experts over time.", metavar="FILE"
    )

    operating: Operating = field(default_factory=Operating)
    reading: Reading = field(default_factory=Reading)
    engine: EngineOptions = field(default_factory=EngineOptions)
    checks: Checks = field(default_factory=Checks)
    live: Live = field(default_factory=Live)
    encoding: Encoding = field(default_factory=Encoding)

    def __post_init__(self) -> None:
        if self.parts is not None and self.parts <= 0:
            raise UsageError("--parts 0 would never fill a file; give the seconds of each")

    @property
    def is_watched(self) -> bool:
        """Says whether somebody can look at the frames while they come."""
        return self.operating.console is not None or self.preview

    @classmethod
    def named(cls, values: Mapping[str, Any]) -> RunOptions:
        """Fills the options from their names, all on one level: ``{"crf": 14, "start": "1:30"}``.

        Raises UsageError for a name that there is not, and for text that cannot be read.
        """
        unknown = values.keys() - cls.names().keys()
        if unknown:
            raise UsageError(f"there is no option called {', '.join(sorted(unknown))}")
        filled: RunOptions = _filled(cls, values)
        return filled

    @classmethod
    def names(cls) -> dict[str, Any]:
        """Every name with its default."""
        return _defaults(cls())


def _named(options: Any) -> list[Field[Any]]:
    """Fields that have a name for users, or hold such."""
    return [one for one in fields(options) if not one.metadata.get("unnamed")]


def _filled(kind: Any, values: Mapping[str, Any]) -> Any:
    given = {}
    usual = kind()
    for one in _named(kind):
        inner = getattr(usual, one.name)
        if is_dataclass(inner):
            given[one.name] = _filled(type(inner), values)
        elif one.name in values:
            value, parse = values[one.name], one.metadata.get("parse")
            given[one.name] = parse(value) if parse is not None and isinstance(value, str) else value
            if value != value:  # NaN is within all limits
                raise UsageError(f"{flag(one.name)} {value} is not a number")
    return kind(**given)


def _defaults(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in _named(options):
        value = getattr(options, one.name)
        found |= _defaults(value) if is_dataclass(value) else {one.name: value}
    return found


def flag(name: str) -> str:
    """The name of a field on the command line: ``pixel_format`` -> ``--pixel-format``."""
    return f"--{name.replace('_', '-')}"
