"""Reading pictures: every kind of file comes out as 8-bit RGB, and what is no picture is refused unread."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.errors import InputError
from measnet.image_header import MOST_PIXELS, PictureError, read_size
from measnet.train.data.pictures import PictureStore, list_pictures, read_picture

COLOUR = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)  # RGB


def write(path: Path, values: np.ndarray) -> Path:
    """``values`` as OpenCV takes them: grey, BGR or BGRA."""
    assert cv2.imwrite(str(path), values)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".PNG"])
def test_a_colour_picture_comes_back_as_rgb(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), COLOUR[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert (read_picture(path) == COLOUR).all()
    assert read_size(path) == (40, 24)


def test_grey_is_repeated_and_alpha_dropped(tmp_path: Path) -> None:
    grey = read_picture(write(tmp_path / "grey.png", COLOUR[:, :, 0]))
    assert (grey == COLOUR[:, :, :1]).all() and grey.shape == (24, 40, 3)
    clear = np.dstack([COLOUR[:, :, ::-1], np.zeros((24, 40), np.uint8)])
    assert (read_picture(write(tmp_path / "alpha.png", clear)) == COLOUR).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_rounded_to_8_not_cut(suffix: str, tmp_path: Path) -> None:
    levels = np.array([0, 128, 129, 257 * 100 + 128, 257 * 100 + 129, 65535], np.uint16)
    path = write(tmp_path / f"deep{suffix}", np.tile(levels, (4, 1)))
    assert read_picture(path)[0, :, 0].tolist() == [0, 0, 1, 100, 101, 255]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, kind: int, rows: bytes, *more: bytes) -> bytes:
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    signature = b"\x89PNG\r\n\x1a\n"
    return b"".join([signature, size, *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    colours = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    path.write_bytes(png(16, 16, 8, 3, (b"\0" + bytes([0, 1] * 8)) * 16, colours))
    assert read_picture(path)[0, :2].tolist() == [[10, 20, 30], [200, 100, 50]]


# 16 x 16 pixels of pure red, quality 90, written by Pillow 12.
CMYK_JPEG = """
/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwP
FxgWFBgSFBUU/8AAFAgAEAAQBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAAJ/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/a
AA4EQwBNAFkASwAAPwCqaVSVSqYAAAD/2Q==
"""


def test_a_jpeg_in_printing_colours_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(base64.b64decode(CMYK_JPEG))
    assert abs(read_picture(path).astype(int) - [255, 0, 0]).max() <= 2


def exif(orientation: int) -> bytes:
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 1, orientation) + bytes(4)


def turned_jpeg(orientation: int) -> bytes:
    coded = cv2.imencode(".jpg", COLOUR)[1].tobytes()
    body = b"Exif\0\0" + exif(orientation)
    return coded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + coded[2:]


def turned_png(orientation: int) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in COLOUR)
    return png(40, 24, 8, 2, rows, chunk(b"eXIf", exif(orientation)))


def turned_webp(orientation: int) -> bytes:
    coded = cv2.imencode(".webp", COLOUR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()[12:]
    block = exif(orientation)
    size = b"VP8X" + struct.pack("<II", 10, 0x08) + (39).to_bytes(3, "little") + (23).to_bytes(3, "little")
    body = b"WEBP" + size + coded + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [turned_jpeg, turned_png, turned_webp])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_read_upright_and_its_header_says_so(
    make: type, orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(make(orientation))
    assert read_size(path) == ((24, 40) if orientation >= 5 else (40, 24))
    assert read_picture(path).shape[1::-1] == read_size(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_a_file_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", COLOUR)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PictureError, match=r"is cut off or damaged|cannot be decoded"):
        read_picture(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<html>not found</html>", "is not a PNG, JPEG, TIFF, BMP or WebP image"),
        (b"\xff\xd8 not really", "cut off or damaged"),
        (b"\x89PNG\r\n\x1a\n", "cut off or damaged"),
        (b"II*\0\xff\xff\xff\xff", "cut off or damaged"),
        (b"BM", "cut off or damaged"),
        (b"RIFF\x04\0\0\0WEBPVP8 ", "cut off or damaged"),
        (png(0, 5, 8, 2, b""), "cut off or damaged"),
        (png(16, 16, 8, 2, b"\0" * 7), "cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_picture(path)


def test_a_header_that_asks_for_gigabytes_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(png(MOST_PIXELS // 1000 + 1, 1000, 8, 2, b""))
    with pytest.raises(PictureError, match="claims 200001 x 1000 pixels; more than 200 million are refused"):
        read_picture(path)


def test_missing_files_folders_and_pipes_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for name in ("folder.png", "pipe.png", "missing.png"):
        with pytest.raises(PictureError, match=f"{name} is not a picture that can be read: there is no such"):
            read_picture(tmp_path / name)


def test_a_listing_leaves_out_hidden_files_and_junk(tmp_path: Path) -> None:
    for name in ("Thumbs.db", ".DS_Store", "readme.txt", "list.mat", "._b.png", ".hidden.png"):
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "folder.png").mkdir()
    for name in ("b.png", "a.JPG"):
        write(tmp_path / name, COLOUR)
    assert [path.name for path in list_pictures(tmp_path)] == ["a.JPG", "b.png"]


def test_a_store_gives_the_same_pictures_kept_or_not(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", COLOUR + np.uint8(number)) for number in range(3)]
    kept, one, none = PictureStore(paths), PictureStore(paths, keep=1), PictureStore(paths, keep=0)
    for path in paths:
        assert (kept[path] == one[path]).all() and (kept[path] == none[path]).all()
