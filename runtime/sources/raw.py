"""What has to be said about raw video, which says nothing about itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from measnet.errors import UsageError

_SPEC = re.compile(r"(\d{1,6})x(\d{1,6}):(\w+)@(\d{1,9}(?:\.\d{1,6}|/\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class RawVideo:
    """Frames of ``width`` by ``height`` pixels in FFmpeg's ``pixel_format``, ``rate`` of them a second."""

    width: int
    height: int
    pixel_format: str
    rate: Fraction

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.pixel_format}@{self.rate}"

    @property
    def demuxer_options(self) -> dict[str, str]:
        """For FFmpeg's ``rawvideo``."""
        return {
            "video_size": f"{self.width}x{self.height}",
            "pixel_format": self.pixel_format,
            "framerate": f"{self.rate.numerator}/{self.rate.denominator}",
        }


def parse_raw(text: str) -> RawVideo:
    """``640x360:yuv420p@25``; the rate may be 29.97 or 30000/1001. Raises UsageError."""
    import av

    found = _SPEC.fullmatch(text)
    if found is None or found[4].endswith("/0") or Fraction(found[4]) <= 0:
        raise UsageError(f"--raw {text} is not WxH:FORMAT@RATE, as in 640x360:yuv420p@25")
    try:
        av.VideoFormat(found[3])
    except ValueError:
        raise UsageError(
            f"--raw {text}: FFmpeg has no pixel format {found[3]}; ffmpeg -pix_fmts lists them"
        ) from None
    return RawVideo(int(found[1]), int(found[2]), found[3], Fraction(found[4]))
