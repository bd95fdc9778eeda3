"""Frames to the program behind a pipe: as YUV4MPEG2, which says what it is, or as bare pixels."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import av

from measnet.errors import OutputError, UsageError
from measnet.image import Pixels, eight_bits
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Encoding, RawFormat
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.aside import writing
from measnet.runtime.sinks.containers import Container
from measnet.runtime.sinks.encoder import FrameTimes, PictureEncoding
from measnet.runtime.sinks.target import Target

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

STANDARD_OUTPUT = Path("-")
"""Stands for it as a target."""

_FD = 1
_Y4M = Container("yuv4mpegpipe", codec="raw", even_pace=True)
_BITS = 8  # every program behind a pipe takes them
_Y4M_NAME = Path("standard output.y4m")
_CHROMA = {"yuv420p": "420jpeg", "yuv422p": "422", "yuv444p": "444"}
_RANGE = {1: " XCOLORRANGE=LIMITED", 2: " XCOLORRANGE=FULL"}

# A longer gap is taken for a clock that jumped: filling it could go on for ever.
_LONGEST_GAP = 60


class PipeSink(Sink):
    """Writes the picture, and nothing else of the source, into a pipe.

    A pipe has a steady pace and no times. A frame that lasts longer than one step is repeated, one
    that falls into the same step as the frame before is left out, so that the picture stays
    with a sound that takes another way.

    Args:
        target: to which it leads.
        info: what belongs to the source.
        file: open for writing; closed at the end.
        raw: write R, G, B (or B, G, R) bytes without any header instead of YUV4MPEG2.
    """

    def __init__(
        self, target: Target, info: StreamInfo, file: IO[bytes], *, raw: RawFormat | None = None
    ) -> None:
        super().__init__()
        self._target = target
        self._info = info = replace(info, rate=info.rate or Fraction(25))
        self._file = file
        self._raw = raw
        encoding = PictureEncoding(_Y4M_NAME, _Y4M, info, Encoding(bits=_BITS))
        context: VideoCodecContext = av.CodecContext.create(encoding.codec.encoder, "w")  # type: ignore[assignment]  # PyAV says: any codec
        context.time_base = encoding.time_base
        context.framerate = encoding.rate
        self._encoder = encoding.open(context)
        self._context = context
        self._times = FrameTimes(encoding.time_base)
        self._longest = round(_LONGEST_GAP * encoding.rate)
        self._last: bytes | None = None
        self._next = 0
        self._repeated = 0
        if info.bits > _BITS:
            self.warnings.append(f"{info.bits}-bit video goes down the pipe in 8 bits")
        if raw is None:
            self.warnings += encoding.warnings

    def write(self, frame: Frame) -> None:
        place = self._times.place(frame)
        if place is None:
            self.skipped = self._times.skipped
            return
        with writing(_Y4M_NAME):
            data = self._encoded(frame.pixels, place[0])
        self._put(data, place[0])

    def finish(self, *, partial: bool = False) -> Target | None:
        if self._last is None:
            self.abort()
            return None
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from None
        self.warnings += self._times.losses()
        if self._repeated:
            self.warnings.append(
                f"a pipe has a steady pace: frames were repeated {self._repeated} times "
                "to keep the source's times"
            )
        return self._target

    def abort(self) -> None:
        """See Sink.abort. Frames that went down the pipe are gone."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _put(self, data: bytes, at: int) -> None:
        """Writes a frame at step ``at``; the steps since the last one repeat the frame before."""
        try:
            if self._last is None:
                if self._raw is None:
                    self._file.write(self._header())
            elif at - self._next <= self._longest:
                for _ in range(at - self._next):
                    self._file.write(self._last)
                    self._repeated += 1
            self._file.write(data)
            # The reader is to have the frame now, not when a buffer is full.
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from None
        self._last = data
        self._next = at + 1

    def _encoded(self, pixels: Pixels, pts: int) -> bytes:
        if self._raw is not None:
            pixels = eight_bits(pixels)
            return (pixels if self._raw == "rgb24" else pixels[:, :, ::-1]).tobytes()
        packets = self._encoder.encode(pixels, pts, 1)
        return b"FRAME\n" + b"".join(bytes(packet) for packet in packets)

    def _header(self) -> bytes:
        context, rate = self._context, self._info.rate or Fraction(25)
        aspect = context.sample_aspect_ratio or Fraction(0)
        shape = f"{aspect.numerator}:{aspect.denominator}" if aspect else "0:0"
        chroma = _CHROMA[context.pix_fmt or "yuv420p"]
        scale = _RANGE.get(int(context.color_range), "")
        size = f"W{context.width} H{context.height}"
        return (
            f"YUV4MPEG2 {size} F{rate.numerator}:{rate.denominator} Ip A{shape} C{chroma}{scale}\n".encode()
        )

    def _failed(self, error: OSError) -> OutputError:
        """Says why the pipe takes nothing."""
        raise NotImplementedError


class StandardOutput(PipeSink):
    """Standard output as a pipe.

    Raises:
        UsageError: a terminal is at the other end.
    """

    def __init__(self, info: StreamInfo, *, raw: RawFormat | None = None) -> None:
        if os.isatty(_FD):
            raise UsageError(
                "standard output is a terminal; pipe it into a program: measnet-run ... | ffmpeg -i -"
            )
        super().__init__(STANDARD_OUTPUT, info, os.fdopen(os.dup(_FD), "wb"), raw=raw)
        if raw is None and info.copied:
            self.warnings.append(
                "sound and subtitles do not go through a y4m pipe; take them from the source"
            )

    def _failed(self, error: OSError) -> OutputError:
        if isinstance(error, BrokenPipeError):
            return OutputError("the program that reads standard output has gone; the rest was not restored")
        return OutputError(f"writing to standard output failed: {error.strerror}")
