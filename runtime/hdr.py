"""High dynamic range: what a stream says about the display it was graded on.

The picture itself is treated as any other: the network sees PQ and HLG code values as they are. Only
what is said about them is carried here: mastering display (SMPTE ST 2086) and content light level
(CTA-861.3), the static metadata of HDR10.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av

from measnet.runtime.frame import Colour, ContentLight, Hdr, MasteringDisplay

HDR_TREATMENT = (
    "HDR video: its code values (PQ or HLG) are restored as they are by a network that was trained on SDR"
)
"""What a user is told."""

_TRANSFERS = (16, 18)  # PQ and HLG in ITU-T H.273

_DYNAMIC = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "DOVI_RPU_BUFFER": "Dolby Vision",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """How one encoder is told: the option of its own parameters, their names, and whether colours are given
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


def is_hdr(colour: Colour) -> bool:
    return colour.transfer in _TRANSFERS


def read_hdr(frame: av.VideoFrame) -> Hdr:
    """What a decoded frame carries beside its pixels."""
    display, light, dynamic = None, None, dict[str, None]()
    for data in frame.side_data:
        name = data.type.name  # type: ignore[attr-defined]  # PyAV types it loosely
        if name == "MASTERING_DISPLAY_METADATA":
            display = _display(bytes(data))  # type: ignore[arg-type]  # a buffer
        elif name == "CONTENT_LIGHT_LEVEL":
            light = ContentLight(*struct.unpack_from("=2I", bytes(data)))  # type: ignore[arg-type]  # a buffer
        elif name in _DYNAMIC:
            dynamic[_DYNAMIC[name]] = None
    return Hdr(display, light, tuple(dynamic))


def encoder_parameters(hdr: Hdr, wording: Wording) -> list[str]:
    """``name=value`` for each thing that is known, as the encoder's own options take them."""
    parameters = []
    if hdr.display is not None:
        parameters.append(f"{wording.display}={_in_words(hdr.display, steps=wording.steps)}")
    if hdr.light is not None:
        parameters.append(f"{wording.light}={hdr.light.brightest_pixel},{hdr.light.brightest_frame}")
    return parameters


def _display(data: bytes) -> MasteringDisplay:
    """From FFmpeg's AVMasteringDisplayMetadata: ten rationals, and whether it believes them."""
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
