"""Sink to a virtual camera (v4l2loopback), which programs such as video calls read."""

from __future__ import annotations

import re
from pathlib import Path

from av.error import FFmpegError

from measnet.errors import UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.containers import LOOPBACK
from measnet.runtime.sinks.encoded import EncodedSink, Outside
from measnet.runtime.sinks.encoder import PictureEncoding
from measnet.runtime.sinks.muxer import Muxer

_DEVICE = re.compile(r"/dev/video\d+")


def is_loopback(target: Path) -> bool:
    """Says whether a target is called like a camera."""
    return _DEVICE.fullmatch(str(target)) is not None


class LoopbackSink(EncodedSink):
    """Writes frames to ``/dev/videoN``, 8 bits, 4:2:0. Sound goes elsewhere.

    Args:
        device: made by the kernel module v4l2loopback.
        info: what belongs to the source's stream.

    Raises:
        UsageError: there is no such device, or it takes no pictures.
    """

    def __init__(self, device: Path, info: StreamInfo) -> None:
        asked = Encoding(bits=8, pixel_format="yuv420p", sound="none")
        picture = PictureEncoding(device, LOOPBACK, info, asked)
        muxer = Muxer(device, device, LOOPBACK, info, picture)
        try:
            muxer.begin()
        except (FFmpegError, OSError) as error:
            raise UsageError(
                f"{device} takes no pictures ({error.strerror}); it needs the kernel module: modprobe "
                "v4l2loopback exclusive_caps=1, and v4l2-ctl --list-devices says which device it made"
            ) from None
        super().__init__(device, Outside(device), picture, muxer)
