"""A piece of a video is exact to the frame, begins at zero, and takes along what goes with it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from measnet.errors import InputError, UsageError
from measnet.runtime.options import Reading, parse_time
from measnet.runtime.sources.video import VideoFile

from .conftest import Answer, MakeClip, decode, ffmpeg, probe, psnr, restore_unchanged
from .test_video import UNEVEN

Run = Callable[..., Answer]


def piece(start: str | None = None, duration: str | None = None) -> Reading:
    start_at, length = (None if text is None else parse_time(text) for text in (start, duration))
    return Reading(start=start_at, duration=length)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", Fraction(90)),
        ("0.04", Fraction(1, 25)),
        ("1:30", Fraction(90)),
        ("01:02:03.5", Fraction(7447, 2)),
        ("0:00:00.001", Fraction(1, 1000)),
    ],
)
def test_times_are_read_exactly(text: str, seconds: Fraction) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:75", "abc", "1:2:3:4", "1e3", "٣", "60:61:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("b_frames.mp4", ["-bf", "2"]),
        ("uneven.mkv", ["-vf", UNEVEN, "-fps_mode", "vfr", "-c:a", "flac"]),
        ("ntsc.mov", ["-vf", "fps=30000/1001"]),
        ("late.mp4", ["-output_ts_offset", "3"]),
        ("plain.avi", ["-c:a", "mp3"]),
        ("plain.ts", ["-bf", "2"]),
        ("edited.mp4", ["-bf", "2", "-g", "12"]),
    ],
)
def test_frames_of_the_piece_are_those_shown_in_it(
    clip: MakeClip, tmp_path: Path, name: str, arguments: list[str]
) -> None:
    source = clip(name, *arguments, seconds=2.0)
    outcome = restore_unchanged(source, tmp_path / name, crf=1, reading=piece("0.7", "0.6"))
    before, after = probe(source), probe(tmp_path / name)
    origin = max(Fraction(before.format["start_time"]), Fraction(0))
    inside = [t for t in before.times if Fraction("0.7") <= t - origin < Fraction("1.3")]
    # MPEG-TS is written a little after zero, whatever the times.
    assert [t - after.times[0] for t in after.times] == [t - inside[0] for t in inside]
    assert after.times[0] == 0
    if "uneven" not in name:
        assert outcome.source.info.frames == pytest.approx(len(inside), abs=1)
    first = before.times.index(inside[0])
    assert shown(source, tmp_path / name) == list(range(first, first + len(inside)))
    assert not outcome.source.truncated
    if "audio" in after.kinds:
        assert set(after.copied) <= set(before.copied)
        assert 0.5 < sound_length(tmp_path / name) < 0.7


def shown(source: Path, result: Path) -> list[int]:
    """For every frame of the result, the number of the source's frame that is most like it."""
    frames = decode(source)
    return [max(range(len(frames)), key=lambda n: psnr(frames[n], frame)) for frame in decode(result)]


def sound_length(path: Path) -> float:
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.pts is not None]
    return float((packets[-1].pts - packets[0].pts) * packets[0].time_base)


@pytest.mark.parametrize("name", ["far.mp4", "far.ts", "far.mkv", "far.flv"])
def test_a_far_piece_is_found_by_its_time_with_and_without_an_index(
    clip: MakeClip, tmp_path: Path, name: str
) -> None:
    arguments = ["-r", "5", "-g", "30", "-c:v", "libx264", "-bf", "2", "-c:a", "aac", "-b:a", "16k"]
    source = clip(name, *arguments, seconds=15.0)
    times = probe(source).times
    outcome = restore_unchanged(source, tmp_path / "out.mp4", crf=1, reading=piece("10.4", "1"))
    origin = max(Fraction(probe(source).format["start_time"]), Fraction(0))
    first = next(i for i, t in enumerate(times) if t - origin >= Fraction("10.4"))
    assert shown(source, tmp_path / "out.mp4") == list(range(first, first + 5)), name
    assert outcome.source.damaged == 0 and not outcome.source.truncated, outcome.warnings


def test_subtitles_and_chapters_are_cut_and_moved(clip: MakeClip, tmp_path: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text(
        "1\n00:00:00,100 --> 00:00:00,300\nbefore\n\n2\n00:00:00,400 --> 00:00:00,700\nacross\n\n"
        "3\n00:00:00,800 --> 00:00:02,000\nbeyond\n\n4\n00:00:01,500 --> 00:00:01,800\nafter\n"
    )
    chapters = tmp_path / "chapters.txt"
    spans = ((0, 500, "one"), (500, 900, "two"), (900, 2000, "three"))
    chapters.write_text(
        ";FFMETADATA1\n"
        + "".join(f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={a}\nEND={b}\ntitle={t}\n" for a, b, t in spans)
    )
    source = tmp_path / "in.mkv"
    plain = clip("silent.mp4", seconds=2.0, audio=False)
    ffmpeg(
        "-i", plain, "-i", words, "-i", chapters, "-map_metadata", "2", "-c", "copy", "-c:s", "srt", source
    )
    restore_unchanged(source, tmp_path / "out.mkv", reading=piece("0.6", "0.8"))
    with av.open(str(tmp_path / "out.mkv")) as container:
        found = [(c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in container.chapters()]
        titles = [c["metadata"]["title"] for c in container.chapters()]
        said = [
            (float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p).decode())
            for p in container.demux(subtitles=0)
            if p.size
        ]
    assert titles == ["two", "three"]
    assert found == [(0, Fraction(3, 10)), (Fraction(3, 10), Fraction(8, 10))]
    assert said == [(0.0, 0.1, "across"), (0.2, 0.6, "beyond")]


def test_a_piece_to_the_end_and_one_from_the_beginning(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("plain.mp4")
    restore_unchanged(source, tmp_path / "tail.mp4", reading=piece("0.6"))
    assert probe(tmp_path / "tail.mp4").times == [Fraction(n, 25) for n in range(5)]
    restore_unchanged(source, tmp_path / "head.mp4", reading=piece(None, "0.2"))
    assert probe(tmp_path / "head.mp4").times == [Fraction(n, 25) for n in range(5)]


def test_a_piece_behind_the_end_says_where_the_end_is(clip: MakeClip) -> None:
    with pytest.raises(InputError, match=r"at 5 s or later; it ends at 0\.8"):
        VideoFile(clip("plain.mp4"), piece("5"))


def test_the_command_line_cuts(measnet_run: Run, clip: MakeClip, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    answer = measnet_run(clip("plain.mp4"), "--start", "0:00.2", "--duration", "0.4", "-o", target)
    assert answer.status == 0, answer.err
    assert probe(target).times == [Fraction(n, 25) for n in range(10)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{clip}", "--start", "soon"], "is not a time"),
        (["{clip}", "--duration", "0"], "leaves nothing"),
        (["{folder}", "--start", "1"], "for video files only"),
        (["camera:0", "-o", "x.mp4", "--duration", "1"], "for video files only"),
    ],
)
def test_wrong_pieces_are_status_2(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    named = [argument.format(clip=clip("plain.mp4"), folder=tmp_path) for argument in arguments]
    answer = measnet_run(*named)
    assert answer.status == 2 and reason in answer.err
