"""Sources that have something of everything, and what ffprobe finds again in what became of them."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.subtitles.subtitle import AssSubtitle

from . import started_once
from .conftest import ffmpeg, restore_unchanged

UNEVEN = "setpts=(floor(N/3)*6+gte(mod(N\\,3)\\,1)+3*gte(mod(N\\,3)\\,2))/25/TB"
"""Frames after 40, 120 and 80 ms in turn."""

SOUNDS = {
    "AAC": "aac",
    "MP3": "libmp3lame",
    "AC-3": "ac3",
    "Opus": "libopus",
    "FLAC": "flac",
    "PCM": "pcm_s16le",
}
SUBTITLES = {"SubRip": "subrip", "ASS": "ass", "WebVTT": "webvtt"}
MIRRORED = (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)

_PICTURE = ["-f", "lavfi", "-i"]
_TAGS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


def _words(folder: Path) -> Path:
    path = folder / "words.srt"
    path.write_text("1\n00:00:00,050 --> 00:00:00,250\nhello\n")
    return path


def make_rich(folder: Path) -> Path:
    """Uneven times, oblong pixels, colour tags, six kinds of sound, three of subtitles, chapters, a font."""
    about, font, words = folder / "about.txt", folder / "font.ttf", _words(folder)
    about.write_text(
        ";FFMETADATA1\ntitle=a day\ncomment=rain\nmood=wet\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=160\ntitle=one\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=160\nEND=320\ntitle=two\n"
    )
    font.write_bytes(b"\0\1\0\0" + bytes(60))
    maps, codecs = ["-map", "0:v"], ["-c:v", "libx264", "-preset", "ultrafast"]
    for number, codec in enumerate(SOUNDS.values()):
        maps += ["-map", "1:a"]
        codecs += [f"-c:a:{number}", codec, f"-metadata:s:a:{number}", "language=deu"]
    for number, codec in enumerate(SUBTITLES.values()):
        maps += ["-map", "2:s"]
        codecs += [f"-c:s:{number}", codec]
    source = folder / "rich.mkv"
    inputs = [
        *_PICTURE,
        "testsrc2=s=96x64:r=25:d=0.24",
        *_PICTURE,
        "sine=d=0.32:r=48000",
        "-i",
        words,
        "-i",
        about,
    ]
    attach = ["-attach", font, "-metadata:s:t", "mimetype=font/ttf", "-metadata:s:t", "filename=font.ttf"]
    shape = ["-vf", f"{UNEVEN},setsar=16/11", "-fps_mode", "vfr"]
    ffmpeg(*inputs, *maps, "-map_metadata", "3", *shape, *_TAGS, *codecs, *attach, source)
    return source


def make_turned(folder: Path) -> Path:
    """29.97 frames a second, shown turned, AAC that begins before zero, text as MP4 has it."""
    straight, turned, words = folder / "straight.mp4", folder / "turned.mp4", _words(folder)
    inputs = [*_PICTURE, "testsrc2=s=96x64:r=30000/1001:d=0.2", *_PICTURE, "sine=d=0.2", "-i", words]
    ffmpeg(*inputs, "-preset", "ultrafast", "-c:s", "mov_text", straight)
    ffmpeg("-i", straight, "-map", "0", "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    return turned


def make_mirrored(folder: Path) -> Path:
    """10 bits, 4:2:2, and shown in a mirror; FFmpeg's own program cannot say that before version 6."""
    straight, mirrored = folder / "deep.mov", folder / "mirrored.mov"
    options = ["-preset", "ultrafast", "-pix_fmt", "yuv422p10le"]
    ffmpeg(*_PICTURE, "testsrc2=s=96x64:r=25:d=0.2", *options, straight)
    with av.open(str(straight)) as before, av.open(str(mirrored), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        stream.set_display_matrix(MIRRORED)
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                after.mux_one(packet)
    return mirrored


def make_covered(folder: Path) -> Path:
    """4:4:4, and a cover picture."""
    straight, cover, covered = folder / "full.mp4", folder / "cover.png", folder / "covered.mp4"
    ffmpeg(*_PICTURE, "testsrc2=s=96x64:r=25:d=0.2,format=yuv444p", "-preset", "ultrafast", straight)
    ffmpeg("-i", straight, "-frames:v", "1", cover)
    maps = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic"]
    ffmpeg("-i", straight, "-i", cover, *maps, covered)
    return covered


def make_noted(folder: Path) -> Path:
    """A cover picture, attached, and metadata of one's own naming."""
    straight, cover, noted = folder / "plain.mp4", folder / "noted.png", folder / "noted.mkv"
    ffmpeg(*_PICTURE, "testsrc2=s=96x64:r=25:d=0.2", "-preset", "ultrafast", straight)
    ffmpeg("-i", straight, "-frames:v", "1", cover)
    attach = ["-attach", cover, "-metadata:s:t", "mimetype=image/png", "-metadata:s:t", "filename=cover.png"]
    ffmpeg("-i", straight, "-c", "copy", *attach, "-metadata", "mood=wet", noted)
    return noted


SOURCES: dict[str, Callable[[Path], Path]] = {
    "rich": make_rich,
    "turned": make_turned,
    "mirrored": make_mirrored,
    "covered": make_covered,
    "noted": make_noted,
}


@dataclass
class Pair:
    """A source, what became of it, and what was said."""

    before: Path
    after: Path
    warnings: list[str]

    def said(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.warnings)

    def both(self, look: Callable[[Path], Any]) -> tuple[Any, Any]:
        return look(self.before), look(self.after)


def restore(source: Path, ending: str) -> Pair:
    target = source.with_name(f"{source.stem}.out{ending}")
    preset = "8" if ending == ".webm" else "ultrafast"
    outcome = restore_unchanged(source, target, sound="convert", preset=preset)
    return Pair(source, target, outcome.warnings)


@functools.cache
def details(path: Path) -> dict[str, Any]:
    """Streams, chapters, programs, format, the packets with their hashes, and the frames' times."""
    shown = [
        "-show_streams",
        "-show_chapters",
        "-show_programs",
        "-show_format",
        "-show_packets",
        "-show_frames",
    ]
    command = ["ffprobe", "-v", "quiet", "-of", "json", *shown, "-show_data_hash", "md5", str(path)]
    found: dict[str, Any] = json.loads(started_once.run(*command).stdout)
    return found


def picture(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = details(path)["streams"][0]
    return found


def times(path: Path) -> list[Fraction]:
    unit = Fraction(picture(path)["time_base"])
    frames = (
        f for f in details(path)["packets_and_frames"] if f["type"] == "frame" and f["stream_index"] == 0
    )
    return [frame["best_effort_timestamp"] * unit for frame in frames]


def tags(path: Path) -> list[str]:
    keys = ("color_space", "color_primaries", "color_transfer", "color_range")
    return [picture(path).get(key, "unknown") for key in keys]


def matrix(path: Path) -> str:
    return "".join(data.get("displaymatrix", "") for data in picture(path).get("side_data_list", []))


def packets(path: Path, kind: str, codec: str) -> list[str]:
    """The hashes of all packets of the streams of a codec."""
    numbers = [
        s["index"]
        for s in details(path)["streams"]
        if (s["codec_type"], s.get("codec_name")) == (kind, codec)
    ]
    both = details(path)["packets_and_frames"]
    return [p["data_hash"] for p in both if p["type"] == "packet" and p["stream_index"] in numbers]


def words(path: Path) -> dict[str, str]:
    """The metadata of the file, by names in small letters."""
    return {key.lower(): value for key, value in details(path)["format"].get("tags", {}).items()}


def languages(path: Path) -> set[str]:
    sound = (s for s in details(path)["streams"] if s["codec_type"] == "audio")
    return {stream.get("tags", {}).get("language", "none") for stream in sound}


@dataclass(frozen=True)
class Subtitle:
    """One row of text of a stream of subtitles, and when it is shown, in seconds."""

    stream: int
    start: float
    end: float
    text: str


def shown_text(path: Path) -> list[Subtitle]:
    """All subtitles that are text, in order of storage; rows of one are told apart by line feeds."""
    found = []
    with av.open(str(path)) as file:
        texts = {s.index: s for s in file.streams.subtitles if s.codec_context.codec.text_sub}
        numbers = list(texts)
        for packet in file.demux(*texts.values()) if texts else ():
            if packet.pts is None:
                continue
            start, lasts = packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base
            shown = texts[packet.stream.index].codec_context.decode2(packet)
            for row in shown or ():
                assert isinstance(row, AssSubtitle)
                text = re.sub(r"\{.*?\}", "", row.dialogue.decode()).replace("\r", "")
                number = numbers.index(packet.stream.index)
                found.append(Subtitle(number, float(start), float(start + lasts), text))
    return found


def subtitles(path: Path) -> set[str]:
    return {subtitle.text for subtitle in shown_text(path)}
