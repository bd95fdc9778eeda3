"""Images: one file, or all of a folder in order of their names, with what the files say of them."""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from measnet.errors import InputError, MissingPackageError, UsageError
from measnet.image_header import (
    IMAGE_ENDINGS,
    PictureError,
    check_is_picture,
    check_single,
    png_chunks,
    read_header,
    result_name,
)
from measnet.runtime.frame import Frame, PictureFile, PictureMetadata, StreamInfo
from measnet.runtime.memory import check_memory, check_size
from measnet.runtime.sources import Source

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
    """Decodes what ``image`` shows, opened from ``data``: uint8 or uint16, H×W×1..4, grey or RGB, then alpha.

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


def read_picture_metadata(image: ImageFile.ImageFile, data: bytes) -> PictureMetadata:
    """Reads what the file of ``image``, which lies in ``data``, says besides its pixels."""
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


_OF_FILE_MANAGERS = ("Thumbs.db", "desktop.ini")


class Images(Source):
    """Frames from image files; the file's number in the folder stands for its time.

    Args:
        path: a file, or a folder of which every image directly in it is taken.

    Raises:
        InputError: missing, not readable, no images in the folder, or (for a single file)
            not an image.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._skipped: frozenset[str] = frozenset()
        self._single = not path.is_dir()
        self.paths, said = ([path], []) if self._single else _images_in(path)
        self.warnings += said
        # A single file is decoded at once, so that a bad one is refused before any work.
        self._first = _load(path, self.warnings) if self._single else None
        height, width = self._first.values.shape[:2] if self._first else (0, 0)
        self.info = StreamInfo(
            name=str(path),
            kind="images",
            width=width,
            height=height,
            time_base=Fraction(1),
            frames=len(self.paths),
            bits=self._first.values.itemsize * 8 if self._first else 8,
        )

    def skip(self, frames: int, names: frozenset[str]) -> None:
        self._skipped = names

    def read(self) -> Iterator[Frame]:
        """See Source.read. In a folder a damaged image is counted and left out."""
        for number, path in enumerate(self.paths):
            if path.name in self._skipped:
                continue
            try:
                loaded = self._first or _load(path, self.warnings)
            except (InputError, MissingPackageError) as error:
                self.damaged += 1
                self.warnings.append(f"left out: {error}")
                continue
            self._first = None
            yield loaded.frame(number)
        if self.damaged == len(self.paths):
            raise InputError(
                f"none of the {self.damaged} images of {self.info.name} could be read; the first "
                f"is {next(line for line in self.warnings if line.startswith('left out: '))}"
            )


class _Loaded:
    """An image as it lies in its file: ``values`` is uint8 or uint16, H×W×1..4: grey or RGB, then alpha."""

    def __init__(self, path: Path, values: Values, metadata: PictureMetadata) -> None:
        self.values = values
        self._path = path
        self._metadata = metadata

    def frame(self, number: int) -> Frame:
        channels = self.values.shape[2]
        grey = channels <= 2
        colours = self.values[:, :, :1].repeat(3, axis=2) if grey else self.values[:, :, :3]
        alpha = self.values[:, :, -1] if channels in (2, 4) else None
        return Frame(
            pixels=np.ascontiguousarray(colours),
            pts=number,
            time_base=Fraction(1),
            picture=PictureFile(self._path, alpha, grey, self._metadata),
        )


def _load(path: Path, warnings: list[str]) -> _Loaded:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its name") from None
    image = read_header(path, data)
    check_size(str(path), image.width, image.height)
    check_memory(str(path), image.width, image.height)
    check_single(path, image, data)
    try:
        metadata = read_picture_metadata(image, data)
        values = pixels_of(image, data)
    except (cv2.error, OSError, SyntaxError, ValueError, AttributeError, struct.error) as error:
        raise InputError(f"{path} is damaged and cannot be decoded; copy it again") from error
    said = []
    if image.format == "MPO":
        said.append("of files with further pictures (views, a gain map for HDR) the first one is restored")
    if image.format == "ICO" and len(image.info["sizes"]) > 1:
        said.append("of icons the largest picture is restored")
    if image.mode == "CMYK":
        said.append("pictures in printing colours become RGB, without their colour profile")
    warnings += [line for line in said if line not in warnings]
    return _Loaded(path, values, metadata)


def _images_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures directly in a folder by name, and a line for each kind of what is left out."""
    taken: dict[str, Path] = {}
    left_out = Counter[str]()
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    for path in paths:
        reason = _why_left_out(path)
        if reason:
            left_out[reason] += 1
        elif reason is None and taken.setdefault(result_name(path), path) != path:
            raise UsageError(
                f"{taken[result_name(path)]} and {path} would both become {result_name(path)}; "
                "restore them one by one"
            )
    if not taken:
        other = f"; name videos one by one: {folder / '*'}" if paths else ""
        raise InputError(f"{folder} holds no images ({' '.join(IMAGE_ENDINGS)}){other}")
    said = [f"left out of {folder}: {number} {reason}" for reason, number in sorted(left_out.items())]
    return list(taken.values()), said


def _why_left_out(path: Path) -> str | None:
    """The kind of a file that is left out of a folder; None for one that is taken, "" for hidden ones."""
    ending = path.suffix.lower()
    if path.is_dir():
        return "folder (give it as an input of its own)"
    if ending in IMAGE_ENDINGS and path.is_file():
        return None
    if path.name.startswith(".") or path.name in _OF_FILE_MANAGERS:
        return ""
    kind = ending or "without an ending"
    try:
        check_is_picture(path)
    except MissingPackageError as error:
        return f"{kind} (HEIC, which needs: pip install 'measnet[{error.extra}]')"
    except PictureError as error:
        several = error.reason.startswith("holds several")
        return f"{kind} ({'several pictures in one' if several else 'not a picture that is read'})"
    return None
