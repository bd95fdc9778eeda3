"""Closed captions that lie in the coded picture (ATSC A/53), read from frames and put back into packets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from av.packet import Packet

if TYPE_CHECKING:
    import av

_MOST = 31  # of three bytes each that one picture has room for
_PROVIDER = b"\xb5\x00\x31GA94\x03"  # ITU-T T.35: the United States, ATSC; captions
_START = re.compile(b"\0\0\1(.)", re.DOTALL)
_WOULD_BE_A_START = re.compile(b"\0\0(?=[\0-\3])")


class _Coding(NamedTuple):
    """Packing of messages by a codec: a message's header, the bits of its kind, the kinds of pictures."""

    header: bytes
    shift: int
    mask: int
    pictures: range


_H264 = _Coding(b"\x06", 0, 0x1F, range(1, 6))
_HEVC = _Coding(b"\x4e\x01", 1, 0x3F, range(32))


def read_captions(frame: av.VideoFrame) -> bytes:
    """Reads the captions of this frame, as its decoder gives them; empty if there are none."""
    for data in frame.side_data:
        if data.type.name == "A53_CC":  # type: ignore[attr-defined]  # PyAV types it loosely
            return bytes(data)  # type: ignore[arg-type]  # a buffer
    return b""


def takes_captions(encoder: str) -> bool:
    """Tells whether packets of FFmpeg's encoder of that name have a place for captions."""
    return _coding(encoder) is not None


def with_captions(packet: Packet[Any], captions: bytes, encoder: str) -> Packet[Any]:
    """Puts a message with captions before the encoded picture; the packet's own start codes must be there."""
    coding = _coding(encoder)
    assert coding is not None
    data = bytes(packet)
    place = next(
        found.start()
        for found in _START.finditer(data)
        if (found[1][0] >> coding.shift) & coding.mask in coding.pictures
    )
    captions = captions[: 3 * _MOST]
    payload = _PROVIDER + bytes((0x40 | len(captions) // 3, 0)) + captions + b"\xff"
    message = _WOULD_BE_A_START.sub(lambda _: b"\0\0\3", bytes((4, len(payload))) + payload + b"\x80")
    whole = Packet(data[:place] + b"\0\0\1" + coding.header + message + data[place:])
    whole.pts, whole.dts, whole.duration = packet.pts, packet.dts, packet.duration
    whole.time_base, whole.is_keyframe = packet.time_base, packet.is_keyframe
    return whole


def _coding(encoder: str) -> _Coding | None:
    if encoder == "libx264" or encoder.startswith("h264_"):
        return _H264
    return _HEVC if encoder == "libx265" or encoder.startswith("hevc_") else None
