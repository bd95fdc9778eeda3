"""A picture in gives a picture out, with all that its file says; what cannot be is said in one line."""

from __future__ import annotations

import io
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from measnet.errors import InputError, MissingPackageError
from measnet.image_header import png_chunks, read_header
from measnet.runtime.sinks.images import ImageFolderSink, ImageSink
from measnet.runtime.sinks.part_folder import Header
from measnet.runtime.sources.images import Images
from measnet.runtime.stream import run

from .conftest import Answer, Each, ffmpeg

Run = Callable[..., Answer]
Array = np.ndarray[Any, np.dtype[Any]]

FAULTS = Path(__file__).parents[1] / "data" / "faults"
IPTC = b"\x1c\x02x\0\5Hello"


def colours(channels: int = 3) -> Array:
    """A smooth picture of 20 x 30 pixels, whose last channel is clear on the left."""
    y, x = np.mgrid[0:20, 0:30]
    return np.dstack([x * 8, y * 12, (x + y) * 5, x * 8][:channels]).astype(np.uint8)


def saved(path: Path, values: Array, **options: Any) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def exif(orientation: int = 1) -> bytes:
    """A maker, an orientation, and one entry each in the directories of the exposure and of the place."""
    block = Image.Exif()
    block[271], block[274] = "Maker", orientation
    block[34665], block[34853] = {36867: "2020:01:01 00:00:00"}, {1: "N"}
    return block.tobytes()


def restored(source: Path, target: Path) -> list[str]:
    """The warnings of a run that changes nothing."""
    images, sink = Images(source), ImageSink(target)
    run(images, (Each(),), sink)
    sink.finish()
    return images.warnings + sink.warnings


def opened(path: Path) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(path.read_bytes()))


def pixels(path: Path) -> Array:
    return np.asarray(opened(path))


# What is seen.


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("ending", [".tif", ".png", ".webp"])
def test_colours_under_transparency_are_kept_as_they_are(tmp_path: Path, ending: str, mode: str) -> None:
    values = colours(4) if mode == "RGBA" else colours(4)[:, :, [0, 3]]
    options = {"lossless": True, "exact": True} if ending == ".webp" else {}
    source = saved(tmp_path / f"a{ending}", values, **options)
    restored(source, tmp_path / f"b{ending}")
    after = opened(tmp_path / f"b{ending}")
    assert after.mode == opened(source).mode
    assert np.array_equal(np.asarray(after), pixels(source))


def test_colours_multiplied_by_alpha_in_a_tiff_become_plain(tmp_path: Path) -> None:
    plain = np.full((4, 4, 4), (200, 100, 50, 128), np.uint8)
    file = io.BytesIO()
    Image.fromarray(plain).save(file, "TIFF")
    data = bytearray(file.getvalue())
    data[data.index(struct.pack("<HHI", 338, 3, 1)) + 8] = 1  # the alpha is associated
    (tmp_path / "a.tif").write_bytes(data)
    restored(tmp_path / "a.tif", tmp_path / "b.tif")
    assert pixels(tmp_path / "b.tif")[0, 0].tolist() == [255, 199, 99, 128]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_named_as_transparent_stays_transparent(tmp_path: Path, deep: bool, channels: int) -> None:
    values: Any = colours(channels).astype(np.uint16 if deep else np.uint8)
    values[3, 5], clear = values[0, 0], values[0, 0].astype(">u2").tobytes()
    plain = cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()
    chunk = b"tRNS" + clear
    chunk = struct.pack(">I", len(clear)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])
    restored(tmp_path / "a.png", tmp_path / "b.png")
    after = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert after is not None and after.dtype == values.dtype
    assert np.array_equal(after[:, :, -1] == 0, (values == values[0, 0]).all(axis=2))


def test_grey_with_alpha_of_16_bits_stays_without_a_tint(tmp_path: Path) -> None:
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=32x24", "-frames:v", "1", "-pix_fmt", "ya16be", tmp_path / "a.png"
    )
    images = Images(tmp_path / "a.png")
    frame = next(images.read())
    assert frame.picture is not None and frame.picture.grey and frame.pixels.dtype == np.uint16
    said = restored(tmp_path / "a.png", tmp_path / "b.png")
    after = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert after is not None and np.ptp(after[:, :, :3], axis=2).max() == 0
    assert any("grey with transparency" in line for line in said)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_that_asks_to_be_turned_is_turned(tmp_path: Path, deep: bool, orientation: int) -> None:
    upright = colours().astype(np.uint16) * 257 if deep else colours()
    stored = upright.transpose(1, 0, 2) if orientation >= 5 else upright
    flips: dict[int, Any] = {
        2: np.s_[:, ::-1],
        3: np.s_[::-1, ::-1],
        4: np.s_[::-1],
        6: np.s_[::-1],
        7: np.s_[::-1, ::-1],
    }
    flips[8] = np.s_[:, ::-1]
    stored = stored[flips.get(orientation, np.s_[:])]
    encoded = cv2.imencode(".tif", stored[:, :, ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1]
    data = bytearray(encoded.tobytes())
    at = data.index(struct.pack("<HHI", 339, 3, 3))  # the kind of samples, which goes without saying
    data[at : at + 12] = struct.pack("<HHII", 274, 3, 1, orientation)
    (tmp_path / "a.tif").write_bytes(sorted_tags(data))
    restored(tmp_path / "a.tif", tmp_path / "b.tif")
    after = cv2.imread(str(tmp_path / "b.tif"), cv2.IMREAD_UNCHANGED)
    assert after is not None and np.array_equal(after[:, :, ::-1], upright)


def sorted_tags(data: bytearray) -> bytes:
    """A TIFF file whose directory is in order again."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    tags = [bytes(data[at + 2 + 12 * n : at + 14 + 12 * n]) for n in range(count)]
    tags.sort(key=lambda tag: struct.unpack_from("<H", tag))
    data[at + 2 : at + 2 + 12 * count] = b"".join(tags)
    return bytes(data)


def test_a_big_tiff_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "a.tif", colours(), big_tiff=True)
    restored(tmp_path / "a.tif", tmp_path / "b.tif")
    assert np.array_equal(pixels(tmp_path / "b.tif"), colours())


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "uint32"])
def test_samples_that_are_not_read_are_named(
    tmp_path: Path, kind: str, measnet_run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), colours().astype(kind))
    answer = measnet_run(tmp_path / "a.tif")
    assert answer.status == 2 and f"has {kind} samples" in answer.err and answer.err.count("\n") == 1
    assert capfd.readouterr().err == ""  # nor does a library say anything


def test_half_floats_are_named(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".tif", colours()[:, :, 0].astype(np.float32))[1].tobytes())
    data[data.index(struct.pack("<HHI", 258, 3, 1)) + 8] = 16
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="has float16 samples"):
        Images(tmp_path / "a.tif")


# What a file says of its picture.


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_exif_profile_and_dots_per_inch_are_kept(tmp_path: Path, ending: str) -> None:
    whole = Image.Exif()
    whole.load(exif())
    profile = bytes(128)
    options: dict[str, Any] = {"exif": whole, "icc_profile": profile, "dpi": (300, 300)}
    source = saved(tmp_path / f"a{ending}", colours(), **options)
    restored(source, tmp_path / f"b{ending}")
    after = opened(tmp_path / f"b{ending}")
    assert after.getexif()[271] == "Maker" and after.getexif().get_ifd(34853) == {1: "N"}
    assert after.getexif().get_ifd(34665) == {36867: "2020:01:01 00:00:00"}
    assert after.info["icc_profile"] == profile
    if ending != ".webp":  # which has no place for it
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_what_only_png_says_is_kept_in_png_and_said_elsewhere(tmp_path: Path) -> None:
    chunks = b""
    for body in (b"cICP\x09\x10\x00\x01", b"gAMA" + struct.pack(">I", 100_000), b"tEXtTitle\0Rain"):
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    for depth in (np.uint8, np.uint16):
        plain = cv2.imencode(".png", colours().astype(depth))[1].tobytes()
        (tmp_path / "a.png").write_bytes(plain[:33] + chunks + plain[33:])
        assert restored(tmp_path / "a.png", tmp_path / "b.png") == []
        names = [name for name, _ in png_chunks((tmp_path / "b.png").read_bytes())]
        assert names == ["cICP", "gAMA", "tEXt"]
        said = restored(tmp_path / "a.png", tmp_path / "b.webp")
        assert all(any(name in line for line in said) for name in names)


def test_iptc_xmp_and_comment_of_a_jpeg_are_kept_and_said_elsewhere(tmp_path: Path) -> None:
    body = b"Photoshop 3.0\x008BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    source = saved(tmp_path / "a.jpg", colours(), extra=segment, xmp=b"<x:xmpmeta/>", comment=b"hello")
    assert restored(source, tmp_path / "b.jpg") == []
    info = opened(tmp_path / "b.jpg").info
    assert (
        info["photoshop"] == {0x0404: IPTC} and info["xmp"] == b"<x:xmpmeta/>" and info["comment"] == b"hello"
    )
    (said,) = restored(source, tmp_path / "b.png")
    assert "IPTC" in said and "comment" in said
    assert b"<x:xmpmeta/>" in (tmp_path / "b.png").read_bytes()


def test_iptc_and_xmp_of_a_tiff_are_kept(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[33723], tags[700] = IPTC, b"<x:xmpmeta/>"
    source = saved(tmp_path / "a.tif", colours(), tiffinfo=tags)
    assert restored(source, tmp_path / "b.tif") == []
    after = opened(tmp_path / "b.tif")
    assert after.tag_v2[33723] == IPTC and after.info["xmp"] == b"<x:xmpmeta/>"  # type: ignore[attr-defined]


def test_blocks_too_long_for_a_jpeg_are_said(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.webp", colours(), exif=exif() + bytes(70_000))
    (said,) = restored(source, tmp_path / "b.jpg")
    assert "EXIF" in said


def test_printing_colours_lose_their_profile_and_that_is_said(tmp_path: Path) -> None:
    Image.fromarray(colours()).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=b"CMYK" * 40)
    (said,) = restored(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert "printing colours" in said
    assert "icc_profile" not in opened(tmp_path / "b.jpg").info


# Which files are pictures.


PAGE = Path(__file__).parents[2] / "docs" / "files.md"
RESULTS = dict(re.findall(r"^\| (\.\w+) \| (\.\w+) \|$", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("ending", sorted(RESULTS))
def test_a_picture_gives_the_picture_that_the_page_says(
    tmp_path: Path, measnet_run: Run, ending: str
) -> None:
    known: dict[str, dict[str, Any]] = {".ico": {"sizes": [(30, 20)]}, ".mpo": {"save_all": True}}
    options = known.get(ending, {})
    if ending == ".heic":
        shutil.copy(FAULTS / "photo.heic", tmp_path / "a.heic")
    else:
        saved(tmp_path / f"a{ending}", colours(), **options)
    answer = measnet_run(tmp_path / f"a{ending}")
    assert answer.status == 0, answer.err
    result = tmp_path / f"a.restored{RESULTS[ending]}"
    assert set(tmp_path.iterdir()) == {tmp_path / f"a{ending}", result}
    assert opened(result).size == opened(tmp_path / f"a{ending}").size
    assert opened(result).format == {"jpg": "JPEG", "tif": "TIFF"}.get(
        result.suffix[1:], result.suffix[1:].upper()
    )


@pytest.mark.parametrize("name", ["noending", "a.mp4", "2024"])
def test_a_picture_of_any_name_gives_a_picture(tmp_path: Path, measnet_run: Run, name: str) -> None:
    saved(tmp_path / name, colours(), format="PNG")
    answer = measnet_run(tmp_path / name)
    assert answer.status == 0, answer.err
    assert opened(tmp_path / f"{Path(name).stem}.restored.png").size == (30, 20)


def test_all_tiles_of_a_picture_in_tiles_are_taken(tmp_path: Path, measnet_run: Run) -> None:
    shutil.copy(FAULTS / "grid.avif", tmp_path)  # 2 x 2 tiles of 128 x 128, as pictures of phones
    answer = measnet_run(tmp_path / "grid.avif")
    assert answer.status == 0 and opened(tmp_path / "grid.restored.png").size == (256, 256)


def test_an_avif_of_10_bits_keeps_them(tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "color=white:s=32x24", "-frames:v", "1", "-pix_fmt", "yuv420p10le")
    ffmpeg(*picture, "-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1", tmp_path / "a.avif")
    (frame,) = Images(tmp_path / "a.avif").read()
    assert frame.pixels.dtype == np.uint16 and frame.pixels.min() > 65_000


@pytest.mark.parametrize("most", [15, 1023])
def test_white_stays_white_in_ppm_files_of_few_levels(tmp_path: Path, most: int) -> None:
    sample = struct.pack(">H" if most > 255 else "B", most)
    (tmp_path / "a.ppm").write_bytes(b"P6\n4 4\n%d\n" % most + sample * 48)
    (frame,) = Images(tmp_path / "a.ppm").read()
    assert frame.pixels.min() == np.iinfo(frame.pixels.dtype).max


def test_a_heic_is_read_or_the_package_named_that_reads_it(
    tmp_path: Path, measnet_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FAULTS / "photo.heic", tmp_path)
    answer = measnet_run(tmp_path / "photo.heic")
    assert answer.status == 0, answer.err
    after = opened(tmp_path / "photo.restored.png")
    assert after.size == (64, 40) and after.getexif()[271] == "Maker"
    (tmp_path / "photo.restored.png").unlink()
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    answer = measnet_run(tmp_path / "photo.heic")
    assert answer.status == 2 and "pip install 'measnet[heic]'" in answer.err and answer.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.heic"]
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photo.heic").read_bytes())
    with pytest.raises(MissingPackageError):
        Images(tmp_path / "photo.jpg")


@pytest.mark.parametrize("ending", [".dpx", ".tga", ".pcx"])
def test_pictures_of_other_kinds_are_refused_in_one_line(
    tmp_path: Path, measnet_run: Run, ending: str
) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24", "-frames:v", "1", "-update", "1", tmp_path / f"a{ending}")
    answer = measnet_run(tmp_path / f"a{ending}")
    assert answer.status == 2 and "a kind that is not read; save it as PNG" in answer.err
    assert answer.err.count("\n") == 1 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.gif", ("gif",)),
        ("a.mjpeg", ("mjpeg",)),
        ("a.apng", ("apng",)),
        ("a.bin", ("ppm", "-f", "image2pipe")),
    ],
)
def test_files_of_many_pictures_are_videos_still(
    tmp_path: Path, measnet_run: Run, name: str, codec: tuple[str, ...]
) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24:r=5:d=0.8", "-c:v", *codec, tmp_path / name)
    answer = measnet_run(tmp_path / name, "--preset", "ultrafast")
    assert answer.status == 0 and "4 frames" in answer.out + answer.err, answer.err


@pytest.mark.parametrize("ending", [".png", ".webp", ".tif"])
def test_moving_pictures_and_pages_are_refused(tmp_path: Path, measnet_run: Run, ending: str) -> None:
    if ending == ".png":
        shutil.copy(FAULTS / "moving.png", tmp_path / "a.png")
    else:
        more = [Image.fromarray(255 - colours())]
        saved(tmp_path / f"a{ending}", colours(), save_all=True, append_images=more)
    answer = measnet_run(tmp_path / f"a{ending}")
    assert answer.status == 2 and "holds several pictures" in answer.err and answer.err.count("\n") == 1


def test_a_picture_beside_another_in_a_jpeg_is_left_out_and_said(tmp_path: Path) -> None:
    more = [Image.fromarray(255 - colours())]
    source = saved(tmp_path / "a.jpg", colours(), format="MPO", save_all=True, append_images=more)
    (said,) = restored(source, tmp_path / "b.jpg")
    assert "further pictures" in said
    assert read_header(tmp_path / "b.jpg", (tmp_path / "b.jpg").read_bytes()).format == "JPEG"


# Folders.


def test_a_folder_says_what_it_leaves_out_in_a_line_for_each_kind(tmp_path: Path, measnet_run: Run) -> None:
    shots = tmp_path / "shots"
    (shots / "more").mkdir(parents=True)
    saved(shots / "a.png", colours())
    saved(shots / "b.jfif", colours(), format="JPEG")
    saved(shots / "c.avif", colours())
    for name in ("d.gif", "e.gif"):
        saved(shots / name, colours(), save_all=True, append_images=[Image.fromarray(255 - colours())])
    for name in ("notes.txt", "more.txt", "README", ".DS_Store", "Thumbs.db"):
        (shots / name).write_bytes(b"words")
    answer = measnet_run(shots, "-o", tmp_path / "out")
    assert answer.status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg", "c.png"]
    said = {line.split(f"{shots}: ")[1] for line in answer.err.splitlines() if "left out of" in line}
    assert said == {
        "1 folder (give it as an input of its own)",
        "1 without an ending (not a picture that is read)",
        "2 .gif (several pictures in one)",
        "2 .txt (not a picture that is read)",
    }


def test_two_pictures_of_a_folder_never_become_one(tmp_path: Path, measnet_run: Run) -> None:
    saved(tmp_path / "a.png", colours())
    saved(tmp_path / "a.avif", colours())
    answer = measnet_run(tmp_path, "-o", tmp_path.with_name("out"))
    assert answer.status == 2 and "would both become a.png" in answer.err and answer.err.count("\n") == 1


def test_a_folder_is_compared_by_its_own_pictures(tmp_path: Path, measnet_run: Run) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    saved(shots / "a.avif", colours())
    (shots / "a.txt").write_text("words")
    answer = measnet_run(shots, "--compare", "side")
    assert answer.status == 0, answer.err
    assert opened(tmp_path / "shots.restored.compare" / "a.png").size == (60, 20)


def test_a_folder_goes_on_behind_pictures_that_changed_their_kind(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for name in ("a.avif", "b.avif"):
        saved(shots / name, colours())
    first = ImageFolderSink(tmp_path / "out", shots)
    first.begin(Header({}, {}), restart=False)
    first.write(next(Images(shots).read()))
    first.abort()
    sink, images = ImageFolderSink(tmp_path / "out", shots), Images(shots)
    begun = sink.begin(Header({}, {}), restart=False)
    assert begun.names == {"a.avif"} and sink.warnings == []
    images.skip(begun.frames, begun.names)
    run(images, (Each(),), sink)
    sink.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
