"""YUV to RGB and back, with one matrix, one range and one place of chroma both ways.

An engine that leaves the colours alone must leave the file's colours alone: whatever a stream
is read with, it is written with.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from measnet.image import Pixels, sixteen_bits
from measnet.runtime.frame import Colour

Siting = Literal["left", "centre"]
Chroma = Literal["420", "422", "444"]

_ZERO = Fraction(0)
_PEAK_16 = 65535
_UNSPECIFIED = 2
_RGB = 0

# H.273 code point -> the matrix swscale computes with. 470BG and 170M are one matrix.
# 10 (constant luminance) has no converter; its neighbour is the closest there is.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}

# Weights of red and blue in luma, for each of them.
_WEIGHTS = {
    Colorspace.ITU709: (0.2126, 0.0722),
    Colorspace.FCC: (0.30, 0.11),
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.SMPTE240M: (0.212, 0.087),
    Colorspace.BT2020: (0.2627, 0.0593),
}

# Without accurate rounding and full chroma swscale darkens luma by about one code value.
_PRECISE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# Catmull-Rom stretched over two pixels, sampled on a pixel and between two.
_ON_PIXEL = np.array([-1, 0, 9, 16, 9, 0, -1], np.float32) / 32
_BETWEEN = np.array([-3, -9, 29, 111, 111, 29, -9, -3], np.float32) / 256
_NO_FILTER = np.ones(1, np.float32)

_CHANGES = {
    "size": "the picture changes its size on the way, {}: {} frames were scaled to the first size",
    "coding": "the coding of its colours changes on the way, {}: {} frames were converted to the first one",
    "meaning": "its colours are meant otherwise on the way, {}: {} frames are marked like the first",
    "shape": "its pixels change their shape on the way, {}: {} frames are shown in the first shape",
}
_RANGES = {1: "limited", 2: "full"}


class RgbReader:
    """Turns the decoded frames of one stream into RGB: uint8, or uint16 from more than 8 bits.

    One object serves one thread: swscale keeps its tables in it.

    Args:
        colour: the stream's tags. An unspecified matrix is taken to be BT.709 from 1280×720 up
            and BT.601 below, as players do; an unspecified range to be limited.
        width, height: of every picture that comes out, in pixels.
        origin: when the source begins by its own clock, in seconds; ``warnings`` count from there.

    A frame's own matrix and range hold for it, where it has any: streams change them on the way.
    """

    def __init__(self, colour: Colour, width: int, height: int, origin: Fraction = _ZERO) -> None:
        self._origin = origin
        self._colour = colour
        self._width = width
        self._height = height
        self._shape: Fraction | None = None
        self._reformatter = VideoReformatter()
        self._changes: dict[str, tuple[str, int]] = {}

    @property
    def warnings(self) -> list[str]:
        """A line on each kind of change on the way, if there was any."""
        return [_CHANGES[kind].format(*change) for kind, change in self._changes.items()]

    def read(self, frame: av.VideoFrame) -> Pixels:
        """The frame as H×W×3, RGB, 0..255 or 0..65535; one of another size is scaled, and counted."""
        if (frame.width, frame.height) != (self._width, self._height):
            was = f"{self._width}×{self._height}"
            self._note("size", f"from {was} to {frame.width}×{frame.height}", frame)
        self._compare_shape(frame)
        deep = bit_depth(frame.format) > 8
        colour = self._colour if frame.format.is_rgb else self._own_colour(frame)
        matrix = _matrix(colour, self._width, self._height)
        rgb = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if frame.format.is_rgb else _range(colour),
            dst_color_range=ColorRange.JPEG,
            interpolation=_PRECISE,
            threads=1,
        )
        pixels = rgb.to_ndarray()
        if deep:
            return self._stretched(np.asarray(pixels, dtype=np.uint16), frame.format, _range(colour))
        return np.asarray(pixels, dtype=np.uint8)

    def _own_colour(self, frame: av.VideoFrame) -> Colour:
        """The colour to read the frame with: the stream's, save where the frame says otherwise."""
        first, said = self._colour, read_colour(frame)
        own = Colour(
            matrix=first.matrix if said.matrix == _UNSPECIFIED else said.matrix,
            primaries=first.primaries if said.primaries == _UNSPECIFIED else said.primaries,
            transfer=first.transfer if said.transfer == _UNSPECIFIED else said.transfer,
            range=said.range or first.range,
        )
        if own == first:
            return first
        size = self._width, self._height
        coding, meaning = [], []
        if _matrix(own, *size) != _matrix(first, *size):
            coding.append(f"matrix {first.matrix} to {own.matrix}")
        if _range(own) != _range(first):
            coding.append(f"{_RANGES[own.range ^ 3]} to {_RANGES[own.range]} range")
        if own.primaries != first.primaries:
            meaning.append(f"primaries {first.primaries} to {own.primaries}")
        if own.transfer != first.transfer:
            meaning.append(f"transfer {first.transfer} to {own.transfer}")
        for kind, words in (("coding", coding), ("meaning", meaning)):
            if words:
                self._note(kind, f"from {' and '.join(words)}", frame)
        return own

    def _compare_shape(self, frame: av.VideoFrame) -> None:
        """See whether the pixels' shape, which the decoder of a file hands along, is still the first one."""
        shape = frame.opaque
        if not isinstance(shape, Fraction):
            return
        self._shape = self._shape or shape
        if shape != self._shape:
            first = self._shape
            was, is_now = (f"{s.numerator}:{s.denominator}" for s in (first, shape))
            self._note("shape", f"from {was} to {is_now}", frame)

    def _note(self, kind: str, what: str, frame: av.VideoFrame) -> None:
        seconds = float((frame.pts or 0) * (frame.time_base or 0) - self._origin)
        words, count = self._changes.get(kind, (f"{what} at {seconds:.2f} s", 0))
        self._changes[kind] = words, count + 1

    @staticmethod
    def _stretched(
        pixels: npt.NDArray[np.uint16], form: av.VideoFormat, signal: ColorRange
    ) -> npt.NDArray[np.uint16]:
        """swscale shifts code values into 16 bits, which leaves white below 65535."""
        if form.is_rgb:
            return pixels
        bits = min(bit_depth(form), 16)
        # Grey is full range to swscale, whatever its tag.
        full = signal is ColorRange.JPEG or len(form.components) <= 2
        white = (2**bits - 1) << (16 - bits) if full else 255 << 8
        if white == _PEAK_16:
            return pixels
        stretch = np.diag([_PEAK_16 / white] * 3)
        return np.asarray(cv2.transform(pixels, stretch), np.uint16)


class YuvWriter:
    """Turns RGB into frames to encode, by the same rules as RgbReader reads them.

    swscale is not used for this direction: it truncates full-range chroma, half a level of
    tint, and through PyAV it cannot be told where chroma lies, a quarter of a pixel of shift.

    Args:
        colour, width, height: as for RgbReader.
        chroma, bits: of the frames to encode.
        siting: where readers of the encoded stream will take chroma samples to lie, sideways.
    """

    def __init__(
        self,
        colour: Colour,
        width: int,
        height: int,
        chroma: Chroma,
        siting: Siting,
        bits: int = 8,
    ) -> None:
        self._format = yuv_format(chroma, bits)
        self._colour = colour
        self._chroma = chroma
        self._bits = bits
        weights = _WEIGHTS[_matrix(colour, width, height)]
        self._to_yuv = _rgb_to_yuv(*weights, full=_range(colour) is ColorRange.JPEG, bits=bits)
        self._across = _ON_PIXEL if siting == "left" else _BETWEEN

    def write(self, pixels: Pixels) -> av.VideoFrame:
        """H×W×3 RGB, uint8 or uint16, as a tagged frame without a time."""
        if pixels.dtype == np.uint8 and self._bits > 8:
            pixels = sixteen_bits(pixels)
        peak = np.iinfo(pixels.dtype).max
        to_yuv = self._to_yuv * np.array([1 / peak] * 3 + [1])
        luma, blue, red = cv2.split(self._limited(cv2.transform(pixels, to_yuv.astype(np.float32))))
        height, width = pixels.shape[:2]
        frame = av.VideoFrame(width, height, self._format)
        sample = np.dtype("<u2") if self._bits > 8 else np.dtype(np.uint8)
        for plane, values in zip(frame.planes, (luma, self._fewer(blue), self._fewer(red)), strict=True):
            rows = np.zeros((plane.height, plane.line_size // sample.itemsize), sample)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.colorspace = self._colour.matrix
        frame.color_range = self._colour.range
        frame.color_primaries = self._colour.primaries
        frame.color_trc = self._colour.transfer
        return frame

    def _fewer(self, chroma: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._chroma == "444":
            return chroma
        both = self._chroma == "420"
        down = _BETWEEN if both else _NO_FILTER
        filtered = cv2.sepFilter2D(
            chroma,
            -1,
            self._across,
            down,
            anchor=((len(self._across) - 1) // 2, (len(down) - 1) // 2),
            borderType=cv2.BORDER_REPLICATE,
        )
        return self._limited(filtered[:: 2 if both else 1, ::2])

    def _limited(self, codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Full-range chroma reaches one code too far, and so do filters; 16 bits do not stop them."""
        return codes if codes.dtype == np.uint8 else np.minimum(codes, 2**self._bits - 1)


def bit_depth(form: av.VideoFormat) -> int:
    """Bits of the deepest component."""
    return max(component.bits for component in form.components)


def yuv_format(chroma: Chroma, bits: int) -> str:
    """FFmpeg's name for planes of so many bits."""
    return f"yuv{chroma}p" if bits == 8 else f"yuv{chroma}p{bits}le"


def chroma_of(pixel_format: str) -> Chroma:
    """The chroma resolution to keep, or the next higher: 4:2:2 for 4:1:1, 4:4:4 for 4:4:0. Grey has none, and
    gets what every player takes."""
    form = av.VideoFormat(pixel_format, 16, 16)
    if len(form.components) < 3:
        return "420"
    if form.chroma_width(16) > 8:
        return "444"
    return "422" if form.chroma_height(16) > 8 else "420"


def read_colour(frame: av.VideoFrame) -> Colour:
    """The tags a decoded frame carries.

    The old ``yuvj`` formats mean full range by their name alone, tag or no tag.
    """
    full_by_name = frame.format.name.startswith("yuvj")
    return Colour(
        matrix=int(frame.colorspace),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        range=2 if full_by_name else int(frame.color_range),
    )


def written_colour(colour: Colour) -> Colour:
    """The tags for the encoded stream: the source's own, save that YUV cannot be tagged RGB."""
    if colour.matrix == _RGB:
        return Colour(_UNSPECIFIED, colour.primaries, colour.transfer, range=1)
    return colour


def _matrix(colour: Colour, width: int, height: int) -> Colorspace:
    usual = Colorspace.ITU709 if width >= 1280 or height >= 720 else Colorspace.ITU601
    return _MATRICES.get(colour.matrix, usual)


def _range(colour: Colour) -> ColorRange:
    return ColorRange.JPEG if colour.range == 2 else ColorRange.MPEG


def _rgb_to_yuv(red: float, blue: float, *, full: bool, bits: int) -> npt.NDArray[np.float64]:
    """3×4: R, G, B (0..1) and 1 to the code values of Y, Cb and Cr in so many bits."""
    luma = np.array([red, 1 - red - blue, blue])
    to_blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    to_red = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    step = 2 ** (bits - 8)
    top = 2**bits - 1
    luma_span, chroma_span, black = (top, top, 0) if full else (219 * step, 224 * step, 16 * step)
    spans = np.array([[luma_span], [chroma_span], [chroma_span]])
    offsets = np.array([[black], [128 * step], [128 * step]])
    return np.hstack([np.stack([luma, to_blue, to_red]) * spans, offsets])
