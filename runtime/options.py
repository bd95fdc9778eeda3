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
from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from measnet.errors import UsageError
from measnet.runtime.operations.address import Address

Interlaced = Literal["deinterlace", "refuse", "keep"]
OnFault = Literal["fallback", "stop", "ignore"]
Log = Literal["text", "json"]
RawFormat = Literal["rgb24", "bgr24"]
Sound = Literal["copy", "convert", "none"]
Comparing = Literal["side", "split", "slider"]
PreviewPlace = Literal["auto", "window", "terminal"]
Late = Literal["drop-oldest", "drop-newest", "block"]

RECONNECT = 60.0
"""Seconds that an outage may last where nobody says another."""

STEADY = 0.9
"""The share of a video's decisions that comes from the frames before, where nobody says another."""

_TIME = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d+)?)", re.ASCII)
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
    if not number.isdecimal() or int(number) < 1:
        raise UsageError("must be a share of the frames such as 1/200")
    return int(number)


def parse_tile(text: str) -> int | Literal["auto", "off"]:
    """Reads ``auto``, ``off`` or a number of pixels. Raises UsageError."""
    if text.isdecimal():
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """Wishes for where a run tells how it is. An address that other machines reach needs a token."""

    console: Address | None = field(default=None, metadata={"parse": Address.parse})
    """Of a page with input and result, figures and events."""

    metrics: Address | None = field(default=None, metadata={"parse": Address.parse})
    """For Prometheus."""

    log: Log = "text"
    """Lines for people, or one JSON value each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Wishes for how a video is written. None leaves a choice to the container, the source or the encoder."""

    codec: str | None = None
    """``h264``, ``hevc``, ``vp9``, ``av1``, ``prores``, ``ffv1``, or a graphics card's (``h264_nvenc``)."""

    crf: int | None = None
    """Quality, 0 to 63, lower is better."""

    preset: str | None = None
    """Effort, in the encoder's own words."""

    bits: int | None = field(default=None, metadata={"parse": int})
    """Per channel: 8, 10, 12 or 16."""

    pixel_format: str | None = None
    """FFmpeg's name, as ``yuv422p10le``."""

    sound: Sound = "copy"
    """Copied as it is or refused; copied or else encoded again; left out."""

    def asked_of_pictures(self) -> dict[str, Any]:
        """Options that were given and say how pictures of a video are encoded, by their names on the command
        line."""
        said = {
            "--codec": self.codec,
            "--crf": self.crf,
            "--preset": self.preset,
            "--bits": self.bits,
            "--pixel-format": self.pixel_format,
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Wishes for how a video file is read, and which part of it.

    Raises:
        UsageError: the duration is zero.
    """

    start: Fraction | None = field(default=None, metadata={"parse": parse_time})
    """Seconds from the file's beginning, as players count; the first frame shown then or later is taken."""

    duration: Fraction | None = field(default=None, metadata={"parse": parse_time})
    """Seconds; None reads to the end."""

    interlaced: Interlaced = "deinterlace"
    """Treatment of frames that the decoder finds interlaced."""

    track: int | None = None
    """Which of several video tracks, from 1; None takes the default one."""

    keep_tracks: bool = False
    """Copies the other video tracks."""

    raw: RawVideo | None = field(default=None, metadata={"parse": RawVideo.parse})
    """Of an input that is bare pixels."""

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
        asked = {
            "--start or --duration": self.is_part,
            "--raw": self.raw is not None,
            "--interlaced": self.interlaced != "deinterlace",
            "--track": self.track is not None,
            "--keep-tracks": self.keep_tracks,
        }
        for option, given in asked.items():
            if given:
                raise UsageError(f"{option} is for video files only; {spec} is not one")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Choice of what restores, as ``measnet.Restorer`` takes it."""

    model: str = "nano"
    """A bundled name, or an .onnx, .engine or checkpoint file."""

    backend: str = "auto"
    """Name of what computes; docs/running.md lists them."""

    tile: int | Literal["auto", "off"] = field(default="auto", metadata={"parse": parse_tile})
    """Side of square tiles in pixels; ``auto`` where memory asks for tiles, or ``off``."""

    memory: float | None = None
    """The most that one inference may take, in GB; None is what is free."""

    threads: int | None = None
    """Of the CPU."""

    task: str | None = None
    """Holds the prompt to one degradation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Choice of what is looked at on the way, and what a fault leads to."""

    verify: int | None = field(default=None, metadata={"parse": parse_every})
    """Every so many frames one is held against PyTorch."""

    verify_share: float = 0.25
    """The most of the time that this may take, above 0 to 1."""

    checkpoint: str | None = None
    """The checkpoint that an .onnx or .engine file was made from."""

    on_fault: OnFault = "fallback"
    """Restores on in float32, stops, or only counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Wishes for cameras and streams: what happens to frames that are late, and when the picture is gone.

    Raises:
        UsageError: a number that makes no sense.
    """

    late: Late | None = None
    """Frame that goes when the engine is not done: the one that waits, or the one that comes; ``block`` lets
    the source wait. None is ``drop-oldest`` for live sources and ``block`` for all others."""

    max_latency: float | None = None
    """Seconds from the decoder to the engine after which a frame is left out, above 0; None is no limit. Not
    for files."""

    ladder: bool = True
    """With ``max_latency``: does less work per second when the engine cannot keep to it."""

    reconnect: float = RECONNECT
    """Seconds that an outage may last, once there was a picture; 0 ends at the first, infinity at none."""

    insecure: bool = False
    """Takes any certificate of the other side where source and receivers speak TLS."""

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

    out: tuple[str, ...] = field(default=(), metadata={"parse": lambda out: (out,)})
    """Names of the results, files or addresses; ``-`` is standard output."""

    parts: Fraction | None = field(default=None, metadata={"parse": parse_time})
    """Seconds after which a live source's file is closed and another begun; None writes one."""

    overwrite: bool = False
    """Replaces results that exist."""

    restart: bool = False
    """Throws away what an earlier run left unfinished."""

    frames: int | None = None
    """Ends after so many."""

    strength: float = 1.0
    """Share of the restored picture in the result, 0 to 1; the rest is the source."""

    steady: float | None = None
    """Share of each image-level decision that comes from the frames before, 0 to under 1; None is
    ``STEADY`` where the model can be steered."""

    temporal: int = 12
    """Frames before that a frame of a video takes from; 0 leaves each alone."""

    compare: Comparing | None = None
    """Also makes a comparison of source and result."""

    raw_out: RawFormat | None = None
    """Bare pixels on standard output, instead of y4m."""

    dry_run: bool = False
    """Tries a few frames and says what would happen."""

    preview: PreviewPlace | None = None
    """Shows source and result meanwhile."""

    report: Path | None = None
    """Figures as JSON."""

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
        return self.operating.console is not None or self.preview is not None

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


def _filled(kind: Any, values: Mapping[str, Any]) -> Any:
    given = {}
    usual = kind()
    for one in fields(kind):
        inner = getattr(usual, one.name)
        if is_dataclass(inner):
            given[one.name] = _filled(type(inner), values)
        elif one.name in values:
            value, parse = values[one.name], one.metadata.get("parse")
            given[one.name] = parse(value) if parse is not None and isinstance(value, str) else value
    return kind(**given)


def _defaults(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(options):
        value = getattr(options, one.name)
        found |= _defaults(value) if is_dataclass(value) else {one.name: value}
    return found
