"""Containers, codecs and tracks: what cannot be is refused in a line before any work."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from measnet.errors import UsageError
from measnet.runtime.frame import Frame
from measnet.runtime.options import Reading
from measnet.runtime.session import expanded
from measnet.runtime.sources.times import Continuity
from measnet.runtime.sources.video import VideoFile

from . import started_once
from .conftest import Answer, MakeClip, decode, ffmpeg, probe, psnr, restore_unchanged, run_here

Run = Callable[..., Answer]


@pytest.mark.parametrize(
    ("codec", "ending", "another"),
    [
        ("libopus", "mov", ".mkv"),
        ("flac", "mov", ".mp4"),
        ("pcm_s16le", "mp4", ".mov"),
        ("aac", "webm", ".mp4"),
    ],
)
def test_sound_without_a_place_is_refused_with_those_that_have_one(
    clip: MakeClip, tmp_path: Path, codec: str, ending: str, another: str
) -> None:
    source = clip(f"{codec}.mkv", "-c:a", codec, seconds=0.2)
    with pytest.raises(
        UsageError, match=rf"\.{ending} files cannot hold .*{another}.*--sound convert"
    ) as caught:
        restore_unchanged(source, tmp_path / f"out.{ending}", preset="8" if ending == "webm" else "ultrafast")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def samples(path: Path) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s32le", "-ac", "1", "-ar", "44100", "-"]
    done = started_once.run(*command)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.int32)


@pytest.mark.parametrize("direct", [False, True], ids=["in segments", "direct"])
@pytest.mark.parametrize(("codec", "ending"), [("pcm_s24le", "mp4"), ("pcm_mulaw", "mkv"), ("flac", "mov")])
def test_converted_sound_loses_nothing_where_the_page_says_so(
    clip: MakeClip, tmp_path: Path, codec: str, ending: str, direct: bool
) -> None:
    source = clip(f"{codec}.mkv", "-c:a", codec, seconds=0.4)
    outcome = restore_unchanged(source, tmp_path / f"out.{ending}", sound="convert", direct=direct)
    assert np.array_equal(samples(tmp_path / f"out.{ending}"), samples(source))
    assert any("was converted to" in line for line in outcome.warnings)


def test_a_video_of_a_kind_that_is_not_written_has_its_sound_too(
    clip: MakeClip, tmp_path: Path, measnet_run: Run
) -> None:
    source = clip("old.wmv", "-c:v", "wmv2", "-c:a", "wmav2", seconds=0.4)
    refused = measnet_run(source, "-o", tmp_path / "out.mkv")
    assert refused.status == 2 and "--sound convert" in refused.err
    assert measnet_run(source, "-o", tmp_path / "out.mkv", "--sound", "convert").status == 0
    assert probe(tmp_path / "out.mkv").kinds == ["video", "audio"]
    assert measnet_run(source, "-o", tmp_path / "mute.mkv", "--sound", "none").status == 0
    assert probe(tmp_path / "mute.mkv").kinds == ["video"]


@pytest.mark.parametrize("compare", [(), ("--compare", "side")], ids=["alone", "compared"])
def test_where_no_result_is_named_its_sound_finds_a_place(
    clip: MakeClip, tmp_path: Path, compare: tuple[str, ...]
) -> None:
    source = shutil.copy(clip("old.wmv", "-c:v", "wmv2", "-c:a", "wmav2", seconds=0.4), tmp_path)
    done = run_here(source, *compare)
    assert done.status == 0 and "was converted to" in done.err
    for name in ("old.restored.mp4", *(["old.restored.compare.mp4"] if compare else [])):
        assert probe(tmp_path / name).kinds == ["video", "audio"]
    assert run_here(source, "-o", tmp_path / "new.mkv").status == 2


@pytest.mark.parametrize("ending", ["mkv", "mov", "ts"])
@pytest.mark.parametrize("direct", [False, True], ids=["in segments", "direct"])
def test_sound_whose_decoder_gives_out_its_last_frame_without_a_time_is_converted_whole(
    clip: MakeClip, tmp_path: Path, ending: str, direct: bool
) -> None:
    source = clip("old.wmv", "-c:v", "wmv2", "-c:a", "wmav2", "-ar", "48000", seconds=0.32)
    outcome = restore_unchanged(source, tmp_path / f"out.{ending}", sound="convert", direct=direct)
    assert outcome.figures.frames == len(probe(source).times)
    lost = len(samples(source)) - len(samples(tmp_path / f"out.{ending}"))
    assert abs(lost) < 44_100 * 0.05
    assert len([line for line in outcome.warnings if "was converted to" in line]) == 1


def test_windows_media_is_no_kind_that_is_written_and_it_is_said_before_any_work(
    clip: MakeClip, tmp_path: Path, measnet_run: Run
) -> None:
    source = clip("old.wmv", "-c:v", "wmv2", "-c:a", "wmav2", seconds=0.4)
    refused = measnet_run(source, "-o", tmp_path / "out.wmv")
    assert refused.status == 2 and "use one of .mp4" in refused.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_a_limited_range_is_said_even_where_nothing_else_is(
    clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    source = clip("tv.ts", "-c:v", "mpeg2video", audio=False, seconds=0.2)
    assert probe(source).tags() == ("unknown", "unknown", "unknown", "tv")
    restore_unchanged(source, tmp_path / f"out.{ending}")
    assert probe(tmp_path / f"out.{ending}").tags() == probe(source).tags()


@pytest.fixture
def two_tracks(clip: MakeClip, tmp_path: Path) -> Path:
    """96×64 at 25 frames a second, and 64×48 at 10, with B-frames."""
    path = tmp_path / "two.mkv"
    small = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.8"]
    maps = ["-map", "0:v", "-map", "1:v", "-map", "0:a", "-c:v:0", "copy", "-c:a", "copy"]
    ffmpeg("-i", clip("plain.mp4"), *small, *maps, "-c:v:1", "libx264", "-bf", "2", path)
    return path


def test_one_of_several_tracks_is_taken_and_it_is_said_which(two_tracks: Path, tmp_path: Path) -> None:
    first = restore_unchanged(two_tracks, tmp_path / "first.mkv")
    assert probe(tmp_path / "first.mkv").video["width"] == 96
    assert any("2 video tracks: number 1 (96×64)" in line for line in first.warnings)
    second = restore_unchanged(two_tracks, tmp_path / "second.mkv", reading=Reading(track=2))
    assert probe(tmp_path / "second.mkv").kinds == ["video", "audio"]
    assert probe(tmp_path / "second.mkv").video["width"] == 64
    assert not any("number" in line for line in second.warnings)
    with pytest.raises(UsageError, match="has 2 video tracks, not 3"):
        restore_unchanged(two_tracks, tmp_path / "third.mkv", reading=Reading(track=3))


@pytest.mark.parametrize("direct", [False, True], ids=["in segments", "direct"])
def test_other_tracks_are_copied_if_asked(two_tracks: Path, tmp_path: Path, direct: bool) -> None:
    target = tmp_path / "both.mp4"
    reading = Reading(keep_tracks=True)
    restore_unchanged(two_tracks, target, reading=reading, direct=direct)

    def shown(path: Path) -> list[tuple[int, bytes]]:
        with av.open(str(path)) as container:
            frames = container.decode(video=1)
            return [(frame.width, frame.to_ndarray(format="rgb24").tobytes()) for frame in frames]

    assert probe(target).kinds == ["video", "video", "audio"]
    assert shown(target) == shown(two_tracks) and len(shown(target)) == 8


def test_a_pixel_format_is_as_asked_for_or_refused(clip: MakeClip, tmp_path: Path, measnet_run: Run) -> None:
    plain = clip("plain.mp4")
    asked = ["--pixel-format", "yuv422p10", "--preset", "ultrafast", "-o"]
    assert measnet_run(plain, *asked, tmp_path / "deep.mp4").status == 0
    assert probe(tmp_path / "deep.mp4").video["pix_fmt"] == "yuv422p10le"
    wrong = measnet_run(plain, *asked, tmp_path / "no.mp4", "--codec", "av1", "--preset", "12")
    assert wrong.status == 2 and "libsvtav1 does not take yuv422p10le, only yuv420p yuv420p10le" in wrong.err
    assert measnet_run(plain, "--pixel-format", "rgb24", "-o", tmp_path / "no.mp4").status == 2
    assert measnet_run(plain, *asked, tmp_path / "no.mp4", "--bits", "8").status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["deep.mp4"]


def test_sixteen_bits_stay_sixteen_without_loss(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    deep = ["-pix_fmt", "yuv444p16le", "-color_range", "pc", "-c:v", "ffv1"]
    ffmpeg("-f", "lavfi", "-i", "gradients=s=64x48:d=0.08:r=25,format=gbrp16le", *deep, source)
    restore_unchanged(source, target, codec="ffv1", preset=None)
    assert probe(target).video["pix_fmt"] == "yuv444p16le"
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for was, became in zip(before.decode(video=0), after.decode(video=0), strict=True):
            off = np.abs(was.to_ndarray().astype(int) - became.to_ndarray().astype(int))
            assert off.max() <= 4  # of 65535: the rounding of RGB in between


def test_a_graphics_cards_encoder_that_does_not_start_is_one_line(
    clip: MakeClip, tmp_path: Path, measnet_run: Run
) -> None:
    try:
        av.Codec("h264_nvenc", "w")
    except ValueError:
        pytest.skip("this FFmpeg was built without NVENC")
    answer = measnet_run(clip("plain.mp4"), "--codec", "h264_nvenc", "-o", tmp_path / "out.mp4")
    if answer.status == 0:
        assert probe(tmp_path / "out.mp4").video["codec_name"] == "h264"
        return
    assert answer.status == 1 and answer.err.count("\n") == 1
    assert "h264_nvenc does not start on this machine" in answer.err and "--codec h264" in answer.err
    assert list(tmp_path.iterdir()) == []
    unknown = measnet_run(clip("plain.mp4"), "--codec", "h265", "-o", tmp_path / "out.mp4")
    assert unknown.status == 2 and "hevc" in unknown.err and "h264_nvenc" in unknown.err


def test_a_pattern_is_every_picture_that_fits(tmp_path: Path, measnet_run: Run) -> None:
    for name in ("a.png", "b.png", "[c].png", "d.jpg"):
        cv2.imwrite(str(tmp_path / name), np.full((16, 24, 3), 90, np.uint8))
    (tmp_path / "out").mkdir()
    answer = measnet_run(str(tmp_path / "?.png"), str(tmp_path / "[c].png"), "-o", tmp_path / "out")
    assert answer.status == 0, answer.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["[c].restored.png", "a.restored.png", "b.restored.png"]
    nothing = measnet_run(str(tmp_path / "*.tif"))
    assert nothing.status == 2 and "no file is called" in nothing.err
    assert expanded(["rtsp://cam/?a=*", "-", "camera:0"]) == ("rtsp://cam/?a=*", "-", "camera:0")


def test_a_pattern_run_twice_does_not_restore_its_own_results(tmp_path: Path, measnet_run: Run) -> None:
    for name in ("a.png", "b.png", "lone.restored.png"):
        cv2.imwrite(str(tmp_path / name), np.full((16, 24, 3), 90, np.uint8))
    for _ in range(2):
        answer = measnet_run(str(tmp_path / "*.png"), "--overwrite")
        assert answer.status == 0, answer.err
    made = {path.name for path in tmp_path.iterdir()} - {"a.png", "b.png", "lone.restored.png"}
    assert made == {"a.restored.png", "b.restored.png", "lone.restored.restored.png"}
    said = " ".join(answer.err.split())
    assert "a.restored.png is left out: it is what became of" in said
    # One that is asked for by itself is meant.
    assert measnet_run(tmp_path / "a.restored.png").status == 0


def test_options_of_videos_are_said_to_do_nothing_for_a_picture(tmp_path: Path, measnet_run: Run) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((16, 24, 3), 90, np.uint8))
    answer = measnet_run(tmp_path / "a.png", "--crf", "30", "--bits", "10")
    assert answer.status == 0 and "--crf, --bits: of videos alone" in " ".join(answer.err.split())
    assert "of videos alone" not in measnet_run(tmp_path / "a.png", "--overwrite").err


@dataclass
class Stored:
    """A packet as Continuity sees it, in milliseconds."""

    index: int
    kind: str
    dts: int
    duration: int = 100
    time_base: Fraction = Fraction(1, 1000)
    is_discard: bool = False

    def __post_init__(self) -> None:
        self.pts = self.dts
        self.stream = SimpleNamespace(index=self.index, type=self.kind)


def test_all_streams_are_moved_alike_and_subtitles_do_not_lead() -> None:
    stored = [
        *(
            Stored(0, "video", 0),
            Stored(1, "audio", 20),
            Stored(2, "subtitle", 900),
            Stored(2, "subtitle", 100),
        ),
        *(Stored(0, "video", 900), Stored(1, "audio", 950), Stored(2, "subtitle", 950)),
        # The second recording: its sound comes first, and its subtitles.
        *(Stored(1, "audio", 30), Stored(0, "video", 0), Stored(2, "subtitle", 50)),
    ]
    continuity = Continuity()
    for packet in stored:
        continuity.carry_on(packet)  # type: ignore[arg-type]  # has what is asked of it
    assert [packet.dts for packet in stored[:7]] == [0, 20, 900, 100, 900, 950, 950]
    assert [packet.dts for packet in stored[7:]] == [1050, 1020, 1070]
    assert continuity.jumps == 1


@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv", "out.ts"])
def test_a_stream_whose_clock_begins_anew_is_shown_from_its_beginning(
    clip: MakeClip, tmp_path: Path, target: str
) -> None:
    whole_clock = Fraction(1 << 33, 90_000)
    offset = f"{float(whole_clock) - 0.4:.3f}"
    source = clip("wraps.ts", "-output_ts_offset", offset, "-muxdelay", "0", "-muxpreload", "0")
    before = probe(source).times
    assert min(before) < 0 < max(before)  # as FFmpeg has it
    restore_unchanged(source, tmp_path / target)
    after = probe(tmp_path / target).times
    assert len(after) == len(before) and min(after) >= 0
    steps = [late - early for early, late in itertools.pairwise(before)]
    assert [round(late - early, 2) for early, late in itertools.pairwise(after)] == [
        round(s, 2) for s in steps
    ]
    piece = Reading(start=Fraction("0.2"), duration=Fraction("0.4"))
    reader = VideoFile(source, piece)
    assert reader.info.frames == len([frame for frame in reader.read() if isinstance(frame, Frame)]) == 10
    reader.close()


def beginnings(path: Path) -> list[float]:
    """Seconds at which picture and sound begin."""
    with av.open(str(path)) as container:
        begun = {s.type: float((s.start_time or 0) * (s.time_base or 0)) for s in container.streams}
    return [begun["video"], begun["audio"]]


LATE = ("-output_ts_offset", "7200")
CLOCKS = [("mpegts", "ts", "ts"), ("mpeg", "mpg", ""), ("flv", "flv", "flv")]


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "flv", "ts"])
@pytest.mark.parametrize(("muxer", "ending", "own"), CLOCKS, ids=[muxer for muxer, *_ in CLOCKS])
def test_a_clock_that_begins_anywhere_is_kept_in_its_own_kind_alone(
    clip: MakeClip, tmp_path: Path, muxer: str, ending: str, own: str, target: str
) -> None:
    """Elsewhere players show nothing for as long as nothing is there, and call the video so much longer."""
    sound = ("-c:a", "mp3" if muxer == "flv" else "mp2", "-ar", "44100")
    source = clip(f"late.{ending}", "-r", "25", *sound, *LATE)
    before = probe(source)
    assert before.times[0] >= 7200
    converted = ("--sound", "convert") if target == "flv" else ()
    assert run_here(source, "-o", tmp_path / f"a.{target}", *converted).status == 0
    after = probe(tmp_path / f"a.{target}")
    begins = float(after.format["start_time"])
    if target == own:
        assert begins > 7190
    else:
        # Where nothing can lie before zero, sound's run-up moves all.
        assert 0 <= begins < 0.1 and float(after.format["duration"]) < 2
    apart = [late - early for early, late in zip(before.times, after.times, strict=True)]
    assert max(apart) - min(apart) <= Fraction(1, 500)


@pytest.mark.parametrize("duration", [(), ("--duration", "0.4")], ids=["whole", "its beginning"])
def test_sound_stays_with_a_picture_whose_clock_begins_anywhere(
    clip: MakeClip, tmp_path: Path, duration: tuple[str, ...]
) -> None:
    source = clip("late.ts", "-c:a", "mp2", *LATE)
    compared = ("--compare", "side")
    assert run_here(source, "-o", tmp_path / "a.mp4", *compared, *duration).status == 0
    for name in ("a.mp4", "a.compare.mp4"):
        (picture, sound), (moved, moved_sound) = map(beginnings, (source, tmp_path / name))
        assert abs((moved - moved_sound) - (picture - sound)) < 0.002
        assert picture > 7200 and 0 <= moved < 1


@pytest.mark.parametrize(("stored", "written"), [("yuv411p", "yuv422p"), ("yuv440p", "yuv444p")])
def test_chroma_that_encoders_lack_becomes_the_next_higher(
    clip: MakeClip, tmp_path: Path, stored: str, written: str
) -> None:
    source = clip(f"{stored}.mkv", "-c:v", "ffv1", "-pix_fmt", stored, seconds=0.2, audio=False)
    outcome = restore_unchanged(source, tmp_path / "out.mkv", crf=1)
    assert probe(tmp_path / "out.mkv").video["pix_fmt"] == written
    assert psnr(decode(source), decode(tmp_path / "out.mkv")) > 30  # hard edges of colours
    assert outcome.warnings == []


@pytest.mark.parametrize(("name", "stored"), [("a.gif", ()), ("a.mov", ("-c:v", "png"))])
def test_red_green_and_blue_of_full_resolution_are_said_to_ask_much_of_players(
    clip: MakeClip, tmp_path: Path, name: str, stored: tuple[str, ...]
) -> None:
    """Players that show such a source may refuse the result."""
    source = clip(name, *stored, seconds=0.2, audio=False)
    for codec, pixel_format, said in (("h264", None, 1), ("h264", "yuv420p", 0), ("ffv1", None, 0)):
        outcome = restore_unchanged(
            source, tmp_path / "out.mkv", codec=codec, pixel_format=pixel_format, preset=None
        )
        assert len([line for line in outcome.warnings if "--pixel-format yuv420p" in line]) == said


def test_names_that_mp4_has_no_field_for_are_kept(clip: MakeClip, tmp_path: Path) -> None:
    named = [
        "-movflags",
        "use_metadata_tags",
        "-metadata",
        "com.android.version=14",
        "-metadata",
        "title=walk",
    ]
    source = clip("phone.mp4", *named, audio=False, seconds=0.2)
    restore_unchanged(source, tmp_path / "out.mp4")
    kept = probe(tmp_path / "out.mp4").format["tags"]
    assert (kept["com.android.version"], kept["title"]) == ("14", "walk")
    plain = clip("plain.mp4", "-metadata", "title=walk", audio=False, seconds=0.2)
    restore_unchanged(plain, tmp_path / "plain.mp4")
    assert b"\xa9nam" in (tmp_path / "plain.mp4").read_bytes()  # the field that every player reads


def test_a_timecode_is_kept_or_its_loss_is_said(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("coded.mov", "-timecode", "01:02:03:04", audio=False, seconds=0.2)
    kept = restore_unchanged(source, tmp_path / "out.mov")
    assert probe(tmp_path / "out.mov").video["tags"]["timecode"] == "01:02:03:04"
    assert kept.warnings == []
    lost = restore_unchanged(source, tmp_path / "out.ts")
    assert any("not carried over" in line and "timecode" in line for line in lost.warnings)


@pytest.mark.parametrize(
    ("codec", "intra"),
    [("mjpeg", True), ("prores", True), ("libx264", False), ("mpeg4", False), ("huffyuv", False)],
)
def test_codecs_that_code_each_frame_for_itself_are_told(clip: MakeClip, codec: str, intra: bool) -> None:
    reader = VideoFile(clip("coded.mov", "-c:v", codec, audio=False))
    reader.close()
    assert reader.info.intra == intra
