"""A restored video is the source's in everything but its pixels."""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from measnet.errors import InputError, OutputError, UsageError
from measnet.runtime.frame import Frame
from measnet.runtime.memory import check_size
from measnet.runtime.options import Reading
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.video import VideoFile

from . import started_once
from .conftest import MakeClip, decode, ffmpeg, probe, psnr, restore_unchanged

# Frames after 40, 120 and 80 ms in turn.
UNEVEN = "setpts=(floor(N/3)*6+gte(mod(N\\,3)\\,1)+3*gte(mod(N\\,3)\\,2))/25/TB"


@pytest.mark.parametrize("direct", [False, True], ids=["in segments", "direct"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("b_frames.mp4", ["-bf", "2"]),
        ("uneven.mp4", ["-vf", UNEVEN, "-fps_mode", "vfr", "-video_track_timescale", "90000"]),
        ("uneven.mkv", ["-vf", UNEVEN, "-fps_mode", "vfr"]),
        ("ntsc.mov", ["-vf", "fps=30000/1001"]),
        ("late.mp4", ["-output_ts_offset", "3"]),
        ("plain.avi", ["-c:a", "mp3"]),
        ("plain.ts", []),
        ("plain.webm", ["-c:v", "libvpx", "-b:v", "200k", "-c:a", "libopus"]),
    ],
)
def test_frames_and_sound_keep_their_times_and_the_sound_its_bytes(
    clip: MakeClip, tmp_path: Path, name: str, arguments: list[str], direct: bool
) -> None:
    source = clip(name, *arguments)
    preset = "8" if name.endswith("webm") else "ultrafast"
    outcome = restore_unchanged(source, tmp_path / name, preset=preset, direct=direct)
    before, after = probe(source), probe(tmp_path / name)
    assert after.times == before.times
    assert after.copied == before.copied and after.copied
    assert outcome.figures.frames == len(before.times)
    assert outcome.warnings == []


@pytest.mark.parametrize(("target", "direct"), [("out.mkv", False), ("out.avi", False), ("out.mkv", True)])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("h264.avi", ["-c:v", "libx264", "-bf", "3"]),
        ("xvid.avi", ["-c:v", "mpeg4", "-bf", "2"]),
        ("hevc.avi", ["-c:v", "libx265", "-x265-params", "log-level=0:bframes=3", "-tag:v", "HEVC"]),
        ("short.avi", ["-c:v", "mpeg4", "-bf", "2", "-frames:v", "5"]),
    ],
)
def test_frames_stored_out_of_order_without_presentation_times_are_all_kept(
    clip: MakeClip, tmp_path: Path, name: str, arguments: list[str], target: str, direct: bool
) -> None:
    source = clip(name, *arguments, "-c:a", "mp3")
    outcome = restore_unchanged(source, tmp_path / target, direct=direct)
    before, after = decode(source), decode(tmp_path / target)
    times = probe(tmp_path / target).times
    assert outcome.warnings == []
    assert len(after) == len(before) == outcome.figures.frames
    assert all(early < late for early, late in itertools.pairwise(times))
    for ours, own, other in zip(after[1:], before[1:], before, strict=False):
        assert psnr(ours, own) > 27 and psnr(ours, own) > psnr(ours, other)


def test_a_file_that_shows_a_part_of_what_it_holds_is_not_called_cut_off(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "data" / "faults" / "one_edit.mp4"  # one second of four
    outcome = restore_unchanged(source, tmp_path / "out.mp4")
    assert outcome.figures.frames == 25 == len(probe(tmp_path / "out.mp4").times)
    assert outcome.warnings == []


def with_two_edits(source: Path, target: Path) -> None:
    """The first and the third second of an MP4 whose index is at its end: edit lists cut out the second."""
    data = bytearray(source.read_bytes())
    for track in reversed(range(data.count(b"trak"))):
        start = [found.start() for found in re.finditer(b"trak", data)][track]
        edit, clock = data.index(b"elst", start), data.index(b"mdhd", start) + 16
        (second,) = struct.unpack_from(">I", data, clock)
        length, begin = struct.unpack_from(">2I", data, edit + 12)
        assert length > 2000
        data[edit + 8 : edit + 24] = struct.pack(
            ">7I", 2, 1000, begin, 1 << 16, 1000, begin + 2 * second, 1 << 16
        )
        for box in (data.index(b"moov"), start, data.index(b"edts", start), edit):
            size = struct.unpack_from(">I", data, box - 4)[0]
            struct.pack_into(">I", data, box - 4, size + 12)
    target.write_bytes(data)


def pitches(path: Path) -> list[int]:
    """The tone in hertz, of every fifth of a second, to the nearest ten."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-ac", "1", "-ar", "8000", "-"]
    sound = np.frombuffer(started_once.run(*command).stdout, np.int16)
    parts = sound[: len(sound) // 1600 * 1600].reshape(-1, 1600)[:, 400:1200]
    return [int(10 * np.argmax(np.abs(np.fft.rfft(part)))) for part in parts]


@pytest.mark.parametrize(
    ("target", "sound", "direct", "keys"),
    [
        ("out.mp4", "copy", False, "25"),  # key frames at the cuts; otherwise there are none
        ("out.mp4", "copy", False, "250"),
        ("out.mkv", "copy", True, "250"),
        ("out.avi", "copy", False, "250"),
        ("out.mkv", "convert", False, "250"),
    ],
)
def test_what_an_edit_list_cuts_out_of_the_middle_is_neither_seen_nor_heard(
    clip: MakeClip, tmp_path: Path, keys: str, target: str, sound: str, direct: bool
) -> None:
    tone = "aeval=sin(2*PI*t*300*(1+floor(t))):c=same"
    whole = clip("whole.mp4", "-af", tone, "-g", keys, "-bf", "2", seconds=3)
    source = tmp_path / "edited.mp4"
    with_two_edits(whole, source)
    outcome = restore_unchanged(source, tmp_path / target, sound=sound, direct=direct)
    assert pitches(tmp_path / target) == [300] * 5 + [900] * 5
    before, after = probe(source).times, probe(tmp_path / target).times
    assert len(after) == len(before) == outcome.figures.frames == 50
    assert [time - after[0] for time in after] == before
    assert not [line for line in outcome.warnings if "run-up" not in line and "languages" not in line]


def test_little_of_what_an_edit_list_cuts_off_is_heard_where_sound_cannot_begin_before_zero(
    tmp_path: Path,
) -> None:
    source = Path(__file__).parents[1] / "data" / "faults" / "one_edit.mp4"  # the second of four seconds
    outcome = restore_unchanged(source, tmp_path / "out.mkv")
    assert any("0.092 s later" in line for line in outcome.warnings)  # as much as decoders of sound may need


def test_uneven_clip_really_is_uneven(clip: MakeClip) -> None:
    times = probe(clip("uneven.mkv", "-vf", UNEVEN, "-fps_mode", "vfr")).times
    steps = {b - a for a, b in itertools.pairwise(times)}
    assert len(steps) > 1


def test_a_run_up_that_moves_every_time_is_said(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("plain.mp4")
    outcome = restore_unchanged(source, tmp_path / "out.mkv")
    before, after = probe(source), probe(tmp_path / "out.mkv")
    assert {b - a for a, b in zip(before.times, after.times, strict=True)} == {Fraction(23, 1000)}
    assert any("0.023 s later" in line for line in outcome.warnings)


def test_last_frame_keeps_its_length(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("slow.mp4", "-r", "5")
    restore_unchanged(source, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").video["duration"] == probe(source).video["duration"]


@pytest.mark.parametrize(
    ("ending", "degrees"), [("mp4", 90), ("mov", 90), ("mkv", 90), ("mp4", 180), ("mkv", 270)]
)
def test_rotation_survives(clip: MakeClip, tmp_path: Path, ending: str, degrees: int) -> None:
    plain = clip("plain.mp4")
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned)
    restore_unchanged(turned, tmp_path / f"out.{ending}")
    before, after = probe(turned), probe(tmp_path / f"out.{ending}")
    assert before.rotation != 0
    assert (after.rotation - before.rotation) % 360 == 0
    assert (after.video["width"], after.video["height"]) == (96, 64)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pixels_are_turned_where_the_container_cannot_say_so(
    clip: MakeClip, tmp_path: Path, degrees: int
) -> None:
    turned = tmp_path / "turned.mp4"
    soft = clip("soft.mp4", "-vf", "gblur=sigma=4")
    ffmpeg("-i", soft, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned)
    outcome = restore_unchanged(turned, tmp_path / "out.ts", crf=1)
    shown = tmp_path / "shown.mkv"
    ffmpeg("-i", turned, "-c:v", "ffv1", "-an", shown)
    assert psnr(decode(shown), decode(tmp_path / "out.ts")) > 30  # a wrong turn: below 15
    assert any("were turned" in line for line in outcome.warnings)


@pytest.mark.parametrize(
    ("matrix", "range_", "chroma"),
    [
        *(
            (matrix, range_, "yuv420p")
            for matrix in ("smpte170m", "bt709", "unspecified")
            for range_ in ("tv", "pc")
        ),
        ("bt709", "tv", "yuv444p"),
        ("smpte170m", "pc", "yuv444p"),
    ],
)
def test_colours_are_left_alone(
    clip: MakeClip, tmp_path: Path, matrix: str, range_: str, chroma: str
) -> None:
    tags = ["-colorspace", matrix, "-color_range", range_]
    if matrix != "unspecified":
        tags += ["-color_primaries", matrix, "-color_trc", matrix]
    convert = f"scale=out_color_matrix={'bt709' if matrix == 'bt709' else 'bt601'}"
    # Blurred: at 4:2:0 a hard colour edge cannot survive anybody's conversion.
    convert = f"gblur=sigma=4,{convert}:out_range={range_},format={chroma}"
    source = clip("c.mp4", "-vf", convert, *tags, "-crf", "1", audio=False, seconds=0.2)
    restore_unchanged(source, tmp_path / "out.mp4", crf=1)
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert after.tags() == before.tags()
    assert after.video["pix_fmt"] == before.video["pix_fmt"]
    was, became = decode(source), decode(tmp_path / "out.mp4")
    assert psnr(was, became) > 43
    shift = became.astype(float).mean((0, 1, 2)) - was.astype(float).mean((0, 1, 2))
    assert np.abs(shift).max() < 0.3  # of 255 levels


def test_pixel_shape_metadata_and_chapters_survive(clip: MakeClip, tmp_path: Path) -> None:
    chapters = tmp_path / "chapters.txt"
    chapters.write_text(
        ";FFMETADATA1\ntitle=a day\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=one\n"
    )
    source = tmp_path / "in.mp4"
    plain = clip("sar.mp4", "-vf", "setsar=16/11")
    ffmpeg("-i", plain, "-i", chapters, "-map_metadata", "1", "-c", "copy", source)
    restore_unchanged(source, tmp_path / "out.mp4")
    after = probe(tmp_path / "out.mp4")
    assert after.video["sample_aspect_ratio"] == "16:11"
    assert after.format["tags"]["title"] == "a day"
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [c["metadata"]["title"] for c in container.chapters()] == ["one"]


def test_subtitles_are_copied_where_the_container_takes_them(clip: MakeClip, tmp_path: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:00,600\nhello\n")
    source = tmp_path / "in.mkv"
    ffmpeg("-i", clip("plain.mp4"), "-i", words, "-c", "copy", "-c:s", "srt", source)
    restore_unchanged(source, tmp_path / "out.mkv")
    assert probe(tmp_path / "out.mkv").copied == probe(source).copied
    assert "subtitle" in probe(tmp_path / "out.mkv").kinds
    without = restore_unchanged(source, tmp_path / "out.mp4")
    assert any("subtitle" in line for line in without.warnings)


@pytest.mark.parametrize("ending", ["mp4", "mov", "avi", "ts", "webm", "mkv"])
def test_attachments_are_copied_or_their_loss_is_said(clip: MakeClip, tmp_path: Path, ending: str) -> None:
    font, source = tmp_path / "font.ttf", tmp_path / "in.mkv"
    font.write_bytes(b"\0\1\0\0" + bytes(60))
    named = ["-metadata:s:t", "mimetype=font/ttf", "-metadata:s:t", "filename=font.ttf"]
    ffmpeg("-i", clip("mute.mp4", audio=False, seconds=0.2), "-c", "copy", "-attach", font, *named, source)
    preset = "8" if ending == "webm" else "ultrafast"
    outcome = restore_unchanged(source, tmp_path / f"out.{ending}", preset=preset)
    kept = ending == "mkv"
    assert probe(tmp_path / f"out.{ending}").kinds == ["video", "attachment"][: 1 + kept]
    assert any("attachment streams; they were left out" in line for line in outcome.warnings) != kept


def test_mpeg_ts_gets_nothing_that_would_be_nameless_data(clip: MakeClip, tmp_path: Path) -> None:
    words, said, lossless = tmp_path / "words.srt", tmp_path / "said.mkv", tmp_path / "lossless.mkv"
    words.write_text("1\n00:00:00,100 --> 00:00:00,600\nhello\n")
    ffmpeg("-i", clip("plain.mp4"), "-i", words, "-c", "copy", "-c:s", "srt", said)
    outcome = restore_unchanged(said, tmp_path / "out.ts")
    assert probe(tmp_path / "out.ts").kinds == ["video", "audio"]
    assert any("subtitle streams; they were left out" in line for line in outcome.warnings)
    ffmpeg("-i", clip("plain.mp4"), "-c:v", "copy", "-c:a", "flac", lossless)
    with pytest.raises(UsageError, match=r"\.ts files cannot hold the source's flac"):
        restore_unchanged(lossless, tmp_path / "none.ts")


def test_sound_the_container_cannot_hold_is_refused_before_any_work(clip: MakeClip, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.webm files cannot hold"):
        restore_unchanged(clip("plain.mp4"), tmp_path / "out.webm", preset="8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["641x359", "63x64", "1x1", "2x2"])
def test_exact_size_is_kept(clip: MakeClip, tmp_path: Path, size: str) -> None:
    # testsrc2 itself makes even sizes only.
    exact = ["-vf", f"scale={size.replace('x', ':')},format=yuv444p"]
    source = clip("odd.mkv", "-c:v", "ffv1", *exact, seconds=0.12, audio=False)
    restore_unchanged(source, tmp_path / "out.mp4")
    video = probe(tmp_path / "out.mp4").video
    assert f"{video['width']}x{video['height']}" == size
    assert len(decode(tmp_path / "out.mp4")) == 3


@pytest.mark.parametrize(("codec", "name"), [("hevc", "hevc"), ("vp9", "vp9"), ("av1", "av1")])
def test_other_codecs(clip: MakeClip, tmp_path: Path, codec: str, name: str) -> None:
    source = clip("small.mp4", seconds=0.2, audio=False)
    preset = {"hevc": "ultrafast", "vp9": "8", "av1": "12"}[codec]
    try:
        restore_unchanged(source, tmp_path / "out.mkv", codec=codec, preset=preset)
    except UsageError as error:
        pytest.skip(str(error))
    assert probe(tmp_path / "out.mkv").video["codec_name"] == name
    assert probe(tmp_path / "out.mkv").times == probe(source).times


@pytest.mark.parametrize(("ending", "frames"), [("mkv", 1), ("mp4", 1), ("mp4", 2), ("mp4", 3)])
def test_a_video_of_a_few_frames_in_hevc(clip: MakeClip, tmp_path: Path, ending: str, frames: int) -> None:
    source = clip("few.mp4", "-frames:v", str(frames), audio=False)
    restore_unchanged(source, tmp_path / f"out.{ending}", codec="hevc")
    assert probe(tmp_path / f"out.{ending}").times == probe(source).times


def test_bare_stream_without_times_is_paced_by_its_rate(clip: MakeClip, tmp_path: Path) -> None:
    bare = tmp_path / "bare.h264"
    ffmpeg("-i", clip("plain.mp4"), "-an", "-c", "copy", bare)
    restore_unchanged(bare, tmp_path / "out.mkv")
    times = probe(tmp_path / "out.mkv").times
    assert times == [Fraction(n, 25) for n in range(20)]


def _damage(path: Path, target: Path) -> Path:
    """Overwrite the inside of a few frames, as a failing disk would."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pos is not None and p.size > 40]
    # The first leaves a slice to patch up, the second nothing that can be decoded.
    for packet, intact in ((packets[5], 60), (packets[9], 6)):
        start, end = packet.pos + intact, packet.pos + packet.size
        data[start:end] = bytes(end - start)
    target.write_bytes(data)
    return target


def test_damaged_frames_are_left_out_and_counted(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("intra.mp4", "-g", "1", "-bf", "0", "-crf", "10")
    damaged = _damage(source, tmp_path / "damaged.mp4")
    outcome = restore_unchanged(damaged, tmp_path / "out.mp4")
    assert outcome.source.damaged == 2
    assert outcome.figures.frames == 18
    assert set(probe(tmp_path / "out.mp4").times) < set(probe(source).times)
    assert any("2 damaged frames" in line for line in outcome.warnings)
    assert not outcome.source.truncated


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_cut_off_file_is_restored_as_far_as_it_goes(clip: MakeClip, tmp_path: Path, name: str) -> None:
    source = clip(name, "-movflags", "+faststart", "-bf", "0", "-g", "5", seconds=2.0)
    cut = tmp_path / name
    data = source.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    outcome = restore_unchanged(cut, tmp_path / f"out.{name}")
    assert outcome.source.truncated
    assert 5 < outcome.figures.frames < 45
    assert any("cut off" in line for line in outcome.warnings)


def test_sources_that_cannot_be_restored_say_why(clip: MakeClip, tmp_path: Path) -> None:
    whole = clip("plain.mp4").read_bytes()
    bad = {
        "empty.mp4": (b"", "empty"),
        "headless.mp4": (whole[: len(whole) // 2], "moov"),
        "text.mp4": (b"this is no video at all\n" * 99, "not a video"),
    }
    for name, (data, reason) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=reason) as caught:
            VideoFile(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="does not exist"):
        VideoFile(tmp_path / "missing.mp4")


def test_sound_without_picture_is_refused(clip: MakeClip, tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    ffmpeg("-i", clip("plain.mp4"), "-vn", "-c", "copy", sound)
    with pytest.raises(InputError, match="holds audio but no video"):
        VideoFile(sound)
    covered, cover = tmp_path / "covered.mp3", tmp_path / "cover.png"
    ffmpeg("-i", clip("plain.mp4"), "-frames:v", "1", cover)
    ffmpeg("-i", sound, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", covered)
    with pytest.raises(InputError, match="cover picture"):
        VideoFile(covered)


def test_video_without_frames_is_refused(clip: MakeClip, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.avi"
    ffmpeg("-i", clip("plain.mp4"), "-an", "-c:v", "mpeg4", "-frames:v", "0", nothing)
    with pytest.raises(InputError, match=r"no frames|not a video|no video"):
        VideoFile(nothing)


def test_absurd_sizes_are_refused() -> None:
    check_size("fine", 16_384, 16_384)
    for width, height in ((16_385, 16), (16, 100_000), (0, 5)):
        with pytest.raises(InputError, match=f"{width}×{height}"):
            check_size("huge", width, height)


def test_declared_absurd_size_is_refused_before_decoding(clip: MakeClip, tmp_path: Path) -> None:
    huge = tmp_path / "huge.avi"
    data = clip("raw.avi", "-c:v", "rawvideo", audio=False, seconds=0.1).read_bytes()
    at = data.index(b"strf") + 12
    assert data[at : at + 4] == (96).to_bytes(4, "little")
    huge.write_bytes(data[:at] + (30_000).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(InputError, match="30000×64"):
        VideoFile(huge)


def test_failure_leaves_nothing_behind(clip: MakeClip, tmp_path: Path) -> None:
    def fail(pixels: object) -> object:
        raise RuntimeError("engine gave up")

    with pytest.raises(RuntimeError, match="gave up"):
        restore_unchanged(clip("plain.mp4"), tmp_path / "out.mp4", fail)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_result_appears_under_its_name_only_when_whole(clip: MakeClip, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    seen: list[bool] = []

    def look(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
        seen.append(target.exists())
        return pixels

    restore_unchanged(clip("plain.mp4"), target, look)  # type: ignore[arg-type]
    assert target.exists() and not any(seen)


def test_full_disk_is_one_line_and_leaves_nothing(clip: MakeClip, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode:
        pytest.skip(f"a small disk to fill cannot be mounted: {mounted.stderr.strip()}")
    try:
        source = clip("noisy.mp4", "-vf", "noise=alls=90:allf=t", size="320x240", seconds=1.0)
        with pytest.raises(OutputError, match="no space left"):
            restore_unchanged(source, disk / "out.mp4", crf=1)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_aborted_sink_leaves_nothing(clip: MakeClip, tmp_path: Path) -> None:
    source = VideoFile(clip("plain.mp4"))
    sink = VideoSink(tmp_path / "out.mp4", source.info)
    for item in source.read():
        if isinstance(item, Frame):
            sink.write(item)
        else:
            sink.copy(item)
    sink.abort()
    sink.abort()
    source.close()
    assert list(tmp_path.iterdir()) == []


def _two_programs(folder: Path) -> Path:
    """A broadcast: two pictures, each with its sound, apart by their pitch."""
    pictures = [["-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.4"] for size in ("96x64", "64x48")]
    tones = [["-f", "lavfi", "-i", f"sine={pitch}:d=0.4"] for pitch in (300, 3000)]
    inputs = [*pictures[0], *tones[0], *pictures[1], *tones[1]]
    maps = [word for number in range(4) for word in ("-map", str(number))]
    programs = ["-program", "title=One:st=0:st=1", "-program", "title=Two:st=2:st=3"]
    ffmpeg(*inputs, *maps, "-preset", "ultrafast", "-c:a", "mp2", *programs, folder / "two.ts")
    return folder / "two.ts"


def _sound(path: Path) -> dict[int, list[bytes]]:
    """The packets of each stream of sound."""
    with av.open(str(path)) as file:
        found: dict[int, list[bytes]] = {stream.index: [] for stream in file.streams.audio}
        for packet in file.demux(*file.streams.audio):
            if packet.size:
                found[packet.stream.index].append(bytes(packet))
    return found


@pytest.mark.parametrize("track", [None, 1, 2])
def test_of_several_programs_the_sound_of_the_pictures_own_comes_along(
    tmp_path: Path, track: int | None
) -> None:
    source = _two_programs(tmp_path)
    outcome = restore_unchanged(source, tmp_path / "out.mkv", reading=Reading(track=track))
    number = 3 if track == 2 else 1
    assert list(_sound(tmp_path / "out.mkv").values()) == [_sound(source)[number]]
    said = [line for line in outcome.warnings if "audio" in line]
    assert len(said) == 1 and f"audio stream {4 - number} (of another program)" in said[0]
    assert sum("video" in line for line in outcome.warnings) == 1


def test_with_all_tracks_the_sound_of_all_programs_is_kept(tmp_path: Path) -> None:
    source = _two_programs(tmp_path)
    outcome = restore_unchanged(source, tmp_path / "out.mkv", reading=Reading(keep_tracks=True))
    assert list(_sound(tmp_path / "out.mkv").values()) == list(_sound(source).values())
    assert not any("program" in line for line in outcome.warnings)


@pytest.mark.parametrize("name", ["early.mp4", "early.mkv"])
def test_a_beginning_without_a_picture_is_told(clip: MakeClip, tmp_path: Path, name: str) -> None:
    whole = clip(name, "-g", "5", "-bf", "0")
    with av.open(str(whole)) as before, av.open(str(tmp_path / name), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(before.streams.video[0])):
            if packet.dts is None:
                continue
            shown: av.Packet[Any] = packet
            if number < 10:  # the first two groups of pictures say nothing
                shown = av.Packet(bytes(packet.size))
                shown.pts, shown.dts, shown.time_base = packet.pts, packet.dts, packet.time_base
                shown.is_keyframe = packet.is_keyframe
            shown.stream = stream
            after.mux_one(shown)
    outcome = restore_unchanged(tmp_path / name, tmp_path / f"out{Path(name).suffix}")
    assert probe(tmp_path / f"out{Path(name).suffix}").times[-1] > 0
    assert any(
        "damaged" in line and "none is shown for the first 0.40 s" in line for line in outcome.warnings
    )
