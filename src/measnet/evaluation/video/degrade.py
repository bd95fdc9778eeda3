"""Degradations of a sequence, as a chain: ``sensor:18,h264:28`` is noise, and then a coder.

Haze and darkness are the same in every frame, as they are in life. Noise is drawn
from the seed, the sequence's name and the frame's number: other frames, left out or added, change none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.video.stream import VideoStream

from measnet.errors import MEASNetError, UsageError, first_line
from measnet.evaluation.protocol import to_picture
from measnet.evaluation.video.as_run import Colour, YuvWriter
from measnet.file_name import for_ffmpeg
from measnet.image import Pixels
from measnet.train.degradations.noise import add_gaussian_noise, add_published_noise, add_sensor_noise
from measnet.train.degradations.picture import Picture, clip, to_light, to_stored, to_uint8

DegradeCodec = Literal["h264", "hevc"]

RATE = 25  # frames per second
AIRLIGHT = 0.9
DARK_SHOT, DARK_READ = 1e-4, 1e-3  # of the sensor in the dark: variance a light, standard deviation


@dataclass(frozen=True)
class FrameStep:
    """A degradation of every frame by itself."""

    text: str
    apply: Callable[[np.random.Generator, Picture], Picture]


@dataclass(frozen=True)
class CodecStep:
    """A coder, as a camera or a phone has it."""

    text: str
    codec: DegradeCodec
    crf: int


DegradeStep = FrameStep | CodecStep


class _Kind(NamedTuple):
    usage: str
    make: Callable[[str, str], DegradeStep]
    """Takes the step's text and its argument; raises ``ValueError`` for an argument that is none."""


def parse_chain(text: str) -> tuple[DegradeStep, ...]:
    """The steps of a chain such as ``sensor:18,h264:28``. Raises ``UsageError`` in one line."""
    return tuple(_parse_step(part.strip()) for part in text.split(","))


def coded(chain: Sequence[DegradeStep]) -> bool:
    """True where a coder is among the steps: its frames have even sides."""
    return any(isinstance(step, CodecStep) for step in chain)


def degrade_frames(
    frames: Iterable[Pixels], steps: Sequence[FrameStep], *, seed: int, name: str, first: int = 0
) -> Iterator[Pixels]:
    """The frames (H W 3), each degraded by all ``steps``, in 8 bits; ``first`` is the number of the first
    step within its chain."""
    key = zlib.crc32(name.encode(errors="surrogateescape"))
    for number, pixels in enumerate(frames):
        picture = to_picture(pixels)
        for place, step in enumerate(steps, first):
            picture = step.apply(np.random.default_rng([seed, key, place, number]), picture)
        yield to_uint8(picture)


def encode(frames: Iterable[Pixels], path: Path, step: CodecStep) -> None:
    """Writes frames of even sides (H W 3) as a file in 4:2:0, as many bytes the same on every run.

    Raises ``MEASNetError`` when the coder or the disk fails.
    """
    writer: YuvWriter | None = None
    try:
        with av.open(for_ffmpeg(path), "w") as container:
            stream = container.add_stream(_ENCODERS[step.codec], rate=RATE)
            assert isinstance(stream, VideoStream)
            for number, pixels in enumerate(frames):
                if writer is None:
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.options = {"preset": "medium", "crf": str(step.crf), **_ALIKE[step.codec]}
                    stream.codec_context.thread_count = 1
                    writer = YuvWriter(Colour(), stream.width, stream.height, "420", "left")
                picture = writer.write(pixels)
                picture.pts, picture.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise MEASNetError(f"--degrade {step.text}: the coder failed: {first_line(error)}") from None


def _parse_step(text: str) -> DegradeStep:
    name, _, argument = text.partition(":")
    if name not in _KINDS:
        raise UsageError(f"--degrade: there is no degradation {name!r}; there are {_usages()}")
    try:
        return _KINDS[name].make(text, argument)
    except ValueError:
        raise UsageError(f"--degrade {text}: it is {_KINDS[name].usage}") from None


def _usages() -> str:
    return ", ".join(kind.usage for kind in _KINDS.values())


def _number(text: str, least: float, most: float) -> float:
    value = float(text)
    if not least <= value <= most:
        raise ValueError(text)
    return value


def _noise(text: str, argument: str) -> DegradeStep:
    return FrameStep(text, partial(add_published_noise, sigma=_number(argument, 0, 255)))


def _sensor(text: str, argument: str) -> DegradeStep:
    shot, slash, read = argument.partition("/")
    if not slash:
        return FrameStep(text, partial(add_gaussian_noise, sigma=_number(argument, 0, 255)))
    noise = partial(add_sensor_noise, shot=_number(shot, 0, 1), read=_number(read, 0, 1), grain=0.0)
    return FrameStep(text, noise)


def _haze(text: str, argument: str) -> DegradeStep:
    return FrameStep(text, partial(_add_even_haze, beta=_number(argument, 0, 10)))


def _low_light(text: str, argument: str) -> DegradeStep:
    return FrameStep(text, partial(_darken, exposure=_number(argument, 0.001, 1)))


def _coder(text: str, argument: str) -> DegradeStep:
    codec: DegradeCodec = "hevc" if text.startswith("hevc") else "h264"
    if not argument.isdecimal():
        raise ValueError(argument)
    return CodecStep(text, codec, int(_number(argument, 0, 51)))


def _add_even_haze(rng: np.random.Generator, clean: Picture, *, beta: float) -> Picture:
    """Koschmieder's law, over a depth that grows from the bottom row (0) to the top one (1)."""
    depth = np.linspace(1, 0, clean.shape[0], dtype=np.float32)[:, None, None]
    transmission = np.exp(-beta * depth)
    return clip(clean * transmission + AIRLIGHT * (1 - transmission))


def _darken(rng: np.random.Generator, clean: Picture, *, exposure: float) -> Picture:
    light = to_light(clean) * np.float32(exposure)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    return to_stored(light + noise * np.sqrt(DARK_SHOT * light + DARK_READ**2))


_ENCODERS = {"h264": "libx264", "hevc": "libx265"}
_ALIKE = {
    # Without this, x264's macroblock tree takes values past the end of a row: another file each time.
    "h264": {"x264-params": "cpu-independent=1"},
    "hevc": {"x265-params": "log-level=none:pools=none:frame-threads=1"},
}
_KINDS = {
    "noise": _Kind("noise:SIGMA (0 to 255, as --sigma adds it to pictures)", _noise),
    "sensor": _Kind("sensor:SIGMA (0 to 255) or sensor:SHOT/READ (0 to 1)", _sensor),
    "haze": _Kind("haze:BETA (0 to 10)", _haze),
    "lowlight": _Kind("lowlight:EXPOSURE (0.001 to 1)", _low_light),
    "h264": _Kind("h264:CRF (0 to 51)", _coder),
    "hevc": _Kind("hevc:CRF (0 to 51)", _coder),
}
