"""What lies in an image file: its pixels, and what it says of them."""

from __future__ import annotations

import warnings
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from measnet.image_header import png_chunks
from measnet.runtime.frame import PictureMetadata

Values = npt.NDArray[Any]

_WHITE = 65535
# Chunks of PNG that say how its colours are meant. Others stay if they are marked as safe to copy.
_COLOUR_CHUNKS = {"cICP", "cHRM", "gAMA", "iCCP", "sRGB", "mDCV", "cLLI"}
# How JPEG's segments begin that are written anew: EXIF, XMP, the colour profile, the list of pictures.
_WRITTEN_ANEW = (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0")
_SEGMENTS = {"COM": "comment", "APP13": "IPTC"}
# Tags of TIFF that are kept: title, camera, software, date, author, host and rights; EXIF's own and GPS.
_TEXTS = (270, 271, 272, 305, 306, 315, 316, 33432)
_DPI = 282
_DIRECTORIES = (34665, 34853)
_TIFF_BLOCKS = {33723: "IPTC", 34377: "Photoshop"}


def pixels_of(image: ImageFile.ImageFile, data: bytes) -> Values:
    """What ``image`` shows, opened from ``data``: uint8 or uint16, H×W×1..4, grey or RGB, then alpha.

    Raises what Pillow and OpenCV raise for damaged files.
    """
    white = _white(image, data)
    if white > 255:
        return _deep(image, data, white)
    channels = "LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"
    with warnings.catch_warnings(action="ignore"):
        image.load()
        shown = image.convert(channels if image.has_transparency_data else channels[:-1])
    values = np.asarray(shown)
    return values[:, :, None] if values.ndim == 2 else values


def in_other_order(values: Values) -> Values:
    """RGB as BGR, which is OpenCV's order, and back; grey and alpha stay."""
    return values if values.shape[2] < 3 else values[:, :, [2, 1, 0, 3][: values.shape[2]]]


def read_metadata(image: ImageFile.ImageFile, data: bytes) -> PictureMetadata:
    """What the file of ``image`` says beside its pixels, which lies in ``data``."""
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    info = image.info
    exif, dpi = info.get("exif", b""), info.get("dpi")
    own: list[tuple[str, Any]] = []
    if kind == "PNG":
        own += _png_parts(data)
    elif kind == "JPEG":
        own += _jpeg_parts(image)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        exif = _tiff_exif(image)
        dpi = dpi if _DPI in tags else None  # Pillow takes 1 where there are none
        own += [(name, (tag, tags[tag])) for tag, name in _TIFF_BLOCKS.items() if tag in tags]
    xmp = info.get("xmp", b"")
    return PictureMetadata(
        format=kind,
        exif=exif,
        icc=b"" if image.mode == "CMYK" else info.get("icc_profile") or b"",
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        dpi=dpi,
        own=tuple(own),
    )


def _white(image: ImageFile.ImageFile, data: bytes) -> int:
    """The sample that is white in the file."""
    coding, _, _, args = image.tile[0] if image.tile else ("", None, 0, None)
    if image.format == "AVIF":
        at = data.find(b"pixi")
        return (1 << data[at + 9]) - 1 if at > 0 else 255
    if image.format == "JPEG2000":
        depth = data[data.index(b"\xff\x51") + 40] + 1  # of the first channel, in the codestream's header
        return _WHITE if 8 < depth <= 16 else 255
    if coding == "ppm" and isinstance(args, tuple):
        return max(int(args[1]), 255)  # Pillow itself stretches fewer than 8 bits
    return _WHITE if image.mode.startswith("I") or ";16" in str(args) else 255


def _deep(image: ImageFile.ImageFile, data: bytes, white: int) -> Values:
    """More than 8 bits, which Pillow has of grey alone."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError("not of 16 bits")
    if white != _WHITE:
        values = np.rint(values * (_WHITE / white)).astype(np.uint16)
    values = in_other_order(values[:, :, None] if values.ndim == 2 else values)
    clear = image.info.get("transparency")
    if clear is not None and values.shape[2] in (1, 3):
        values = np.dstack([values, np.where((values == clear).all(axis=2), 0, _WHITE).astype(np.uint16)])
    if image.tile[0].args == "LA;16B":
        values = values[:, :, [0, 3]]
    return np.asarray(values)


def _png_parts(data: bytes) -> list[tuple[str, bytes]]:
    return [
        ("XMP" if b"XML:com.adobe.xmp" in whole[8:32] else name, whole)
        for name, whole in png_chunks(data)
        if name in _COLOUR_CHUNKS or name[3].islower()
    ]


def _jpeg_parts(image: ImageFile.ImageFile) -> list[tuple[str, bytes]]:
    parts = []
    for name, body in getattr(image, "applist", ()):
        if name in ("APP0", "APP14") or body.startswith(_WRITTEN_ANEW):
            continue
        marker = 0xFE if name == "COM" else 0xE0 + int(name[3:])
        whole = bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body
        parts.append((_SEGMENTS.get(name, name), whole))
    return parts


def _tiff_exif(image: TiffImagePlugin.TiffImageFile) -> bytes:
    """The tags of TIFF that EXIF has as well; the orientation is none of them, as the pixels come turned."""
    found, kept = image.getexif(), Image.Exif()
    for tag in _TEXTS:
        if tag in found:
            kept[tag] = found[tag]
    for tag in _DIRECTORIES:
        if tag in found:
            kept[tag] = found.get_ifd(tag)
    return kept.tobytes() if len(kept) else b""
