"""YUV to RGB and back, with one matrix and one range both ways.

An engine that leaves the colours alone must leave the file's colours alone: whatever
matrix and range a stream is read with, it is written with.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from measnet.runtime.frame import Colour, Pixels

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

# Without accurate rounding and full chroma swscale darkens luma by about one code value.
_PRECISE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


class ColourConverter:
    """Turns decoded frames into RGB pixels and RGB pixels into frames to encode.

    One object serves one thread and one direction: swscale keeps its tables in it.

    Args:
        colour: the stream's tags.
        width, height: of the stream, in pixels. An unspecified matrix is taken to be
            BT.709 from 1280×720 up and BT.601 below, as players do.
    """

    def __init__(self, colour: Colour, width: int, height: int) -> None:
        fallback = Colorspace.ITU709 if width >= 1280 or height >= 720 else Colorspace.ITU601
        self._matrix = _MATRICES.get(colour.matrix, fallback)
        self._range = ColorRange.JPEG if colour.range == 2 else ColorRange.MPEG
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: av.VideoFrame) -> Pixels:
        """The frame as uint8 H×W×3, RGB."""
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=self._range_of(frame),
            dst_color_range=ColorRange.JPEG,
            interpolation=_PRECISE,
            threads=1,
        )
        return np.asarray(rgb.to_ndarray(), dtype=np.uint8)

    def from_rgb(self, pixels: Pixels, pixel_format: str) -> av.VideoFrame:
        """uint8 H×W×3 RGB as a frame in ``pixel_format``, a YUV format."""
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return self._reformatter.reformat(
            rgb,
            format=pixel_format,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
            interpolation=_PRECISE,
            threads=1,
        )

    def _range_of(self, frame: av.VideoFrame) -> ColorRange:
        # RGB has no limited range here: the tag of an RGB stream speaks of the YUV it never was.
        return ColorRange.JPEG if frame.format.is_rgb else self._range


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
