"""Headers of image files, read by Pillow before a single pixel is decoded."""

from __future__ import annotations

import io
import mmap
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

# All of _FORMATS: for one that is not loaded, Pillow would load the forty that it knows.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from measnet.errors import InputError, MissingPackageError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of pictures that keep their format; others become PNG, or JPEG where they hold one (MPO)."""

MOST_PIXELS = 200_000_000
"""A header that claims more is refused: a few kilobytes can ask for gigabytes of memory."""

ORIENTATION = 274
"""The tag of TIFF and Exif that says how a picture is to be turned, 1 to 8; from 5 on by a quarter."""

Image.MAX_IMAGE_PIXELS = None  # ours is said in our words, before Pillow would speak

_FORMATS: tuple[str, ...] = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
    "AVIF",
    "GIF",
    "ICO",
    "JPEG2000",
    "PPM",
    "QOI",
)
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIC = {b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1")}
# libjpeg makes up what is missing at the end, in grey; only the end marker tells.
_END_MARKS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}


class PictureError(InputError):
    """A file that is no image we take. ``reason`` goes on where ``path`` ends: "is empty (0 bytes)"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


def read_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, the image upright, from the header of a file alone.

    Raises ``PictureError`` for what is missing, empty, no picture that is read, cut off, or
    larger than ``MOST_PIXELS``.
    """
    try:
        if not path.is_file():
            raise PictureError(path, "is not a picture that can be read: there is no such file")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise PictureError(path, "is empty (0 bytes); record or copy it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                image = read_header(path, data)
    except OSError as error:
        raise PictureError(path, f"is not a picture that can be read: {error.strerror}") from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise PictureError(
            path, f"claims {width} x {height} pixels; more than {MOST_PIXELS // 10**6} million are refused"
        )
    # Of TIFF, Pillow gives the upright size.
    turned = image.format != "TIFF" and orientation(image.info.get("exif", b"")) >= 5
    return (height, width) if turned else (width, height)


def read_header(path: Path, data: bytes | mmap.mmap) -> ImageFile.ImageFile:
    """The picture in ``data``, all of a file, of which nothing is decoded yet; ``path`` is for messages.

    Raises ``PictureError``: empty, of no kind that is read, or cut off; and ``MissingPackageError`` where a
    package would read it.
    """
    if not len(data):
        raise PictureError(path, "is empty (0 bytes); record or copy it again")
    formats = _FORMATS
    if data[4:12] in _HEIC:
        formats = (*_FORMATS, _heif(path))
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(file, formats=formats)  # type: ignore[arg-type]  # a map reads like a file
    except (OSError, ValueError, SyntaxError, EOFError):
        raise PictureError(path, _why_not(data)) from None
    if not _is_whole(image, data):
        raise PictureError(path, "is cut off or damaged; copy it again")
    return image


def check_is_picture(path: Path) -> None:
    """Raises ``PictureError`` for a file that is not one still picture that is read, whatever its name, and
    ``MissingPackageError`` where a package would read it."""
    if not path.is_file() or not path.stat().st_size:
        raise PictureError(path, "is empty or no file")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_single(path, read_header(path, data), data)
    except OSError as error:
        raise PictureError(path, f"cannot be read: {error.strerror}; check its name") from None


def check_single(path: Path, image: ImageFile.ImageFile, data: bytes | mmap.mmap) -> None:
    """Raises ``PictureError`` for animations, pages and pictures strung together.

    Pictures stored along with it (MPO: another view, or a gain map; ICO: smaller ones) count as parts of it.
    """
    several = image.format != "MPO" and getattr(image, "is_animated", False)
    if image.format == "JPEG":
        several = path.suffix.lower() in (".mjpeg", ".mjpg")
    if several or (image.format == "PPM" and _more_follow(image, data)):
        raise PictureError(path, "holds several pictures; save the one wanted as a file of its own")


def ending_of_result(ending: str) -> str:
    """The ending of a restored picture's name, for that of its source."""
    small = ending.lower()
    if small in IMAGE_ENDINGS:
        return ending
    return ".jpg" if small in (".jfif", ".jpe", ".mpo") else ".png"


def result_name(source: Path) -> str:
    """The name that a picture of a folder has in the folder of results."""
    return source.stem + ending_of_result(source.suffix)


def png_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The chunks of an undamaged PNG file that hold metadata, not pixels: name, and the whole chunk."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            yield kind.decode("latin-1"), data[at : at + 12 + length]
        at += 12 + length


def orientation(exif: bytes) -> int:
    """The orientation that an EXIF block states; 1, upright, where it states none that can be read."""
    block = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):
            block.load(exif)
            stated = block.get(ORIENTATION, 1)
    except (struct.error, SyntaxError, ValueError, OSError):
        return 1
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def _heif(path: Path) -> str:
    try:
        import pi_heif
    except ImportError:
        raise MissingPackageError(f"{path}: a HEIC picture", "pi-heif", "heic") from None
    pi_heif.register_heif_opener()
    return "HEIF"


def _is_whole(image: ImageFile.ImageFile, data: bytes | mmap.mmap) -> bool:
    """Tells whether the end of a file is there, as far as that is seen without decoding it."""
    if image.format == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    if image.format == "BMP":
        coding, _, offset, args = image.tile[0]
        row = args[1] if isinstance(args, tuple) else 0
        return coding != "raw" or len(data) >= offset + row * image.height
    return data.rfind(_END_MARKS.get(str(image.format), b"")) >= 0


def _more_follow(image: ImageFile.ImageFile, data: bytes | mmap.mmap) -> bool:
    """Tells whether a PPM file has room for another picture, as FFmpeg strings them together."""
    coding, _, offset, args = image.tile[0]
    deep = args[1] > 255 if isinstance(args, tuple) else args == "I;16B"
    one = image.width * image.height * len(image.getbands()) * (2 if deep else 1)
    return coding != "ppm_plain" and len(data) >= offset + 2 * one


def _why_not(data: bytes | mmap.mmap) -> str:
    """Says why Pillow does not open a file."""
    if not data[:8].startswith(_BEGINNINGS):
        return "is not a PNG, JPEG, TIFF, BMP or WebP image, nor another that is read, whatever its ending"
    try:
        tags = _tiff_tags(data)
        kind = {2: "int", 3: "float"}.get(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0], "uint")
        bits = tags[TiffImagePlugin.BITSPERSAMPLE]
    except (struct.error, SyntaxError, ValueError, KeyError, OSError):
        return "is cut off or damaged; copy it again"
    return f"has {kind}{bits[0]} samples, {len(bits)} a pixel; convert it to 8 or 16 bits per channel first"


def _tiff_tags(data: bytes | mmap.mmap) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The first directory of a TIFF file."""
    file = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if b"+" in data[:4] else 8))
    file.seek(tags.next)
    with warnings.catch_warnings(action="ignore"):
        tags.load(file)
    return tags
