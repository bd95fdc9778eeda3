"""docs/files.md: every cell of its tables is what a run does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from measnet.errors import UsageError
from measnet.runtime.colour import yuv_format
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.containers import CONTAINERS, codec_for
from measnet.runtime.sinks.encoder import PictureEncoding

from .conftest import ffmpeg, probe, restore_unchanged
from .kept import (
    SOURCES,
    SUBTITLES,
    Pair,
    details,
    languages,
    matrix,
    packets,
    picture,
    restore,
    subtitles,
    tags,
    times,
    words,
)

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
Restored = Callable[[str, str], Pair]


def table(first: str) -> dict[str, dict[str, str]]:
    """The table whose heading begins with ``first``: rows by their first cell, cells by their heading."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    ]
    heading = rows[0][1:]
    return {row[0]: dict(zip(heading, row[1:], strict=True)) for row in rows[2:]}


def steps(path: Path) -> list[Fraction]:
    return [b - a for a, b in itertools.pairwise(times(path))]


def is_kept(pair: Pair, look: Callable[[Path], object]) -> bool:
    before, after = pair.both(look)
    return bool(before == after and before)


def of_times(pair: Pair) -> str:
    before, after = pair.both(steps)
    if before == after:
        return "yes"
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= Fraction(1, 25)
    return "rounded" if pair.said("were rounded") else "lost"


def of_run_up(pair: Pair) -> str:
    if pair.said("was converted"):
        return "-"
    before, after = pair.both(times)
    if before == after:
        return "late sound" if pair.said("sound lies 0.023 s later") else "yes"
    return "moved" if pair.said("0.023 s later") else "lost"


def of_turning(pair: Pair) -> str:
    if is_kept(pair, matrix):
        return "yes"
    sizes = {(picture(path)["width"], picture(path)["height"]) for path in (pair.before, pair.after)}
    assert len(sizes) == (2 if "turned" in pair.before.name else 1)
    return "turned" if not matrix(pair.after) and pair.said("pixels themselves were turned") else "lost"


def of_shape(pair: Pair) -> str:
    if is_kept(pair, lambda path: picture(path)["sample_aspect_ratio"]):
        return "yes"
    return "no" if pair.said("not carried over", "shape of 16:11") else "lost"


def of_depth(pair: Pair) -> str:
    bits = {path: "10" in picture(path)["pix_fmt"] for path in (pair.before, pair.after)}
    if all(bits.values()):
        return "yes"
    return "8 bits" if pair.said("written in 8 bits") else "lost"


def of_chroma(pair: Pair) -> str:
    before, after = pair.both(lambda path: re.search(r"4\d\d", picture(path)["pix_fmt"]))
    return "yes" if before[0] == after[0] else "lost"


def of_sound(name: str) -> Callable[[Pair], str]:
    codec = {"AC-3": "ac3", "PCM": "pcm_s16le"}.get(name, name.lower())

    def look(pair: Pair) -> str:
        before, after = pair.both(lambda path: packets(path, "audio", codec))
        if pair.said("further audio", "left out"):
            return "yes" if before == after else "one"
        if pair.said(f"source's {codec}", "was converted"):
            return "convert"
        if len(before) <= len(after) and name == "AAC" and pair.after.suffix == ".ts":
            return "framed"
        # What was converted to the same codec comes after.
        return "yes" if before and all(packet in after for packet in before) else "lost"

    return look


def of_languages(pair: Pair) -> str:
    if languages(pair.after) in ({"deu"}, {"ger"}):
        return "yes"
    return "no" if pair.said("not carried over", "languages") else "lost"


def of_subtitles(codec: str) -> Callable[[Pair], str]:
    def look(pair: Pair) -> str:
        before, after = pair.both(lambda path: packets(path, "subtitle", codec))
        # What was converted to the same codec is there, too.
        if before and all(packet in after for packet in before):
            return "yes"
        if pair.said(f"source's {codec} subtitles", "converted"):
            return "text" if "hello" in subtitles(pair.after) else "lost"
        return "no" if pair.said("subtitle", "left out") else "lost"

    return look


def of_chapters(pair: Pair) -> str:
    def chapters(path: Path) -> list[tuple[str, str]]:
        return [(c["start_time"], c["tags"]["title"]) for c in details(path)["chapters"]]

    if is_kept(pair, chapters):
        return "yes"
    return "no" if not chapters(pair.after) and pair.said("not carried over", "2 chapters") else "lost"


def of_title(pair: Pair) -> str:
    if words(pair.after).get("title") == "a day":
        return "yes"
    names = [program["tags"]["service_name"] for program in details(pair.after)["programs"]]
    return "service" if names == ["a day"] and pair.said("title", "service") else "lost"


def of_word(name: str) -> Callable[[Pair], str]:
    def look(pair: Pair) -> str:
        if words(pair.after).get(name) == words(pair.before)[name]:
            return "yes"
        return "no" if pair.said("not carried over", name.upper()) else "lost"

    return look


def of_fonts(pair: Pair) -> str:
    if any(stream["codec_type"] == "attachment" for stream in details(pair.after)["streams"]):
        return "yes"
    return "no" if pair.said("attachment", "left out") else "lost"


def cover_of(path: Path) -> list[str]:
    """The hashes of the cover pictures' bytes."""
    streams = {s["index"] for s in details(path)["streams"] if s["disposition"]["attached_pic"]}
    both = details(path)["packets_and_frames"]
    return [p["data_hash"] for p in both if p["type"] == "packet" and p["stream_index"] in streams]


def of_cover(pair: Pair) -> str:
    said = pair.said("not carried over", "cover picture")
    if not cover_of(pair.after):
        return "no" if said else "lost"
    assert cover_of(pair.after) == cover_of(pair.before) and not said
    return "yes"


CHECKS: dict[str, tuple[str, Callable[[Pair], str]]] = {
    "uneven frame times, in whole milliseconds": ("rich", of_times),
    "finer times (29.97 frames a second)": ("turned", of_times),
    "sound that begins before zero (AAC)": ("turned", of_run_up),
    "turning by 90°": ("turned", of_turning),
    "mirroring": ("mirrored", of_turning),
    "shape of the pixels": ("rich", of_shape),
    "matrix, primaries, transfer, range": ("rich", lambda pair: "yes" if is_kept(pair, tags) else "lost"),
    "10 bits": ("mirrored", of_depth),
    "4:2:2": ("mirrored", of_chroma),
    "4:4:4": ("covered", of_chroma),
    **{f"{name} sound": ("rich", of_sound(name)) for name in ("AAC", "MP3", "AC-3", "Opus", "FLAC", "PCM")},
    "languages of sound": ("rich", of_languages),
    **{f"{name} subtitles": ("rich", of_subtitles(codec)) for name, codec in SUBTITLES.items()},
    "MP4's own subtitles": ("turned", of_subtitles("mov_text")),
    "chapters": ("rich", of_chapters),
    "title": ("rich", of_title),
    "comment": ("rich", of_word("comment")),
    "metadata of one's own naming": ("rich", of_word("mood")),
    "attached fonts": ("rich", of_fonts),
    "cover picture": ("covered", of_cover),
    "cover picture beside metadata of one's own naming": ("noted", of_cover),
}
CONTAINER_ROWS = table("kept")
SOURCE_ROWS = table("source")


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Restored:
    """Each source restored into each container, once."""
    folder = tmp_path_factory.mktemp("files")
    made: dict[str, Path] = {}
    pairs: dict[tuple[str, str], Pair] = {}

    def give(name: str, ending: str) -> Pair:
        if name not in made:
            made[name] = SOURCES[name](folder)
        if (name, ending) not in pairs:
            pairs[name, ending] = restore(made[name], ending)
        return pairs[name, ending]

    return give


def test_every_row_has_its_check() -> None:
    assert list(CONTAINER_ROWS) == list(CHECKS)
    assert list(SOURCE_ROWS) == list(KINDS)


@pytest.mark.parametrize("ending", next(iter(CONTAINER_ROWS.values())))
@pytest.mark.parametrize("row", CONTAINER_ROWS)
def test_a_container_keeps_what_the_page_says(row: str, ending: str, restored: Restored) -> None:
    source, look = CHECKS[row]
    assert look(restored(source, ending)) == CONTAINER_ROWS[row][ending]


X264 = ["-c:v", "libx264", "-preset", "ultrafast"]
KINDS: dict[str, tuple[str, list[str]]] = {
    "H.264 in .mp4, fragmented": ("a.mp4", [*X264, "-movflags", "frag_keyframe+empty_moov"]),
    "H.264 with B-frames and an edit list in .mp4": ("b.mp4", ["-bf", "3", *X264, "-bf", "3"]),
    "H.264 whose picture begins late in .mp4": ("c.mp4", X264),
    "H.264 in .flv": ("d.flv", X264),
    "H.264 in .m2ts": ("e.m2ts", X264),
    "HEVC in .mp4": ("f.mp4", ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"]),
    "AV1 in .mp4": ("g.mp4", ["-an", "-c:v", "libsvtav1", "-preset", "12"]),
    "VP9 in .webm": ("h.webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"]),
    "VP8 in .webm": ("i.webm", ["-c:v", "libvpx", "-c:a", "libvorbis"]),
    "MPEG-2 in .ts": ("j.ts", ["-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"]),
    "MPEG-4 in .avi": ("k.avi", ["-c:v", "mpeg4", "-c:a", "mp3"]),
    "MPEG-4 with B-frames in .mp4": ("l.mp4", ["-c:v", "mpeg4", "-bf", "2"]),
    "ProRes in .mov": ("m.mov", ["-c:v", "prores_ks", "-c:a", "pcm_s16le"]),
    "MJPEG in .avi": ("n.avi", ["-c:v", "mjpeg", "-c:a", "pcm_s16le"]),
    "FFV1 in .mkv, without a length": ("o.mkv", ["-c:v", "ffv1", "-c:a", "flac", "-live", "1"]),
    "H.264 recordings strung together in .ts": ("p.ts", X264),
}
"""How ffmpeg makes each source of the page's second table, of 8 frames and a tone."""


def make(row: str, folder: Path) -> Path:
    name, arguments = KINDS[row]
    path = folder / name
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.32", "-f", "lavfi", "-i", "sine=d=0.32:r=48000"]
    if "strung together" in row:
        ffmpeg(*(word.replace("0.32", "1.2") for word in inputs), *arguments, path)
        path.write_bytes(path.read_bytes() * 2)
    elif "edit list" in row:
        ffmpeg(*(word.replace("0.32", "1.2") for word in inputs), *arguments, "-g", "5", folder / "whole.mp4")
        ffmpeg("-ss", "0.5", "-i", folder / "whole.mp4", "-t", "0.4", "-c", "copy", path)
        assert len(packets(path, "video", "h264")) > len(times(path)) > 0
    elif "begins late" in row:
        early = folder / "early.mp4"
        ffmpeg(*inputs, *arguments, early)
        both = ["-itsoffset", "0.3", "-i", early, "-i", early, "-map", "0:v", "-map", "1:a"]
        ffmpeg(*both, "-c", "copy", path)
    else:
        ffmpeg(*inputs, *arguments, path)
    return path


@pytest.mark.parametrize("row", SOURCE_ROWS)
def test_a_kind_of_source_comes_out_whole(row: str, tmp_path: Path) -> None:
    source = make(row, tmp_path)
    target = tmp_path / f"out{source.suffix}"
    outcome = restore_unchanged(source, target, preset="8" if source.suffix == ".webm" else "ultrafast")
    pair = Pair(source, target, outcome.warnings)
    kept = "yes" if is_kept(pair, times) else "lost"
    before, after = pair.both(lambda path: probe(path).copied)
    sound = "-" if not before else "yes" if before == after else "lost"
    if pair.said("jump back"):
        assert steps(target) == [Fraction(1, 25)] * 59
        assert before == after
        kept = sound = "joined"
    assert {"frames and times": kept, "sound": sound} == SOURCE_ROWS[row]


def test_codecs_take_the_bits_and_chroma_that_the_page_says() -> None:
    info = StreamInfo("x", "video", 96, 64, Fraction(1, 25))
    for name, row in table("`--codec`").items():
        codec = codec_for(CONTAINERS[".mkv"], name.strip("`"))
        taken = set()
        for chroma, bits in itertools.product(("420", "422", "444"), (8, 10, 12, 16)):
            wanted = yuv_format(chroma, bits)  # type: ignore[arg-type]  # one of the three
            try:
                encoding = PictureEncoding(
                    Path("x.mkv"),
                    CONTAINERS[".mkv"],
                    info,
                    Encoding(codec=name.strip("`"), pixel_format=wanted),
                )
            except UsageError as error:
                assert codec.encoder in str(error)
                continue
            assert encoding.pixel_format == wanted
            taken.add((chroma, bits))
        chromas = [chroma.replace(":", "") for chroma in row["chroma"].split()]
        assert taken == set(itertools.product(chromas, map(int, row["bits"].split()))), name
