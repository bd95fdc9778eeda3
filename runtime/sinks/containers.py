"""Containers: kinds of video files by the endings of their names, and what each can hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from measnet.errors import UsageError
from measnet.runtime.colour import Siting
from measnet.runtime.sinks.mp4_views import STEREO


@dataclass(frozen=True, slots=True)
class Container:
    """``muxer`` is FFmpeg's name for the format. ``codec`` is the usual one, ``deep_codec`` that for more
    than 8 bits: hardware players decode HEVC of 10 bits, and hardly any H.264.

    ``display_matrix``: it can say that players are to turn the picture. ``stereo``: how two views lie in
    one picture, as far as it can say it; ``spherical``: it can say that it is a view all around.
    ``pixel_shape``: it can say that pixels are not square, where the codec does not. ``even_pace``: it
    stores a frame number instead of a time, so frames must be evenly spaced. ``edit_list``: it can hold
    sound from before time zero (an encoder's run-up) without moving zero; ``opus_run_up``: that of Opus
    alone. ``chapters`` and ``attachments`` (fonts and the like): it takes them; ``covers``: it takes the
    file's cover picture, as a stream or as an attachment. ``languages``: it says which a stream is in;
    ``one_sound``: it holds no second stream of it. ``names`` are the metadata that it keeps, None for all.
    ``sound`` and ``subtitles`` are FFmpeg's decoders of what it takes, where its muxer would write
    anything, to be found again as nameless data; ``no_sound`` is how those begin that its muxer takes and
    players do not, or only out of time; ``sound_headers``: AAC needs its header apart from its packets.
    ``live``: it is watched while it is made, so nothing waits in the encoder, whoever joins late finds a key
    frame soon, and sound that has no place is left out, not refused.
    """

    muxer: str
    codec: str = "h264"
    deep_codec: str = "hevc"
    display_matrix: bool = False
    stereo: tuple[str, ...] = ()
    spherical: bool = False
    pixel_shape: bool = False
    even_pace: bool = False
    edit_list: bool = False
    opus_run_up: bool = False
    chapters: bool = False
    attachments: bool = False
    covers: Literal["no", "stream", "attachment"] = "no"
    languages: bool = True
    one_sound: bool = False
    names: frozenset[str] | None = None
    sound: frozenset[str] | None = None
    no_sound: tuple[str, ...] = ()
    sound_headers: bool = False
    subtitles: frozenset[str] | None = None
    live: bool = False


_STEREO = ("left_right", "right_left", "top_bottom", "bottom_top")
_INTERLEAVED = tuple(
    f"{kind}_{first}"
    for kind in ("block", "checkerboard", "row_interleaved", "col_interleaved")
    for first in ("lr", "rl")
)

_MPEG_TS = Container(
    "mpegts",
    # Its muxer makes the title the service's name.
    names=frozenset(("title", "service_name", "service_provider")),
    sound=frozenset(
        ("aac", "aac_latm", "ac3", "dca", "eac3", "libopus", "mp2", "mp2float", "mp3", "mp3float", "opus")
    ),
    subtitles=frozenset(("dvbsub", "libzvbi_teletextdec", "pgssub")),
)

# PCM in .mp4 is a late addition to the standard: FFmpeg before 6 plays it as noise, most players not at all.
_MP4 = Container(
    "mp4",
    display_matrix=True,
    stereo=tuple(STEREO),
    spherical=True,
    pixel_shape=True,
    edit_list=True,
    opus_run_up=True,
    chapters=True,
    covers="stream",
    no_sound=("pcm_",),
)

CONTAINERS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        "mov",
        display_matrix=True,
        stereo=tuple(STEREO),
        spherical=True,
        pixel_shape=True,
        edit_list=True,
        chapters=True,
    ),
    ".mkv": Container(
        "matroska",
        display_matrix=True,
        stereo=(*_STEREO, *_INTERLEAVED),
        opus_run_up=True,
        chapters=True,
        attachments=True,
        covers="attachment",
    ),
    ".webm": Container(
        "webm",
        codec="vp9",
        deep_codec="vp9",
        display_matrix=True,
        stereo=_STEREO,
        opus_run_up=True,
        chapters=True,
    ),
    ".avi": Container(
        "avi",
        deep_codec="h264",
        even_pace=True,
        languages=False,
        # Of these FFmpeg does not know how long a packet lasts, and the file has no other time.
        no_sound=("dca", "eac3", "flac", "libvorbis", "vorbis"),
        # RIFF has tags for these.
        names=frozenset(
            (
                "title",
                "artist",
                "album",
                "comment",
                "copyright",
                "date",
                "genre",
                "language",
                "product",
                "track",
            )
        ),
    ),
    ".flv": Container(
        "flv",
        deep_codec="h264",
        languages=False,
        one_sound=True,
        # Of others, FFmpeg 8 aborts the whole program over some.
        sound=frozenset(("aac", "mp3", "mp3float")),
        subtitles=frozenset(),
    ),
    ".ts": _MPEG_TS,
    ".mts": _MPEG_TS,
    ".m2ts": _MPEG_TS,
}

_SENT_AS_TS = replace(_MPEG_TS, muxer="nut", deep_codec="h264", subtitles=frozenset(), live=True)

_SENT_AS_RTP = replace(
    _SENT_AS_TS,
    names=frozenset(),
    sound=frozenset(("aac", "libopus", "opus", "pcm_alaw", "pcm_mulaw", "mp2", "mp3", "mp3float")),
    sound_headers=True,
)
_SENT_AS_FLV = replace(CONTAINERS[".flv"], muxer="nut", names=frozenset(), live=True)

SENT = {
    "rtsp": _SENT_AS_RTP,
    "rtsps": _SENT_AS_RTP,
    "rtmp": _SENT_AS_FLV,
    "rtmps": _SENT_AS_FLV,
    "srt": _SENT_AS_TS,
    "udp": _SENT_AS_TS,
    "tcp": _SENT_AS_TS,
}
"""The container for each scheme of an address. The process that sends gets it as NUT, which leaves packets as
they are."""

HLS = replace(_MPEG_TS, muxer="hls", deep_codec="h264", names=frozenset(), subtitles=frozenset(), live=True)
"""A playlist with its pieces, as browsers read it."""

LOOPBACK = Container("v4l2", codec="raw", sound=frozenset(), subtitles=frozenset(), live=True)
"""A camera made by v4l2loopback."""

_OF_PHONES_AND_CHATS = frozenset({".3gp", ".3g2", ".gif", ".wmv", ".asf"})


def ending_of_video(ending: str) -> str:
    """The ending of a result whose source has this one: the same where such files can be written; else
    ``.mp4`` for what phones and chats made, as these play it, and ``.mkv``, which takes nearly all."""
    if ending.lower() in CONTAINERS:
        return ending
    return ".mp4" if ending.lower() in _OF_PHONES_AND_CHATS else ".mkv"


@dataclass(frozen=True, slots=True)
class Codec:
    """``encoder`` is FFmpeg's name. ``options`` are set besides the quality and the preset.

    ``quality`` are the encoder's options that take the quality ``crf``; none for one that loses nothing
    or has its own idea. ``chroma`` is where decoders place the chroma samples of a stream that does not
    say. ``pixel_shape``: the encoded stream itself can say that pixels are not square. ``hardware``: the
    encoder is a chip, which this machine may lack. ``presets`` are all values of ``preset_option``; None
    where it is only the encoder that knows them.
    """

    encoder: str
    crf: int
    options: dict[str, str]
    quality: tuple[str, ...] = ("crf",)
    preset_option: str = "preset"
    odd_sizes: bool = False
    chroma: Siting = "left"
    pixel_shape: bool = False
    hardware: bool = False
    presets: tuple[str, ...] | None = None


_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
    "placebo",
)

CODECS = {
    "h264": Codec("libx264", 18, {}, pixel_shape=True, presets=_PRESETS),
    "hevc": Codec("libx265", 20, {"x265-params": "log-level=error"}, pixel_shape=True, presets=_PRESETS),
    "vp9": Codec(
        "libvpx-vp9",
        24,
        {"deadline": "good", "cpu-used": "4", "row-mt": "1"},
        preset_option="cpu-used",
        odd_sizes=True,
        chroma="centre",
        presets=tuple(str(number) for number in range(9)),
    ),
    "av1": Codec("libsvtav1", 24, {}, chroma="centre", presets=tuple(str(number) for number in range(14))),
    "prores": Codec(
        "prores_ks",
        0,
        {},
        quality=(),
        preset_option="profile",
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"),
    ),
    "ffv1": Codec("ffv1", 0, {"level": "3", "slicecrc": "1"}, quality=(), odd_sizes=True, presets=()),
}

# The encoders of graphics cards, by the ends of their names, as FFmpeg has them: h264_nvenc, hevc_qsv.
_HARDWARE: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "_nvenc": (("cq",), {"rc": "vbr", "b": "0"}),
    "_qsv": (("global_quality",), {}),
    "_amf": (("qp_i", "qp_p"), {"rc": "cqp"}),
}
_CHIPS = tuple(f"{codec}{family}" for family in _HARDWARE for codec in ("h264", "hevc", "av1"))

# Not for files: it has no quality to choose, and no other streams go with it.
_RAW = Codec("rawvideo", 0, {}, odd_sizes=True, chroma="centre", pixel_shape=True)


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
    if name in _CHIPS:
        return _on_a_chip(name)
    if name not in CODECS:
        raise UsageError(
            f"--codec {name} is not known; use one of {' '.join(CODECS)}, "
            f"or a graphics card's: {' '.join(_CHIPS)}"
        )
    return CODECS[name]


def check_preset(codec: Codec, preset: str) -> None:
    """Raises UsageError for a preset that the codec's encoder is known not to have."""
    if codec.presets is None or preset in codec.presets:
        return
    first, last = codec.presets[:1], codec.presets[-1:]
    numbers = f"a number from {''.join(first)} to {''.join(last)}" if first == ("0",) else ""
    has = f"it takes {numbers or ', '.join(codec.presets)}" if codec.presets else "it has none; leave it away"
    raise UsageError(f"--preset {preset} is none of {codec.encoder}: {has}")


def _on_a_chip(encoder: str) -> Codec:
    codec, family = encoder.split("_")
    quality, options = _HARDWARE[f"_{family}"]
    usual = CODECS[codec]
    return Codec(
        encoder,
        usual.crf,
        dict(options),
        quality,
        chroma=usual.chroma,
        pixel_shape=usual.pixel_shape,
        hardware=True,
    )
