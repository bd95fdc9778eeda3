"""YUV to RGB and back, with one matrix, one range and one place of chroma both ways.

An engine that leaves the colours alone must leave the file's colours alone: whatever a stream
is read with, it is written with.
"""

from __future__ import annotations

from typing import Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from measnet.runtime.frame import Colour, Pixels

Siting = Literal["left", "centre"]
PixelFormat = Literal["yuv420p", "yuv422p", "yuv444p"]

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

# What red and blue weigh in luma, for each of them.
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


class RgbReader:
    """Turns the decoded frames of one stream into RGB.

    One object serves one thread: swscale keeps its tables in it.

    Args:
        colour: the stream's tags. An unspecified matrix is taken to be BT.709 from 1280×720 up
            and BT.601 below, as players do; an unspecified range to be limited.
        width, height: of every picture that comes out, in pixels.
    """

    def __init__(self, colour: Colour, width: int, height: int) -> None:
        self._matrix = _matrix(colour, width, height)
        self._range = _range(colour)
        self._width = width
        self._height = height
        self._reformatter = VideoReformatter()

    def read(self, frame: av.VideoFrame) -> Pixels:
        """The frame as uint8 H×W×3, RGB."""
        rgb = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb24",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG if frame.format.is_rgb else self._range,
            dst_color_range=ColorRange.JPEG,
            interpolation=_PRECISE,
            threads=1,
        )
        return np.asarray(rgb.to_ndarray(), dtype=np.uint8)


class YuvWriter:
    """Turns RGB into frames to encode, by the same rules as RgbReader reads them.

    swscale is not used for this direction: it truncates full-range chroma, half a level of
    tint, and through PyAV it cannot be told where chroma lies, a quarter of a pixel of shift.

    Args:
        colour, width, height: as for RgbReader.
        pixel_format: of the frames to encode.
        siting: where readers of the encoded stream will take chroma samples to lie, sideways.
    """

    def __init__(
        self,
        colour: Colour,
        width: int,
        height: int,
        pixel_format: PixelFormat,
        siting: Siting,
    ) -> None:
        self._colour = colour
        weights = _WEIGHTS[_matrix(colour, width, height)]
        self._to_yuv = _rgb_to_yuv(*weights, full=_range(colour) is ColorRange.JPEG)
        self._format = pixel_format
        self._across = _ON_PIXEL if siting == "left" else _BETWEEN

    def write(self, pixels: Pixels) -> av.VideoFrame:
        """uint8 H×W×3 RGB as a tagged frame without a time."""
        luma, blue, red = cv2.split(cv2.transform(pixels, self._to_yuv))
        height, width = pixels.shape[:2]
        frame = av.VideoFrame(width, height, self._format)
        for plane, values in zip(frame.planes, (luma, self._fewer(blue), self._fewer(red)), strict=True):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.colorspace = self._colour.matrix
        frame.color_range = self._colour.range
        frame.color_primaries = self._colour.primaries
        frame.color_trc = self._colour.transfer
        return frame

    def _fewer(self, chroma: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._format == "yuv444p":
            return chroma
        both = self._format == "yuv420p"
        down = _BETWEEN if both else _NO_FILTER
        filtered = cv2.sepFilter2D(
            chroma,
            cv2.CV_8U,
            self._across,
            down,
            anchor=((len(self._across) - 1) // 2, (len(down) - 1) // 2),
            borderType=cv2.BORDER_REPLICATE,
        )
        return filtered[:: 2 if both else 1, ::2]


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


def _rgb_to_yuv(red: float, blue: float, *, full: bool) -> npt.NDArray[np.float32]:
    """3×4: R, G, B (0..255) and 1 to Y, Cb and Cr in 8 bits."""
    luma = np.array([red, 1 - red - blue, blue])
    to_blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    to_red = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    luma_span, chroma_span, black = (255, 255, 0) if full else (219, 224, 16)
    spans = np.array([[luma_span], [chroma_span], [chroma_span]]) / 255
    offsets = np.array([[black], [128], [128]])
    return np.hstack([np.stack([luma, to_blue, to_red]) * spans, offsets]).astype(np.float32)
