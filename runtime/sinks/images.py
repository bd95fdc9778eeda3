"""Image files, in the format their names say: one, or a folder that grows picture by picture."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import msgspec
import numpy as np
from PIL import Image, PngImagePlugin, TiffTags

from measnet.errors import OutputError, UsageError
from measnet.image import Pixels, eight_bits
from measnet.image_header import IMAGE_ENDINGS, png_chunks, result_name
from measnet.runtime.frame import Frame, PictureFile, PictureMetadata
from measnet.runtime.sinks import Begun, Sink
from measnet.runtime.sinks.aside import Aside, partial_name, write_error, writing
from measnet.runtime.sinks.part_folder import (
    Count,
    Header,
    Manifest,
    PartFolder,
    as_said,
    is_plain_file,
    sync_folder,
)
from measnet.runtime.sources.images import in_other_order

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
# Entries of a picture's own format that repeat its EXIF, XMP, colour profile or dots per inch, or add
# nothing.
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
        with writing(self._target):
            self._aside.path.write_bytes(data)
        self._written = True

    def finish(self, *, partial: bool = False) -> Path | None:
        if not self._written:
            self.abort()
            return None
        self._done = True
        self.warnings += self._encoder.losses()
        return self._aside.keep(partial=partial)

    def abort(self) -> None:
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

    def encode(self, pixels: Pixels, picture: PictureFile, ending: str) -> bytes:
        """``pixels`` in the channels of ``picture``, with its metadata, as a file that ends in ``ending``.

        Raises OutputError.
        """
        kind = _FORMATS[ending]
        values = _channels(pixels, picture)
        if values.dtype == np.uint16 and kind not in _DEEP:
            self.lost[f"16 bits per channel ({ending} has 8)"] = None
            values = eight_bits(values)
        if picture.alpha is not None and kind in _OPAQUE:
            self.lost[f"transparency ({ending} has none)"] = None
            values = values[:, :, :-1]
        if values.dtype == np.uint16 and values.shape[2] == 2:
            self.lost["grey with transparency (of 16 bits: stored in three equal colours)"] = None
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


def picture_of(frame: Frame) -> PictureFile:
    """Finds what the image file of a frame held besides its colours."""
    if frame.picture is None:
        raise TypeError("an image sink takes frames that came from image files")
    return frame.picture


def _channels(pixels: Pixels, picture: PictureFile) -> Pixels:
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
    written, data = cv2.imencode(ending, in_other_order(values), options)
    if not written:
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


class _Part(msgspec.Struct, frozen=True):
    """The manifest's line on a picture; ``source`` is the stamp of the file that it was made from."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A(?!\.{1,2}\Z)[^/\\\0]+\Z")]
    bytes: Count
    sha256: str
    source: list[int]
    lost: list[str]


class ImageFolderSink(Sink):
    """Writes each frame to a file called as its source (``result_name``), in the channels that one had.

    Args:
        target: the folder that the result becomes; files of other names that are there already stay.
        source: the folder that the frames come from. A picture that has changed there since it was
            restored counts as not restored.
    """

    resumable = True

    def __init__(self, target: Path, source: Path) -> None:
        super().__init__()
        self._target = target
        self._source = source
        self._folder = PartFolder(target)
        self._pictures = self._folder.path / "pictures"
        self._encoder = ImageEncoder()
        self.finished: dict[str, _Part] = {}
        """The pictures that are there already, by their sources' names, with the manifest's lines on them."""

    def kept(self) -> int:
        return len(self.finished)

    def begin(self, header: Header, *, restart: bool) -> Begun:
        header = self._folder.begin(header, restart=restart)
        manifest = self._folder.manifest
        try:
            self.finished = self._intact(manifest)
            named = len({str(part.get("name")) for part in manifest.parts})
            if self._folder.lost or manifest.torn or len(self.finished) < named:
                self.warnings.append(
                    f"{self._folder.path.name}: some pictures are damaged or missing, or their sources have "
                    "changed; these were made again"
                )
            manifest.keep(len(manifest.parts))
            self._make_room()
        except OSError as error:
            self._folder.release()
            raise write_error(self._target, error) from None
        for part in self.finished.values():
            self._encoder.lost.update(dict.fromkeys(part.lost))
        names = frozenset(self.finished)
        return Begun(len(names), names, header.settings)

    def begun_before(self, header: Header, *, restart: bool) -> Begun:
        manifest = self._folder.begun_before(header, restart=restart)
        if manifest is None or manifest.header is None:
            return Begun(settings=header.settings)
        names = frozenset(self._intact(manifest))
        return Begun(len(names), names, manifest.header.settings)

    def write(self, frame: Frame) -> None:
        """See Sink.write. Every frame must have its ``picture``."""
        picture = picture_of(frame)
        name = picture.path.name
        place, aside = self._pictures / result_name(picture.path), self._folder.path / "picture.part"
        data = self._encoder.encode(frame.pixels, picture, place.suffix.lower())
        with writing(self._target):
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(place)
            sync_folder(self._pictures)
            digest = hashlib.sha256(data).hexdigest()
            part = _Part(name, len(data), digest, _stamp(picture.path), list(self._encoder.lost))
            self._folder.manifest.add(msgspec.to_builtins(part))
        self.finished[name] = part

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish. A partial result is a folder of its own, beside the one that grows."""
        if not self.finished:
            self._folder.discard()
            return None
        target = partial_name(self._target, folder=True) if partial else self._target
        try:
            if partial:
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(self._pictures, target, copy_function=_linked)
            else:
                _move_folder(self._pictures, target)
                sync_folder(target.parent)
        except (OSError, shutil.Error) as error:
            self.abort()
            if isinstance(error, OSError) and error.errno is not None:
                raise write_error(self._target, error) from None
            raise OutputError(f"writing {target} failed: {error}") from None
        self.warnings += self._encoder.losses()
        if partial:
            self._folder.release()
        else:
            self._folder.discard()
        return target

    def abort(self) -> None:
        """See Sink.abort. Pictures that are finished stay."""
        if self.finished:
            self._folder.release()
        else:
            self._folder.discard()

    def _intact(self, manifest: Manifest) -> dict[str, _Part]:
        """The pictures that are there and as the manifest says, of sources that are as they were."""
        newest = {part.name: part for line in manifest.parts if (part := as_said(line, _Part))}
        return {name: part for name, part in newest.items() if self._is_intact(part)}

    def _is_intact(self, part: _Part) -> bool:
        place = self._pictures / result_name(Path(part.name))
        try:
            if self._pictures.is_symlink() or not is_plain_file(place, part.bytes):
                return False
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest == part.sha256 and _stamp(self._source / part.name) == part.source
        except OSError:
            return False

    def _make_room(self) -> None:
        """The folder for the pictures, with none in it that would smuggle itself into the result."""
        if self._pictures.is_symlink() or (self._pictures.exists() and not self._pictures.is_dir()):
            self._pictures.unlink()
        self._pictures.mkdir(exist_ok=True)
        results = {result_name(Path(name)) for name in self.finished}
        for place in self._pictures.iterdir():
            if place.name in results:
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()


def _stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds: they tell whether a source is the same."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
    return target


def _move_folder(source: Path, target: Path) -> None:
    if not target.exists():
        source.rename(target)
        return
    # A folder that stood there may hold files of its own: only those of the same name go.
    for file in source.iterdir():
        file.replace(target / file.name)
    source.rmdir()
