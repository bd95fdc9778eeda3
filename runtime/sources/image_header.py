"""What an image file says about itself, read before a single pixel is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from measnet.errors import InputError

# By ending, for telling images from videos and for going through folders.
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")

_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """``width`` and ``height`` in pixels; ``several`` pictures lie in the file, not one."""

    width: int
    height: int
    several: bool = False


def read_header(name: str, data: bytes) -> ImageHeader:
    """The header of a PNG, JPEG, TIFF, BMP or WebP file.

    Args:
        name: what messages call the file.
        data: all of the file.

    Raises:
        InputError: empty, none of these formats, or cut off.
    """
    if not data:
        raise InputError(f"{name} is empty (0 bytes); record or copy it again")
    reader = next((read for magic, read in _READERS if data.startswith(magic)), None)
    if reader is None:
        raise InputError(f"{name} is not a PNG, JPEG, TIFF, BMP or WebP image, whatever its ending")
    try:
        return reader(data)
    except (struct.error, IndexError, _CutOffError):
        raise InputError(f"{name} is cut off or damaged; copy it again") from None


class _CutOffError(Exception):
    pass


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    _require(b"IEND" in data[-64:] or b"IEND" in data)
    return ImageHeader(width, height)


def _jpeg(data: bytes) -> ImageHeader:
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        _require(data[at] == 0xFF)
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            # libjpeg fills a missing end with grey; the end-of-image marker tells.
            _require(data.rfind(b"\xff\xd9") > at)
            return ImageHeader(width, height)
        at += 2 + length


def _bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader(width, abs(height))


def _webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    _require(data[8:12] == b"WEBP" and len(data) >= size + 8)
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return ImageHeader(width, height, several=bool(data[20] & 0x02))
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ImageHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", data, 26)
    return ImageHeader(width & 0x3FFF, height & 0x3FFF)


def _tiff(data: bytes) -> ImageHeader:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    size = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            (size[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    _require(len(size) == 2)
    return ImageHeader(size[_TIFF_WIDTH], size[_TIFF_HEIGHT], several=following != 0)


def _require(sound: bool) -> None:
    if not sound:
        raise _CutOffError


_READERS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
