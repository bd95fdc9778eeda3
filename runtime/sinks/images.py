"""An image file, in the format its name says."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, TiffTags

from measnet.errors import OutputError, UsageError
from measnet.image_header import IMAGE_ENDINGS, png_chunks
from measnet.runtime.frame import Frame, Picture, PictureMetadata, Pixels
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.aside import Aside, write_error
from measnet.runtime.sources.picture_file import in_other_order

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
_FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}
# A JPEG stays a JPEG so that a folder keeps its names; at 95 with full chroma the second
# compression lies far below what restoring changes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}
_TAKES = {
    "JPEG": ("exif", "icc", "xmp", "dpi"),
    "PNG": ("exif", "icc", "xmp", "dpi"),
    "TIFF": ("exif", "icc", "xmp", "dpi"),
    "WEBP": ("exif", "icc", "xmp"),
    "BMP": ("dpi",),
}
_NAMES = {"exif": "EXIF", "icc": "colour profile", "xmp": "XMP", "dpi": "dots per inch"}
# What a format of its own says that EXIF, XMP, the colour profile and the dots per inch say as well, or that
# goes without saying.
_SAID_ELSEWHERE = {"eXIf", "iCCP", "pHYs", "XMP", "sRGB"}
_OPAQUE = ("JPEG", "BMP")
_DEEP = ("PNG", "TIFF")
_XMP, _RESOLUTION_UNIT = 700, 296  # tags of TIFF
_LONGEST_BLOCK = 65_500  # of JPEG


class ImageSink(Sink):
    """Writes one frame to an image file, in the channels and the depth the frame's file had.

    Raises:
        UsageError: the file's ending is not that of an image.
    """

    def __init__(self, target: Path) -> None:
        if target.suffix.lower() not in IMAGE_ENDINGS:
            raise UsageError(
                f"{target}: an image is written as one of {' '.join(IMAGE_ENDINGS)}, not '{target.suffix}'"
            )
        super().__init__()
        self._target = target
        self._aside = Aside(target)
        self._encoder = ImageEncoder()
        self._written = False
        self._done = False

    def write(self, frame: Frame) -> None:
        """See Sink.write. The frame must have its ``picture``."""
        data = self._encoder.encode(frame.pixels, picture_of(frame), self._target.suffix.lower())
        try:
            self._aside.path.write_bytes(data)
        except OSError as error:
            raise write_error(self._target, error) from None
        self._written = True

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish."""
        if not self._written:
            self.abort()
            return None
        self._done = True
        self.warnings += self._encoder.losses()
        return self._aside.keep(partial=partial)

    def abort(self) -> None:
        """See Sink.abort."""
        if not self._done:
            self._done = True
            self._aside.discard()


class ImageEncoder:
    """Turns pixels into the bytes of image files. ``lost`` names, once each, what formats could not hold."""

    def __init__(self) -> None:
        self.lost: dict[str, None] = {}

    def losses(self) -> list[str]:
        """A line on what was lost, if anything was."""
        return [f"not carried over: {', '.join(self.lost)}"] if self.lost else []

    def encode(self, pixels: Pixels, picture: Picture, ending: str) -> bytes:
        """``pixels`` in the channels of ``picture``, with its metadata, as a file that ends in ``ending``.

        Raises OutputError.
        """
        kind = _FORMATS[ending]
        values = _channels(pixels, picture)
        if values.dtype == np.uint16 and kind not in _DEEP:
            self.lost[f"16 bits per channel ({ending} has 8)"] = None
            values = _eight_bit(values)
        if picture.alpha is not None and kind in _OPAQUE:
            self.lost[f"transparency ({ending} has none)"] = None
            values = values[:, :, :-1]
        if values.dtype == np.uint16 and values.shape[2] == 2:
            self.lost["grey beside transparency (of 16 bits: stored in three equal colours)"] = None
            values = values[:, :, [0, 0, 0, 1]]
        said = self._writable(picture.metadata, kind, ending, values.dtype == np.uint16)
        own = picture.metadata.own if picture.metadata.format == kind else ()
        try:
            if kind == "PNG":
                return _png(values, said, [whole for _, whole in own])
            if values.dtype == np.uint16:
                return _deep_tiff(values, picture.metadata.dpi)
            if kind == "JPEG":
                said["extra"] = b"".join(whole for _, whole in own)
            if kind == "TIFF":
                said |= _tiff_options(said.pop("exif", b""), said.pop("xmp", b""), own)
            return _saved(values, kind, _OPTIONS.get(kind, {}) | said)
        except (cv2.error, OSError, RuntimeError, ValueError, struct.error):
            raise OutputError(
                f"a picture of {values.shape[1]}×{values.shape[0]} cannot be written as {ending}; "
                "choose an --out ending in .png"
            ) from None

    def _writable(self, metadata: PictureMetadata, kind: str, ending: str, deep: bool) -> dict[str, Any]:
        """Puts ``metadata`` into Pillow's words, so far as files of ``kind`` can say it; the rest is lost."""
        takes = ("dpi",) if deep and kind == "TIFF" else _TAKES[kind]
        said = {}
        for word, name in _NAMES.items():
            value = getattr(metadata, word)
            too_long = kind == "JPEG" and word in ("exif", "xmp") and len(value) > _LONGEST_BLOCK
            if value and word in takes and not too_long:
                said["icc_profile" if word == "icc" else word] = value
            elif value:
                self.lost[f"{name} (not written to {ending})"] = None
        if metadata.format != kind or (deep and kind == "TIFF"):
            for name, _ in metadata.own:
                if name not in _SAID_ELSEWHERE:
                    self.lost[f"{name} (not written to {ending})"] = None
        return said


def picture_of(frame: Frame) -> Picture:
    """Finds what the image file of a frame held beside its colours."""
    if frame.picture is None:
        raise TypeError("an image sink takes frames that came from image files")
    return frame.picture


def _eight_bit(values: Pixels) -> Pixels:
    # 65535 / 255 = 257 exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _channels(pixels: Pixels, picture: Picture) -> Pixels:
    """The channels that the picture's file had: grey or RGB, then alpha."""
    colours = pixels
    if picture.grey:
        colours = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), pixels.dtype)
    parts = [colours] if picture.alpha is None else [colours, picture.alpha]
    return np.dstack(parts)


def _saved(values: Pixels, kind: str, options: dict[str, Any]) -> bytes:
    """A file of ``kind``, by Pillow; 8 bits."""
    file = io.BytesIO()
    grey = values.shape[2] == 1
    Image.fromarray(np.ascontiguousarray(values[:, :, 0] if grey else values)).save(file, kind, **options)
    return file.getvalue()


def _png(values: Pixels, said: dict[str, Any], own: list[bytes]) -> bytes:
    """A PNG file. OpenCV writes it, as it is fast and knows 16 bits, save for grey with alpha."""
    if not own:  # Pillow words what other formats said; a file of one pixel will do
        texts = PngImagePlugin.PngInfo()
        if "xmp" in said:
            texts.add_itxt("XML:com.adobe.xmp", said.pop("xmp").decode("utf-8", "replace"))
        one = _saved(np.zeros((1, 1, 1), np.uint8), "PNG", said | {"pnginfo": texts})
        own = [whole for _, whole in png_chunks(one)]
    grey_alpha = values.shape[2] == 2
    bare = _saved(values, "PNG", {"compress_level": 1}) if grey_alpha else _encoded(".png", values)
    header = 8 + 25  # the signature, and the chunk of the size
    return bare[:header] + b"".join(own) + bare[header:]


def _deep_tiff(values: Pixels, dpi: tuple[float, float] | None) -> bytes:
    across, down = dpi or (0, 0)
    options = [cv2.IMWRITE_TIFF_XDPI, round(across), cv2.IMWRITE_TIFF_YDPI, round(down)]
    return _encoded(".tif", values, [*options, cv2.IMWRITE_TIFF_RESUNIT, 2] if dpi else [])


def _encoded(ending: str, values: Pixels, options: Sequence[int] = ()) -> bytes:
    """A file by OpenCV, which takes colours as BGR."""
    sound, data = cv2.imencode(ending, in_other_order(values), options)
    if not sound:
        raise ValueError(f"no {ending}")
    return data.tobytes()


def _tiff_options(exif: bytes, xmp: bytes, own: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Options for writing a TIFF file, its tags among them."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    tags[_RESOLUTION_UNIT] = 1  # none, unless there are dots per inch
    if xmp:
        tags[_XMP] = xmp
    for _, (tag, value) in own:
        tags[tag] = value
    # libtiff, which compresses, does not write EXIF's directories.
    plain = any(tag in tags for tag in TiffTags.TAGS_V2_GROUPS)
    return {"tiffinfo": tags, "compression": "raw" if plain else "tiff_lzw"}
