"""Inputs that are bombs, change under the reader's eyes, or are the output: one line, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from measnet.errors import InputError
from measnet.runtime import memory
from measnet.runtime.frame import Frame
from measnet.runtime.sources.decoder import PictureDecoder
from measnet.runtime.sources.images import Images
from measnet.runtime.sources.video import VideoFile
from runtime.conftest import Answer, MakeClip, ffmpeg, restore_unchanged

Run = Callable[..., Answer]
HUGE = 100_000


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG of one bit per pixel; ``pixels`` are its compressed rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gigapixels() -> bytes:
    """It really inflates to what it says, from less than a megabyte."""
    squeeze = zlib.compressobj(1)
    row = b"\0" + bytes(40_000 // 8)
    return png(40_000, 40_000, b"".join(squeeze.compress(row * 100) for _ in range(400)) + squeeze.flush())


def tiff(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 5), (262, 1), (273, 200), (277, 1), (278, height)]
    tags += [(279, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200)


def jpeg(width: int, height: int) -> bytes:
    sound = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    at = sound.index(b"\xff\xc0")
    sound[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(sound)


def webp(width: int, height: int) -> bytes:
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4)
    chunk += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, width, height, 1, 24, 1) + bytes(100)


@pytest.fixture
def little_memory() -> object:
    """The test fails where the peak of this process's memory grows by more than 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png(HUGE, HUGE)),
        ("really.png", gigapixels()),
        ("a.tif", tiff(HUGE, HUGE)),
        ("a.jpg", jpeg(65_500, 65_500)),
        ("a.webp", webp(HUGE, HUGE)),
        ("a.bmp", bmp(HUGE, HUGE)),
    ],
)
def test_pictures_that_claim_absurd_sizes_are_not_decoded(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    # Pictures of WebP have 16383 pixels a side at most, so this one is damaged.
    reason = "damaged" if name == "a.webp" else "beyond the limit of 16384×16384"
    with pytest.raises(InputError, match=reason):
        Images(tmp_path / name)


def y4m(width: int, height: int) -> bytes:
    return f"YUV4MPEG2 W{width} H{height} F25:1 C420\nFRAME\n".encode() + bytes(4096)


def avi(width: int, height: int, folder: Path) -> bytes:
    """A sound MJPEG file whose headers, and whose pictures' own, say another size."""
    path = folder / "sound.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=48x32:r=5:d=0.6", "-c:v", "mjpeg", "-huffman", "default", path)
    content = path.read_bytes().replace(struct.pack("<II", 48, 32), struct.pack("<II", width, height))
    picture = struct.pack(">HH", 32, 48)
    return content.replace(picture, struct.pack(">HH", min(height, 65_500), min(width, 65_500)))


@pytest.mark.usefixtures("little_memory")
def test_videos_that_claim_absurd_sizes_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    for name, content in (
        ("a.y4m", y4m(HUGE, HUGE)),
        ("b.y4m", y4m(16_384, 20_000)),
        ("c.y4m", y4m(1 << 30, 1 << 30)),
        ("d.avi", avi(HUGE, HUGE, tmp_path)),
        ("e.avi", avi(20_000, 20_000, tmp_path)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            VideoFile(tmp_path / name)


@pytest.mark.usefixtures("little_memory")
def test_raw_video_of_an_absurd_size_is_refused(measnet_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(100))
    for size in ("100000x100000", "999999x1", "0x0"):
        answer = measnet_run(tmp_path / "a.raw", "--raw", f"{size}:yuv420p@25", "-o", tmp_path / "b.mkv")
        assert answer.status == 2 and answer.err.count("\n") == 1, answer.err
    assert not (tmp_path / "b.mkv").exists()


def test_a_picture_larger_than_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(memory, "available_memory", lambda: 64 * 64 * memory.BYTES_PER_PIXEL)
    Images(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(64, 64))  # whoever decodes it finds it damaged
    monkeypatch.setattr(memory, "available_memory", lambda: 200_000)
    with pytest.raises(InputError, match=r"of 64×64 takes 0\.0 GB to restore, and 0\.0 GB are free"):
        Images(tmp_path / "a.png")


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")


def two_sizes(path: Path, codec: tuple[str, ...] = H264) -> Path:
    """MPEG-TS whose picture is half as wide and high from 0.4 s on."""
    parts = []
    for size, start in (("96x64", 0), ("48x32", 0.4)):
        part = path.with_name(f"{size}.ts")
        picture = f"testsrc2=s={size}:r=10:d=0.4"
        ffmpeg("-f", "lavfi", "-i", picture, *codec, "-output_ts_offset", start, part)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def test_a_picture_that_changes_its_size_is_scaled_and_said(tmp_path: Path) -> None:
    outcome = restore_unchanged(two_sizes(tmp_path / "a.ts"), tmp_path / "out.mkv")
    assert outcome.figures.frames == 8
    with av.open(str(tmp_path / "out.mkv")) as result:
        assert {(frame.width, frame.height) for frame in result.decode(video=0)} == {(96, 64)}
    said = [line for line in outcome.warnings if "changes its size" in line]
    assert len(said) == 1 and "from 96×64 to 48×32 at" in said[0] and "4 frames were scaled" in said[0]


def test_a_size_beyond_the_limit_in_the_middle_counts_as_damage(tmp_path: Path) -> None:
    path = two_sizes(tmp_path / "a.ts", ("-c:v", "mpeg2video"))
    halves = sorted(tmp_path.glob("*x*.ts"))
    path.write_bytes(b"".join(half.read_bytes() for half in halves))  # the small ones first
    with av.open(str(path)) as container:
        decoder = PictureDecoder(container, "a.ts", most_pixels=60 * 40)
        frames = [item for item in decoder.items() if isinstance(item, av.VideoFrame)]
    # FFmpeg's decoder holds one of the small ones back, and drops it at the change.
    assert len(frames) == 3 and decoder.damaged > 0


def test_a_file_that_grows_while_it_is_read_is_restored_as_far_as_it_went(
    clip: MakeClip, tmp_path: Path
) -> None:
    whole = clip("a.ts", "-c:a", "mp2", "-g", "5", seconds=1.6).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(whole[: len(whole) // 2 // 188 * 188])
    source = VideoFile(path)
    items = source.read()
    frames = [next(item for item in items if isinstance(item, Frame))]
    os.utime(path, (1, 1))  # as a writer leaves it
    frames += [item for item in items if isinstance(item, Frame)]
    with path.open("ab") as file:
        file.write(whole[path.stat().st_size :])
    picture_ends = frames[-1].pts * frames[-1].time_base + Fraction(1, 5)
    sound = [packet.pts * packet.time_base for packet in source.copied_packets()]
    assert sound and max(sound) < picture_ends
    assert sum("was written to while it was read" in line for line in source.warnings) == 1
    source.close()


def test_a_file_that_is_left_alone_is_not_said_to_grow(clip: MakeClip, tmp_path: Path) -> None:
    assert not [w for w in restore_unchanged(clip("a.mp4"), tmp_path / "b.mp4").warnings if "written to" in w]


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_the_output_is_never_the_input(
    link: Callable[[Path, Path], None] | None, clip: MakeClip, measnet_run: Run, tmp_path: Path
) -> None:
    source, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    shutil.copy(clip("a.mp4"), source)
    if link is None:
        other = tmp_path / "." / "a.mp4"
    else:
        link(source, other)
    before = source.read_bytes()
    for option in ("-o", "--report"):
        answer = measnet_run(source, option, other, "--overwrite")
        assert answer.status == 2 and answer.err.count("\n") == 1, answer.err
        assert source.read_bytes() == other.read_bytes() == before


@pytest.mark.parametrize("name", ["a.mp4.part", "a.partial.mp4"])
def test_an_input_where_the_output_would_grow_is_left_alone(
    name: str, clip: MakeClip, measnet_run: Run, tmp_path: Path
) -> None:
    # A browser's unfinished download, and our own partial result, have such names.
    shutil.copy(clip("a.mp4"), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    answer = measnet_run(tmp_path / name, "-o", tmp_path / "a.mp4", "--overwrite")
    assert answer.status == 2 and "would grow" in answer.err
    assert (tmp_path / name).read_bytes() == before and [*tmp_path.iterdir()] == [tmp_path / name]


def test_a_folder_where_a_partial_result_would_lie_is_left_alone(measnet_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "shots.partial"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((16, 16, 3), np.uint8))
    answer = measnet_run(folder, "-o", tmp_path / "shots")
    assert answer.status == 2 and "would grow" in answer.err
    assert (folder / "a.png").exists()


def test_the_file_behind_standard_input_is_not_overwritten(
    clip: MakeClip, measnet_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "a.mkv"
    shutil.copy(clip("a.mkv"), path)
    before = path.read_bytes()
    kept = os.dup(0)
    try:
        with path.open("rb") as given:
            os.dup2(given.fileno(), 0)
        answer = measnet_run("-", "-o", path, "-y")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert answer.status == 2 and "is the input itself" in answer.err
    assert path.read_bytes() == before


def test_a_report_that_is_there_is_replaced(clip: MakeClip, measnet_run: Run, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    report.write_text("old")
    assert measnet_run(clip("a.mp4"), "-o", tmp_path / "b.mp4", "--report", report).status == 0
    assert json.loads(report.read_text())["runs"][0]["status"] == "complete"


@pytest.mark.parametrize(
    "name", ["2024-05-01T12:30:00.mp4", "http:x.mkv", "100%d.mp4", "-dash.mp4", "a b.avi"]
)
def test_any_name_that_a_file_can_have_is_read_and_written(
    clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = clip(f"plain{Path(name).suffix}", "-c:a", "mp3")
    shutil.copy(source, tmp_path / name)
    outcome = restore_unchanged(Path(name), Path(f"out {name}"), preset="ultrafast")
    assert outcome.figures.frames and outcome.warnings == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted([name, f"out {name}"])


@pytest.mark.parametrize("stem", ["n" * 245, "ü" * 120], ids=["ascii", "two bytes a letter"])
def test_a_name_too_long_for_a_result_is_said_before_any_work(
    clip: MakeClip, measnet_run: Run, tmp_path: Path, stem: str
) -> None:
    source = tmp_path / f"{stem}.mp4"
    shutil.copy(clip("plain.mp4"), source)
    answer = measnet_run(source)
    assert answer.status == 2 and "is too long" in answer.err and "--out" in answer.err
    assert list(tmp_path.iterdir()) == [source]
    assert measnet_run(source, "-o", tmp_path / "short.mp4", "--preset", "ultrafast").status == 0
