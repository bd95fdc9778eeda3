"""Coded video: a short run of frames, encoded and decoded as a camera's or a phone's file would be.

Noise behind a coder is neither white nor the same from frame to frame: part of it is smoothed away,
part comes back as blocks, ringing and grain that stands still. Only a coder makes that, so one is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext

from measnet.image import EightBitPixels
from measnet.runtime.colour import RgbReader, YuvWriter
from measnet.runtime.frame import Colour
from measnet.train.degradations.camera import draw_camera
from measnet.train.degradations.picture import Picture, from_uint8, to_uint8

CoderName = Literal["h264", "hevc", "mpeg4"]

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mpeg4": "mpeg4"}
_BT709, _BT601 = Colour(1, 1, 1, range=1), Colour(6, 6, 6, range=1)


@dataclass(frozen=True)
class Coder:
    """Settings of an encoder."""

    codec: CoderName = "h264"
    crf: int = 23
    """CRF of H.264 and HEVC, the higher the coarser; MPEG-4 gets the quantiser that looks alike."""

    preset: str = "medium"
    tune: str | None = None
    rate: int = 25
    colour: Colour = _BT709

    @property
    def coarseness(self) -> float:
        """From 0 (CRF 14, nothing to see) to 1 (CRF 40)."""
        return float(np.clip((self.crf - 14) / 26, 0, 1))


def draw_coder(rng: np.random.Generator, low: int = 18, high: int = 36, *, only_h264: bool = False) -> Coder:
    """A coder with a CRF of ``low`` to ``high``: mostly H.264, sometimes HEVC or MPEG-4."""
    kind = 0.0 if only_h264 else rng.random()
    codec: CoderName = "h264" if kind < 0.88 else "hevc" if kind < 0.93 else "mpeg4"
    return Coder(
        codec=codec,
        crf=int(rng.integers(low, high + 1)),
        preset=str(rng.choice(["veryfast", "faster", "fast", "medium"], p=[0.3, 0.1, 0.2, 0.4])),
        tune="film" if rng.random() < 0.25 else None,
        rate=int(rng.choice([24, 25, 30])),
        colour=_BT709 if rng.random() < 0.5 else _BT601,
    )


def code_frames(frames: Sequence[EightBitPixels], coder: Coder) -> list[EightBitPixels]:
    """The frames of one size, H x W x 3, RGB, as they are once encoded to 4:2:0 and decoded.

    Colours go there and back by ``runtime.colour``, without the darkening of swscale's fast way: what a
    network learns from these pairs is the coder's doing. One thread each way: the same on every machine.
    """
    height, width = frames[0].shape[:2]
    encoder = _encoder(coder, width + width % 2, height + height % 2)
    writer = YuvWriter(coder.colour, encoder.width, encoder.height, "420", "left")
    packets = []
    for time, frame in enumerate(frames):
        even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture = writer.write(np.asarray(even, np.uint8))
        picture.pts = time
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(coder.codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.extradata = encoder.extradata
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert len(decoded) == len(frames)
    reader = RgbReader(coder.colour, encoder.width, encoder.height)
    return [np.asarray(reader.read(frame)[:height, :width], np.uint8) for frame in decoded]


def pan(rng: np.random.Generator, picture: EightBitPixels, side: int, count: int) -> list[EightBitPixels]:
    """Makes ``count`` frames of side x side, as a camera sees them while it moves over the picture.

    A quarter stands still; half move by whole pixels, up to 4 a frame; the rest by fractions of one. Beyond
    the picture's edge lies its mirror.
    """
    height, width = picture.shape[:2]
    kind = rng.random()
    step = np.zeros(2) if kind < 0.25 else rng.uniform(-4, 4, 2)
    step = np.rint(step) if kind < 0.75 else step
    # Of the room there is, the way takes what it needs and chance the rest.
    room = np.array([width - side, height - side], np.float64)
    way = step * (count - 1)
    start = np.floor(np.maximum(room - np.abs(way), 0) * rng.random(2)) - np.ceil(np.minimum(way, 0))
    start = np.where(np.abs(way) <= room, start, np.floor((room - way) / 2))
    return [_seen_from(picture, side, *(start + step * time)) for time in range(count)]


def code_with_gaussian_noise(
    rng: np.random.Generator, frames: Sequence[EightBitPixels], sigma: float, coder: Coder
) -> list[EightBitPixels]:
    """The frames with fresh noise of ``sigma`` 8-bit steps each, coded."""
    noisy = []
    for frame in frames:
        noise = rng.standard_normal(frame.shape, dtype=np.float32) * np.float32(sigma)
        noisy.append(np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8))
    return code_frames(noisy, coder)


def code_from_camera(
    rng: np.random.Generator, frames: Sequence[EightBitPixels], coder: Coder
) -> tuple[list[EightBitPixels], float]:
    """The frames as one camera shot them, coded; and the noise that went into the coder, in 8-bit steps."""
    camera = draw_camera(rng)
    shot = [to_uint8(camera.shoot(rng, from_uint8(frame))) for frame in frames]
    return code_frames(shot, coder), noise_level(shot[0], frames[0])


def add_coding(rng: np.random.Generator, clean: Picture, coder: Coder) -> Picture:
    """The picture as the last of three frames of a video that stands still."""
    return from_uint8(code_frames([to_uint8(clean)] * 3, coder)[-1])


def noise_level(noisy: EightBitPixels, clean: EightBitPixels) -> float:
    """Standard deviation of the noise in 8-bit steps, whatever else changed slowly or at edges.

    From the median of what a 5 x 5 mean leaves of the difference: blurred edges are few, and count little.
    """
    change = noisy.astype(np.float32) - clean
    change -= cv2.blur(change, (5, 5))
    return float(1.4826 * np.median(np.abs(change)))


def _seen_from(picture: EightBitPixels, side: int, left: float, top: float) -> EightBitPixels:
    height, width = picture.shape[:2]
    whole = float(left).is_integer() and float(top).is_integer()
    if whole and 0 <= left <= width - side and 0 <= top <= height - side:
        return picture[int(top) : int(top) + side, int(left) : int(left) + side].copy()
    shift = np.array([[1, 0, left], [0, 1, top]], np.float64)
    seen = cv2.warpAffine(
        picture,
        shift,
        (side, side),
        flags=(cv2.INTER_NEAREST if whole else cv2.INTER_LANCZOS4) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(seen, np.uint8)


def _encoder(coder: Coder, width: int, height: int) -> VideoCodecContext:
    encoder = av.CodecContext.create(_ENCODERS[coder.codec], "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, coder.rate), Fraction(coder.rate)
    encoder.thread_count = 1
    if coder.codec == "mpeg4":
        quantiser = str(int(np.clip(round(2 + (coder.crf - 16) * 0.6), 2, 18)))
        encoder.options = {"qmin": quantiser, "qmax": quantiser}
        return encoder
    encoder.options = {"crf": str(coder.crf), "preset": coder.preset}
    if coder.codec == "hevc":
        encoder.options |= {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
        return encoder
    # Without this, x264's macroblock tree takes values past the end of a row: another file each time.
    encoder.options |= {"x264-params": "cpu-independent=1"}
    if coder.tune:
        encoder.options |= {"tune": coder.tune}
    return encoder
