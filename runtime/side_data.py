"""Side data of a stream: read from frames, given to encoders, put into packets."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import av
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer

from measnet.runtime.frame import Colour, ContentLight, Hdr, MasteringDisplay

if TYPE_CHECKING:
    import av

HDR_TREATMENT = (
    "HDR video: its code values (PQ or HLG) are restored as they are by a network that was trained on SDR"
)
"""Words for the user."""

_TRANSFERS = (16, 18)  # PQ and HLG in ITU-T H.273

_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """Words for one encoder: the option of its own parameters, their names, and whether colours are given
    in steps of the SEI message (1/50000, 1/10000 cd/m²) or in decimals."""

    option: str
    display: str
    light: str
    steps: bool = True


WORDINGS = {
    "libx264": Wording("x264-params", "mastering-display", "cll"),
    "libx265": Wording("x265-params", "master-display", "max-cll"),
    "libsvtav1": Wording("svtav1-params", "mastering-display", "content-light", steps=False),
}
"""By FFmpeg's name of the encoder. One that is not here cannot store it."""


def side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """All side data of a decoded frame, by FFmpeg's names."""
    # Not frame.side_data: a frame keeps that, and that keeps the frame, until Python looks for circles.
    said: Any = SideDataContainer(frame)  # type: ignore[call-arg]  # PyAV types it loosely
    return {data.type.name: bytes(data) for data in said}


def is_hdr(colour: Colour) -> bool:
    return colour.transfer in _TRANSFERS


def read_hdr(frame: av.VideoFrame) -> Hdr:
    """Reads what a decoded frame says of the display that it was graded on."""
    said = side_data(frame)
    display, light = said.get("MASTERING_DISPLAY_METADATA"), said.get("CONTENT_LIGHT_LEVEL")
    return Hdr(
        None if display is None else _display(display),
        None if light is None else ContentLight(*struct.unpack_from("=2I", light)),
        tuple(dict.fromkeys(_DYNAMIC[name] for name in said if name in _DYNAMIC)),
    )


def encoder_parameters(hdr: Hdr, wording: Wording) -> list[str]:
    """``name=value`` for each thing that is known, as the encoder's own options take them."""
    parameters = []
    if hdr.display is not None:
        parameters.append(f"{wording.display}={_in_words(hdr.display, steps=wording.steps)}")
    if hdr.light is not None:
        parameters.append(f"{wording.light}={hdr.light.brightest_pixel},{hdr.light.brightest_frame}")
    return parameters


def _display(data: bytes) -> MasteringDisplay:
    """Reads FFmpeg's AVMasteringDisplayMetadata: ten rationals, and whether it believes them."""
    numbers = struct.unpack_from("=20i", data)
    values = [
        Fraction(top, bottom) if bottom else Fraction(0)
        for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    red, green, blue, white = zip(values[:8:2], values[1:8:2], strict=True)
    darkest, brightest = values[8:]
    return MasteringDisplay(red, green, blue, white, darkest, brightest)


def _in_words(display: MasteringDisplay, *, steps: bool) -> str:
    def written(value: Fraction, step: int, most: int) -> str:
        if not steps:
            return f"{float(value):.6f}"
        return str(min(max(round(value * step), 0), most))

    parts = {"G": display.green, "B": display.blue, "R": display.red, "WP": display.white}
    places = "".join(
        f"{name}({written(x, 50_000, 0xFFFF)},{written(y, 50_000, 0xFFFF)})" for name, (x, y) in parts.items()
    )
    brightest = written(display.brightest, 10_000, 0xFFFFFFFF)
    return f"{places}L({brightest},{written(display.darkest, 10_000, 0xFFFFFFFF)})"


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
    return side_data(frame).get("A53_CC", b"")


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
