"""What an image file says about itself, read before a single pixel is decoded.

Sources: PNG (W3C, 3rd edition), JPEG (ITU-T T.81, annex B), TIFF 6.0, Exif 2.32, WebP (RFC 9649), BMP.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from measnet.errors import InputError

# By ending, for telling images from videos and for going through folders.
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

MOST_PIXELS = 200_000_000
"""A header that claims more is refused: a few kilobytes can ask for gigabytes of memory."""

_Data = bytes | mmap.mmap

_MOST_PARTS = 10_000  # chunks or segments that are looked through for the one with the size
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # tags of TIFF and Exif
_JPEG_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class PictureError(InputError):
    """A file that is no image we take. ``reason`` goes on where ``path`` ends: "is empty (0 bytes)"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


class ImageHeader(NamedTuple):
    """``width`` and ``height`` in pixels, as stored."""

    width: int
    height: int
    turned: bool = False
    """Exif asks for a quarter turn."""
    several: bool = False
    """More than one image lies in the file."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as Exif wants the image to be seen."""
        return (self.height, self.width) if self.turned else (self.width, self.height)


def read_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, the image upright, from the header of a file alone.

    Raises ``PictureError`` for what is missing, empty, no PNG, JPEG, TIFF, BMP or WebP, cut off, without a
    pixel, or larger than ``MOST_PIXELS``.
    """
    try:
        if not path.is_file():
            raise PictureError(path, "is not a picture that can be read: there is no such file")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise PictureError(path, "is empty (0 bytes); record or copy it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = read_header(path, data)
    except OSError as error:
        raise PictureError(path, f"is not a picture that can be read: {error.strerror}") from None
    width, height = header.upright
    if width * height > MOST_PIXELS:
        raise PictureError(
            path, f"claims {width} x {height} pixels; more than {MOST_PIXELS // 10**6} million are refused"
        )
    return width, height


def read_header(path: Path, data: bytes | mmap.mmap) -> ImageHeader:
    """The header of a PNG, JPEG, TIFF, BMP or WebP file. ``data`` is all of it; ``path`` is for messages.

    Raises ``PictureError``: empty, none of these formats, cut off, or without a pixel.
    """
    if not len(data):
        raise PictureError(path, "is empty (0 bytes); record or copy it again")
    reader = next((read for magic, read in _READERS if data[: len(magic)] == magic), None)
    if reader is None:
        raise PictureError(path, "is not a PNG, JPEG, TIFF, BMP or WebP image, whatever its ending")
    try:
        header = reader(data)
    except (struct.error, IndexError, _CutOffError):
        raise PictureError(path, "is cut off or damaged; copy it again") from None
    if header.width < 1 or header.height < 1:
        size = f"{header.width} x {header.height}"
        raise PictureError(path, f"is damaged: its size is {size}; copy it again")
    return header


class _CutOffError(Exception):
    pass


def _png(data: _Data) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    _require(data.rfind(b"IEND") > 0)
    turned, at = False, 8
    for _ in range(_MOST_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            turned = _turned(data[at + 8 : at + 8 + length])
        if kind in (b"eXIf", b"IEND"):
            break
        at += length + 12
    return ImageHeader(width, height, turned)


def _jpeg(data: _Data) -> ImageHeader:
    turned, at = False, 2
    for _ in range(_MOST_PARTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        start, marker, length = struct.unpack_from(">BBH", data, at)
        _require(start == 0xFF)
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            turned = _turned(data[at + 10 : at + 2 + length])
        if marker in _JPEG_SIZE:
            height, width = struct.unpack_from(">HH", data, at + 5)
            # libjpeg makes up what is missing at the end, in grey; only the end marker tells.
            _require(data.rfind(b"\xff\xd9") > at)
            return ImageHeader(width, height, turned)
        at += 2 + length
    raise _CutOffError


def _bmp(data: _Data) -> ImageHeader:
    pixels, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    row = (width * bits + 31) // 32 * 4
    _require(packing != 0 or len(data) >= pixels + row * abs(height))
    return ImageHeader(width, abs(height))


def _webp(data: _Data) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    _require(data[8:12] == b"WEBP" and len(data) >= size + 8)
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return ImageHeader(width, height, _webp_turned(data), several=bool(data[20] & 0x02))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ImageHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", data, 26)
    return ImageHeader(width & 0x3FFF, height & 0x3FFF)


def _webp_turned(data: _Data) -> bool:
    at = 12
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return _turned(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return False


def _tiff(data: _Data) -> ImageHeader:
    tags, following = _tiff_tags(data)
    _require(_WIDTH in tags and _HEIGHT in tags)
    turned = tags.get(_ORIENTATION, 1) >= 5
    return ImageHeader(tags[_WIDTH], tags[_HEIGHT], turned, several=following != 0)


def _turned(exif: bytes) -> bool:
    try:
        return 5 <= _tiff_tags(exif)[0].get(_ORIENTATION, 1) <= 8
    except (struct.error, IndexError):
        return False  # a damaged Exif block leaves the picture as it is stored


def _tiff_tags(data: _Data) -> tuple[dict[int, int], int]:
    """The numbers of the first directory of a TIFF file, or of an Exif block, which is built like one, and
    where the next directory lies; 0 is nowhere."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    after = data[at + 2 + 12 * count : at + 6 + 12 * count]
    return tags, int.from_bytes(after, "little" if order == "<" else "big")


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
