"""What each kind of video file can hold, by the ending of its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.colour import Siting


@dataclass(frozen=True, slots=True)
class Container:
    """``muxer`` is FFmpeg's name for the format. ``codec`` is the usual one, ``deep_codec`` that for more
    than 8 bits: hardware players decode HEVC of 10 bits, and hardly any H.264.

    ``display_matrix``: it can say that players are to turn the picture. ``even_pace``: it
    stores a frame number instead of a time, so frames must be evenly spaced. ``edit_list``: it
    can hold sound from before time zero (an encoder's run-up) without moving zero. ``attachments``:
    it takes fonts and the like. ``sound`` and ``subtitles`` are FFmpeg's decoders of what it takes, where its
    muxer would write anything, to be found again as nameless data.
    """

    muxer: str
    codec: str = "h264"
    deep_codec: str = "hevc"
    display_matrix: bool = False
    even_pace: bool = False
    edit_list: bool = False
    attachments: bool = False
    sound: frozenset[str] | None = None
    subtitles: frozenset[str] | None = None


_MPEG_TS = Container(
    "mpegts",
    sound=frozenset(
        ("aac", "aac_latm", "ac3", "dca", "eac3", "libopus", "mp2", "mp2float", "mp3", "mp3float", "opus")
    ),
    subtitles=frozenset(("dvbsub", "libzvbi_teletextdec", "pgssub")),
)

CONTAINERS = {
    ".mp4": Container("mp4", display_matrix=True, edit_list=True),
    ".m4v": Container("mp4", display_matrix=True, edit_list=True),
    ".mov": Container("mov", display_matrix=True, edit_list=True),
    ".mkv": Container("matroska", display_matrix=True, attachments=True),
    ".webm": Container("webm", codec="vp9", deep_codec="vp9", display_matrix=True),
    ".avi": Container("avi", deep_codec="h264", even_pace=True),
    ".ts": _MPEG_TS,
    ".mts": _MPEG_TS,
    ".m2ts": _MPEG_TS,
}

# Where the input's own kind cannot be written: takes the audio of nearly every other kind.
FALLBACK_ENDING = ".mkv"


@dataclass(frozen=True, slots=True)
class Codec:
    """``encoder`` is FFmpeg's name. ``options`` come beside the quality and the preset.

    ``chroma`` is where decoders place the chroma samples of a stream that does not say.
    """

    encoder: str
    crf: int
    options: dict[str, str]
    preset_option: str = "preset"
    odd_sizes: bool = False
    chroma: Siting = "left"


CODECS = {
    "h264": Codec("libx264", 18, {}),
    "hevc": Codec("libx265", 20, {"x265-params": "log-level=error"}),
    "vp9": Codec(
        "libvpx-vp9",
        24,
        {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
        preset_option="cpu-used",
        odd_sizes=True,
        chroma="centre",
    ),
    "av1": Codec("libsvtav1", 24, {}, chroma="centre"),
}

# Not for files: no quality to choose, no packets to copy in beside it.
_RAW = Codec("rawvideo", 0, {}, odd_sizes=True, chroma="centre")


def container_for(target: Path) -> Container:
    """The container for a file name. Raises UsageError for an ending not known."""
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        known = " ".join(CONTAINERS)
        raise UsageError(
            f"{target}: cannot tell what to write from the ending '{target.suffix}'; use one of {known}"
        ) from None


def codec_for(container: Container, name: str | None, bits: int = 8) -> Codec:
    """The codec asked for, or the container's usual one for ``bits`` per channel. Raises UsageError."""
    if container.codec == "raw":
        return _RAW
    if name is None:
        return CODECS[container.codec if bits <= 8 else container.deep_codec]
    if name not in CODECS:
        raise UsageError(f"--codec {name} is not known; use one of {' '.join(CODECS)}")
    return CODECS[name]
