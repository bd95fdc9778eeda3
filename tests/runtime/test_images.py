"""Images keep their channels, their orientation and their profile; bad ones say why."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from measnet.errors import InputError, UsageError
from measnet.image import Pixels
from measnet.image_header import read_header
from measnet.runtime.sinks.images import ImageFolderSink, ImageSink
from measnet.runtime.sinks.part_folder import Header
from measnet.runtime.sources.images import Images
from measnet.runtime.stream import run

from .conftest import Each, psnr

Array = np.ndarray[Any, np.dtype[Any]]

# An EXIF block that says: turn by 90 degrees.
TURNED = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, 6, 0, 0)


def icc_profile() -> bytes:
    """The least that libpng takes for a profile of RGB: a header and one tag."""
    tag = b"text" + np.random.default_rng(0).bytes(100)
    white = (0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(
        ">I4x4s4s4s4s12x4s28x3I",
        144 + len(tag),
        b"\4\0\0\0",
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        *white,
    )
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"cprt", 144, len(tag)) + tag


def picture(channels: int = 3, dtype: str = "uint8") -> Array:
    """A smooth picture, 20 by 30 pixels."""
    y, x = np.mgrid[0:20, 0:30]
    planes = [x * 8, y * 12, (x + y) * 5, 255 - x * 4][:channels]
    values = np.dstack(planes).astype(dtype) if channels > 1 else planes[0].astype(dtype)
    return values * 257 if dtype == "uint16" else values


def save(path: Path, values: Array) -> Path:
    assert cv2.imwrite(str(path), values)
    return path


def restore(
    source: Path, target: Path, restore: Any = lambda p: p
) -> tuple[Images, ImageSink | ImageFolderSink]:
    images = Images(source)
    sink: ImageSink | ImageFolderSink
    if source.is_dir():
        sink = ImageFolderSink(target, source)
        sink.begin(Header({}, {}), restart=False)
    else:
        sink = ImageSink(target)
    run(images, (Each(restore),), sink)
    sink.finish()
    return images, sink


def load(path: Path) -> Array:
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert values is not None
    return values


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp"])
def test_lossless_formats_stay_exact(tmp_path: Path, ending: str) -> None:
    source = save(tmp_path / f"a.{ending}", picture())
    if ending == "webp":
        cv2.imwrite(str(source), picture(), [cv2.IMWRITE_WEBP_QUALITY, 101])
    restore(source, tmp_path / f"b.{ending}")
    assert np.array_equal(load(source), load(tmp_path / f"b.{ending}"))


def test_jpeg_stays_a_jpeg_and_loses_next_to_nothing(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg", picture())
    restore(source, tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert psnr(load(source), load(tmp_path / "b.jpg")) > 40


def test_engine_sees_rgb(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 3), np.uint8)
    values[:, :, 2] = 200  # red, in OpenCV's order
    seen: list[Pixels] = []

    def look(pixels: Pixels) -> Pixels:
        seen.append(pixels)
        return pixels

    restore(save(tmp_path / "red.png", values), tmp_path / "b.png", look)
    assert seen[0][0, 0].tolist() == [200, 0, 0]


def test_grey_is_restored_as_rgb_and_written_as_grey(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", picture(1))
    restore(source, tmp_path / "b.png")
    assert load(tmp_path / "b.png").shape == (20, 30)
    assert np.array_equal(load(source), load(tmp_path / "b.png"))


def test_alpha_is_kept_beside_restored_colours(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", picture(4))
    restore(source, tmp_path / "b.png", lambda pixels: 255 - pixels)
    before, after = load(source), load(tmp_path / "b.png")
    assert np.array_equal(after[:, :, 3], before[:, :, 3])
    assert np.array_equal(after[:, :, :3], 255 - before[:, :, :3])


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay_sixteen_bits_and_exact(tmp_path: Path, ending: str, channels: int) -> None:
    values = picture(channels, "uint16") + np.uint16(77)  # no eight bits give these
    source = save(tmp_path / f"a.{ending}", values)
    seen: list[Pixels] = []

    def look(pixels: Pixels) -> Pixels:
        seen.append(pixels)
        return pixels

    images, sink = restore(source, tmp_path / f"b.{ending}", look)
    assert seen[0].dtype == np.uint16 and images.info.bits == 16
    assert np.array_equal(load(tmp_path / f"b.{ending}"), values)
    assert images.warnings == sink.warnings == []


def test_alpha_of_sixteen_bits_is_kept_beside_restored_colours(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", picture(4, "uint16") + np.uint16(77))
    restore(source, tmp_path / "b.png", lambda pixels: 65535 - pixels)
    before, after = load(source), load(tmp_path / "b.png")
    assert np.array_equal(after[:, :, 3], before[:, :, 3])
    assert np.array_equal(after[:, :, :3], 65535 - before[:, :, :3])


@pytest.mark.parametrize("ending", ["jpg", "bmp", "webp"])
def test_sixteen_bits_become_eight_where_the_format_has_no_more(tmp_path: Path, ending: str) -> None:
    source = save(tmp_path / "a.png", picture(3, "uint16"))
    _, sink = restore(source, tmp_path / f"b.{ending}")
    became = load(tmp_path / f"b.{ending}")
    assert became.dtype == np.uint8 and psnr(became, picture()) > (40 if ending == "jpg" else 98)
    assert any("16 bits per channel" in line for line in sink.warnings)


def test_sixteen_bits_keep_their_orientation_and_profile(tmp_path: Path) -> None:
    kinds = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_ICCP]
    profile = np.frombuffer(icc_profile(), np.uint8)
    blocks = [np.frombuffer(TURNED, np.uint8), profile]
    values = picture(3, "uint16") + np.uint16(77)
    cv2.imwriteWithMetadata(str(tmp_path / "a.png"), values, kinds, blocks)
    restore(tmp_path / "a.png", tmp_path / "b.png")
    data = np.fromfile(tmp_path / "b.png", np.uint8)
    became, kinds_after, blocks_after = cv2.imdecodeWithMetadata(data, flags=cv2.IMREAD_UNCHANGED)
    kept = dict(zip(kinds_after, blocks_after, strict=True))
    assert np.array_equal(became, values)
    assert np.array_equal(np.ravel(kept[cv2.IMAGE_METADATA_ICCP]), profile)
    shown = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_COLOR)
    assert shown is not None and shown.shape[:2] == (30, 20)


def test_a_folder_may_hold_both_depths(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    save(shots / "a.png", picture())
    save(shots / "b.png", picture(3, "uint16"))
    restore(shots, tmp_path / "out")
    assert load(tmp_path / "out" / "a.png").dtype == np.uint8
    assert load(tmp_path / "out" / "b.png").dtype == np.uint16


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_exif_orientation_travels_along(tmp_path: Path, ending: str) -> None:
    kinds, blocks = [cv2.IMAGE_METADATA_EXIF], [np.frombuffer(TURNED, np.uint8)]
    cv2.imwriteWithMetadata(str(tmp_path / f"a{ending}"), picture(), kinds, blocks)
    restore(tmp_path / f"a{ending}", tmp_path / f"b{ending}")
    shown = cv2.imread(str(tmp_path / f"b{ending}"), cv2.IMREAD_COLOR)
    assert shown is not None and shown.shape[:2] == (30, 20)
    assert load(tmp_path / f"b{ending}").shape[:2] == (20, 30)


def test_folder_becomes_a_folder_with_the_same_names(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for name in ("b.png", "a.jpg"):
        save(shots / name, picture())
    (shots / "notes.txt").write_text("not an image")
    (shots / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken" * 9)
    images, _ = restore(shots, tmp_path / "shots.restored")
    assert sorted(p.name for p in (tmp_path / "shots.restored").iterdir()) == ["a.jpg", "b.png"]
    assert images.damaged == 1
    assert any("bad.png" in line for line in images.warnings)


def test_bad_images_say_why(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
    bad = {
        "empty.png": (b"", "empty"),
        "text.png": (b"hello " * 50, "is not a PNG"),
        "cut.jpg": (whole.read_bytes()[:-900], "cut off"),
        "stub.webp": (b"RIFF\xff\0\0\0WEBPVP8 ", "cut off"),
    }
    for name, (data, reason) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=reason) as caught:
            Images(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        Images(tmp_path / "none")
    save(tmp_path / "float.tif", picture().astype(np.float32))
    with pytest.raises(InputError, match="float32"):
        Images(tmp_path / "float.tif")


def test_absurd_size_is_refused_before_decoding(tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    data = bytearray(save(huge, picture()).read_bytes())
    data[16:24] = struct.pack(">II", 200_000, 200_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    huge.write_bytes(data)
    with pytest.raises(InputError, match="200000×200000"):
        Images(huge)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (359, 641)])
def test_header_tells_the_size(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    path = save(tmp_path / f"a.{ending}", np.zeros((*size, 3), np.uint8))
    header = read_header(path, path.read_bytes())
    assert (header.height, header.width) == size


def test_image_is_not_written_as_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not '\.mp4'"):
        ImageSink(tmp_path / "a.mp4")
