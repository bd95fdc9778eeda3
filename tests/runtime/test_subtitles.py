"""Subtitles go along into a container of another kind: as text that it takes, with their times and marks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from measnet.runtime.options import Reading

from .conftest import Answer, ffmpeg, restore_unchanged
from .kept import Subtitle, shown_text

LINES = """1
00:00:00,080 --> 00:00:00,360
<i>hello</i> & more

2
00:00:00,200 --> 00:00:00,500
over
lap

3
00:00:00,500 --> 00:00:00,560
touching

4
00:00:00,640 --> 00:00:00,720
last
"""
ASS = r"""[Script Info]
ScriptType: v4.00+
PlayResX: 96
PlayResY: 64

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Alignment, MarginL, MarginR, MarginV
Style: Default,Arial,16,&H00FFFFFF,0,0,2,10,10,10

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.08,0:00:00.36,Default,,0,0,0,,{\b1}a word, and{\b0}\Nanother
Dialogue: 0,0:00:00.08,0:00:00.36,Default,,0,0,0,,{\an8\pos(10,10)}a sign
Dialogue: 0,0:00:00.40,0:00:00.50,Default,,0,0,0,,{\p1}m 0 0 l 100 0 100 100{\p0}
Dialogue: 0,0:00:00.60,0:00:00.70,Default,,0,0,0,,{\pos(1,1)\p1}m 0 0 l 9 0{\p0}drawn
"""
SUBRIP = [
    (0.08, 0.36, "hello & more"),
    (0.2, 0.5, "over\nlap"),
    (0.5, 0.56, "touching"),
    (0.64, 0.72, "last"),
]
# Of SubRip, as one line is shown at a time.
IN_TURN = [
    (0.08, 0.2, "hello & more"),
    (0.2, 0.36, "hello & more\nover\nlap"),
    (0.36, 0.5, "over\nlap"),
    (0.5, 0.56, "touching"),
    (0.64, 0.72, "last"),
]
TEXTS = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}


def make(folder: Path, name: str, codec: str, text: str, seconds: float = 0.8) -> Path:
    words = folder / f"words.{'ass' if text.startswith('[') else 'srt'}"
    words.write_text(text)
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d={seconds}", "-i", words]
    # Nothing before zero, so that times are what they are in the text.
    ffmpeg(
        *picture, "-map", "0", "-map", "1", "-preset", "ultrafast", "-bf", "0", "-c:s", codec, folder / name
    )
    return folder / name


def restored(source: Path, name: str, **options: Any) -> tuple[Path, list[str]]:
    target = source.with_name(name)
    preset = "8" if target.suffix == ".webm" else "ultrafast"
    return target, restore_unchanged(source, target, preset=preset, **options).warnings


def shown(path: Path) -> list[tuple[float, float, str]]:
    """Reads the lines that are shown, to the millisecond."""
    return [(round(line.start, 3), round(line.end, 3), line.text) for line in shown_text(path)]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(TEXTS, 2)))
@pytest.mark.parametrize("direct", [False, True])
def test_text_goes_from_any_container_to_any_other(
    before: str, after: str, direct: bool, tmp_path: Path
) -> None:
    source = make(tmp_path, f"in{before}", TEXTS[before], LINES)
    had = shown(source)
    target, warnings = restored(source, f"out{after}", direct=direct)
    if {before, after} in ({".mp4", ".mov"},) or after in (".mkv", ".webm"):
        assert shown(target) == had
    else:
        assert had == SUBRIP
        assert shown(target) == IN_TURN
    copied = {before, after} == {".mp4", ".mov"} or (before, after) == (".webm", ".mkv")
    assert any("subtitles" in line for line in warnings) != copied


@pytest.mark.parametrize("after", [".mp4", ".webm"])
def test_of_ass_stays_what_is_said_and_no_drawing(after: str, tmp_path: Path) -> None:
    target, warnings = restored(make(tmp_path, "in.mkv", "ass", ASS), f"out{after}")
    said = [text for *_, text in shown(target)]
    assert said == (
        ["a word, and\nanother\na sign", "drawn"]
        if after == ".mp4"
        else ["a word, and\nanother", "a sign", "drawn"]
    )
    assert sum("fonts, places and drawings are not kept" in line for line in warnings) == 1


def test_one_line_tells_of_many_tracks(tmp_path: Path) -> None:
    one = make(tmp_path, "one.mkv", "subrip", LINES)
    ffmpeg("-i", one, *["-map", "0", "-map", "0:s", "-map", "0:s"], "-c", "copy", tmp_path / "three.mkv")
    target, warnings = restored(tmp_path / "three.mkv", "out.mp4")
    assert sum("converted to mov_text" in line for line in warnings) == 1
    assert {line.stream for line in shown_text(target)} == {0, 1, 2}


@pytest.mark.parametrize("after", [".mkv", ".webm", ".mp4", ".mov"])
def test_languages_titles_and_marks_stay(after: str, tmp_path: Path) -> None:
    one = make(tmp_path, "one.mkv", "subrip", LINES)
    marks = ["-disposition:s:0", "0", "-disposition:s:1", "default+forced"]
    marks += ["-disposition:a:0", "0", "-disposition:a:1", "default"]
    words = ["-metadata:s:s:0", "language=fre", "-metadata:s:s:1", "language=jpn"]
    words += ["-metadata:s:s:1", "title=Signs", "-metadata:s:a:0", "language=swe"]
    tone = ["-f", "lavfi", "-i", "sine=d=0.8"]
    maps = ["-map", "0", "-map", "0:s", "-map", "1", "-map", "1"]
    ffmpeg("-i", one, *tone, *maps, "-c:v", "copy", "-c:s", "copy", *marks, *words, tmp_path / "in.mkv")
    target, warnings = restored(tmp_path / "in.mkv", f"out{after}", sound="convert")
    with av.open(str(target)) as file:
        texts, sounds = file.streams.subtitles, file.streams.audio
        assert texts[0].metadata["language"] in ("fre", "fra")
        assert texts[1].metadata["language"] == "jpn"
        assert sounds[0].metadata["language"] in ("swe", "sve")
        assert "Signs" in (texts[1].metadata.get("title"), texts[1].metadata.get("name"))
        assert [bool(s.disposition & Disposition.default) for s in (*texts, *sounds)] == [False, True] * 2
        forced = bool(texts[1].disposition & Disposition.forced)
    assert forced == (after != ".mov")
    assert any("not carried over" in line and "forced" in line for line in warnings) != forced
    # And from there back: .mp4 has another word for a title.
    back, _ = restored(target, "back.mkv")
    with av.open(str(back)) as file:
        assert file.streams.subtitles[1].metadata["title"] == "Signs"


def test_subtitles_that_are_pictures_are_left_out_and_said(tmp_path: Path) -> None:
    palette = tmp_path / "in.mkv"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.8"]
    ffmpeg(*picture, "-preset", "ultrafast", tmp_path / "bare.mkv")
    with av.open(str(tmp_path / "bare.mkv")) as before, av.open(str(palette), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        after.add_stream("dvbsub")
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                after.mux_one(packet)
    for ending in (".webm", ".mov"):
        _, warnings = restored(palette, f"out{ending}")
        assert any(
            "subtitle (pictures, not text)" in line and "(.mkv takes them)" in line for line in warnings
        )


def test_an_excerpt_takes_its_lines_along(tmp_path: Path) -> None:
    source = make(tmp_path, "in.mkv", "subrip", LINES)

    reading = Reading(start=Fraction(6, 25), duration=Fraction(9, 25))
    target, _ = restored(source, "out.mp4", reading=reading)
    assert shown(target) == [
        (0.0, 0.12, "hello & more\nover\nlap"),
        (0.12, 0.26, "over\nlap"),
        (0.26, 0.32, "touching"),
    ]


def test_many_lines_over_one_that_stays(tmp_path: Path) -> None:
    """Lines under a sign that is shown all the time: none is lost, nor the sign."""
    steps = [
        f"{n}\n00:00:0{n // 10},{n % 10}00 --> 00:00:0{n // 10},{n % 10}80\nline {n}\n" for n in range(1, 30)
    ]
    sign = "99\n00:00:00,000 --> 00:00:03,000\nsign\n"
    source = make(tmp_path, "in.mkv", "subrip", "\n".join([sign, *steps]), seconds=3.2)
    target, _ = restored(source, "out.mp4")
    lines = shown_text(target)
    assert [line.text for line in lines if "line" in line.text] == [f"sign\nline {n}" for n in range(1, 30)]
    assert sum(line.end - line.start for line in lines) == pytest.approx(3.0)
    assert all(isinstance(line, Subtitle) and "sign" in line.text for line in lines)


@pytest.mark.parametrize("ending", [".avi", ".flv", ".ts"])
def test_without_sound_nothing_is_said_of_what_sound_would_lose(
    measnet_run: Callable[..., Answer], tmp_path: Path, ending: str
) -> None:
    picture, tone = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.4"], ["-f", "lavfi", "-i", "sine=d=0.4"]
    words = ["-metadata:s:a:0", "language=fra", "-metadata:s:a:1", "language=deu"]
    maps = ["-map", "0", "-map", "1", "-map", "1", "-bf", "0", "-c:a", "flac"]
    ffmpeg(*picture, *tone, *maps, "-preset", "ultrafast", *words, tmp_path / "in.mkv")
    for more in (["--dry-run"], []):
        answer = measnet_run(tmp_path / "in.mkv", "-o", tmp_path / f"out{ending}", "--sound", "none", *more)
        assert answer.status == 0 and not re.search("language|audio|further|convert", answer.err), answer.err
        if more:
            assert "with it: nothing of the source's sound and subtitles" in answer.out
