"""Muxer of a video file: encoded pictures, and copies of the source's other streams."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from measnet.errors import OutputError, UsageError
from measnet.file_name import for_ffmpeg
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Sound
from measnet.runtime.sinks.aside import writing
from measnet.runtime.sinks.containers import CONTAINERS, Container
from measnet.runtime.sinks.encoder import PictureEncoder, PictureEncoding
from measnet.runtime.sinks.mp4_views import add_views, views_of
from measnet.runtime.sinks.sound import AviSound, ConvertedSound
from measnet.runtime.sinks.subtitles import ConvertedSubtitles, text_codec
from measnet.runtime.sinks.target import Target, named

if TYPE_CHECKING:
    from av.stream import Stream

# Written by the muxer about the file it makes; the source's own would be untrue of it.
_MUXER_METADATA = frozenset(
    {"encoder", "software", "major_brand", "minor_version", "compatible_brands", "duration"}
)

_OPUS = ("opus", "libopus")

# The metadata that MP4 and MOV have fields for; for any other they take names of one's own, as phones write.
_MP4_FIELDS = frozenset(
    {
        *("title", "artist", "album", "album_artist", "composer", "comment", "copyright", "date"),
        *("description", "genre", "grouping", "keywords", "lyrics", "make", "model", "location", "show"),
        *("synopsis", "track", "disc", "creation_time", "timecode"),
    }
)
# Metadata of the picture's stream that is still true of the encoded one.
_PICTURE_METADATA = frozenset({"language", "title", "creation_time", "timecode", "comment"})
# Where decoding times before zero move all others; others store them apart, or none.
_DECODING_FROM_ZERO = ("mpegts", "flv")
# QuickTime has its own list of languages, by the names that FFmpeg knows them by there. Of ISO 639-2, which
# has two names for some of them:
_QUICKTIME_NAMES = {
    **{"bod": "tib", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "hye": "arm", "isl": "ice"},
    **{"kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "sqi": "alb", "zho": "chi"},
    **{"fre": "fra", "cze": "ces", "rum": "ron", "slo": "slk"},
    **{"fao": "fo ", "fas": "iri", "hrv": "hr ", "nob": "nor", "pan": "pa ", "per": "iri", "srp": "sr "},
    **{"swe": "sve"},
}
# How cover pictures are stored: FFmpeg's decoder for one, the ending of its file, and its MIME type.
_COVER_FILES = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png"), "bmp": ("bmp", "image/bmp")}
_TIMECODE = ("mp4", "mov", "matroska")
# Where subtitles can be marked to be shown to whoever asks for none.
_FORCED = ("mp4", "matroska", "webm")
# In microseconds.
_LIVE_INTERLEAVE = "500000"
RUN_UP = Fraction(2, 25)
"""Seconds that decoders of sound need before the first that is heard. Opus takes most."""


class Muxer:
    """One video file on its way to disk; the file itself begins with the first packet.

    Args:
        path: where it grows, or what takes its bytes.
        target: the name it will bear, for messages.
        kind: of container.
        info: what belongs to the source and is to survive.
        encoding: of the picture; and whether sound is copied, converted or left out.
        in_order: packets will come in the order of their times over all streams.
        options: for FFmpeg's muxer.

    ``encoder`` makes packets for it. ``warnings`` are lines for the user. ``carried`` are the kinds of the
    source's other streams that come along.

    Raises:
        UsageError: the container cannot hold the source's audio or the codec.
        OutputError: the encoder refuses the picture.
    """

    def __init__(
        self,
        path: Path | BinaryIO,
        target: Target,
        kind: Container,
        info: StreamInfo,
        encoding: PictureEncoding,
        *,
        in_order: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self.carried: list[str] = []
        self._path = path
        self._target = target
        self._kind = kind
        self._info = info
        self._rounded = 0
        self._packets_left_out = 0
        self._covers_kept = 0
        self._languages = self._forced = False
        self._converted: dict[int, ConvertedSound] = {}
        self._texts: dict[int, ConvertedSubtitles] = {}
        self._run_up = Fraction(0)
        self._begun: set[int] = set()
        self._headers: dict[int, BitStreamFilterContext] = {}
        self._avi_sound = AviSound() if kind.even_pace else None
        self._container = self._open(in_order, options or {})
        try:
            self.stream = self._add_picture(encoding)
            self.encoder: PictureEncoder = encoding.open(self.stream.codec_context)
            self._copies = self._add_copies(encoding.sound)
            self._covers = self._add_covers()
            self._container.metadata.update(_kept_names(kind, info))
            if kind.chapters:
                self._container.set_chapters(list(info.chapters))
            self._tell_of_losses(encoding)
        except BaseException:
            self.close_anyhow()
            raise

    def mux_picture(self, packets: Iterable[Packet[Any]]) -> None:
        """Write encoded pictures, in the order of their decoding times. Raises OutputError."""
        with writing(self._target):
            for packet in packets:
                seconds = (packet.pts or 0) * packet.time_base
                if packet.dts is not None and self._kind.muxer in _DECODING_FROM_ZERO:
                    self._run_up = min(self._run_up, packet.dts * packet.time_base)
                packet.stream = self.stream
                if packet.dts is not None:
                    self._mux_texts(packet.dts * packet.time_base)
                self.put(packet)
                # The container settles its own time base when it begins.
                if self.stream.time_base is not None:
                    self._rounded += (seconds / self.stream.time_base).denominator != 1
                self._mux_covers()

    def mux_copy(self, packet: Packet[Stream]) -> None:
        """Write a packet of one of the source's other streams. Raises OutputError."""
        converted = self._converted.get(packet.stream.index)
        if converted is not None:
            self._mux_converted(converted, packet)
            return
        text = self._texts.get(packet.stream.index)
        if text is not None:
            with writing(self._target):
                for encoded in text.encoded(packet):
                    self.put(encoded)
            return
        copy = self._copies.get(packet.stream.index)
        if copy is None or (copy.type != "video" and packet.is_discard and not self._is_run_up(packet)):
            return
        if not packet.is_discard:
            self._begun.add(packet.stream.index)
        self._note_run_up(packet, copy)
        index, packet.stream = packet.stream.index, copy
        with writing(self._target):
            try:
                if self._avi_sound is not None and copy.type == "audio":
                    self._container.start_encoding()  # settles what it counts
                    self._avi_sound.place(packet, copy)
                for out in self._without_headers(packet, index):
                    self.put(out)
            except ArgumentError:
                # A packet whose times run backwards: no container takes it.
                self._packets_left_out += 1

    def begin(self) -> None:
        """Write what comes before the first packet. Raises FFmpegError."""
        self._container.start_encoding()

    def put(self, packet: Packet[Any]) -> None:
        """Write one packet of any stream. Raises FFmpegError."""
        self._container.mux_one(packet)

    def close(self) -> None:
        """Complete the file. Raises OutputError."""
        for converted in self._converted.values():
            self._mux_converted(converted, None)
        with writing(self._target):
            self._mux_texts(None)
            self._container.close()
            if not isinstance(self._path, Path):
                return
            if self._avi_sound is not None:
                self._avi_sound.complete(self._path)
            if self._kind.muxer in ("mp4", "mov") and (boxes := views_of(self._info)):
                add_views(self._path, boxes)

    def _without_headers(self, packet: Packet[Any], index: int) -> list[Packet[Any]]:
        """The packet as MP4 has it, where each brought the header of AAC along."""
        filtering = self._headers.get(index)
        if filtering is None:
            return [packet]
        stream, time_base = packet.stream, packet.time_base
        filtered = filtering.filter(packet)
        for out in filtered:
            out.stream, out.time_base = stream, time_base
        return filtered

    def _mux_converted(self, converted: ConvertedSound, packet: Packet[Stream] | None) -> None:
        with writing(self._target):
            for encoded in converted.encoded(packet):
                self._note_run_up(encoded, converted.stream)
                self.put(encoded)

    def _mux_texts(self, moment: Fraction | None) -> None:
        """Write the subtitles that begin before a moment. Raises FFmpegError."""
        for text in self._texts.values():
            for packet in text.due(moment):
                self.put(packet)

    def _is_run_up(self, packet: Packet[Stream]) -> bool:
        """Says whether a packet that an edit list cuts out is a run-up, hidden before all others."""
        start = packet.pts or 0
        near = (start + (packet.duration or 0)) * packet.time_base > -RUN_UP
        return packet.stream.index not in self._begun and start < 0 and (near or self._kind.edit_list)

    def _note_run_up(self, packet: Packet[Stream], stream: Stream) -> None:
        counted = self._kind.opus_run_up and stream.name in _OPUS
        if packet.pts is not None and packet.pts < 0 and not counted:
            self._run_up = min(self._run_up, packet.pts * packet.time_base)

    def close_anyhow(self) -> None:
        """Let go of a file that is not wanted."""
        with contextlib.suppress(FFmpegError):
            self._container.close()

    def losses(self, times_rounded: int) -> list[str]:
        """Lines on what the container could not hold. ``times_rounded`` were so before they came here."""
        lines = []
        if times_rounded or self._rounded:
            lines.append(
                f"{named(self._target)} count time in steps of {self.stream.time_base} s; "
                "the source's finer times were rounded to that"
            )
        if self._run_up and self._kind.even_pace:
            lines.append(
                f"{named(self._target)} cannot begin before time zero, as the run-up of its sound "
                f"does: the sound lies {float(-self._run_up):.3f} s later"
            )
        elif self._run_up and not self._kind.edit_list:
            lines.append(
                f"{named(self._target)} cannot begin before time zero, as the run-up of sound or of "
                f"pictures stored early does: every time lies {float(-self._run_up):.3f} s later"
            )
        if self._packets_left_out:
            lines.append(
                f"{self._packets_left_out} audio or subtitle packets were left out: their times run backwards"
            )
        if damaged := sum(converted.damaged for converted in self._converted.values()):
            lines.append(f"{damaged} audio packets could not be decoded, and are silent")
        if damaged := sum(text.damaged for text in self._texts.values()):
            lines.append(f"{damaged} subtitles could not be decoded, and were left out")
        return lines

    def _tell_of_losses(self, encoding: PictureEncoding) -> None:
        """Warns of what such a file cannot say, and the source does."""
        kind, info = self._kind, self._info
        lost = []
        if len(info.covers) > self._covers_kept:
            lost.append("the cover picture")
        if info.chapters and not kind.chapters:
            lost.append(f"{len(info.chapters)} chapters")
        names = [name for name in _names(info) if name not in _kept_names(kind, info)]
        if kind.muxer not in _TIMECODE and "timecode" in {k.lower() for k in info.picture_metadata}:
            names.append("timecode")
        if names:
            lost.append(f"metadata ({', '.join(names)})")
        if self._languages and not kind.languages:
            lost.append("the languages of sound and subtitles")
        if self._forced and kind.muxer not in _FORCED:
            lost.append("that subtitles are forced")
        aspect = info.sample_aspect
        if aspect is not None and aspect != 1 and not (kind.pixel_shape or encoding.codec.pixel_shape):
            lost.append(
                f"the pixels' shape of {aspect.numerator}:{aspect.denominator}, players show them square"
            )
        if lost:
            self.warnings.append(
                f"not carried over, as {named(self._target)} with {encoding.codec.encoder} have no "
                f"place for it: {'; '.join(lost)}"
            )
        if kind.muxer == "mpegts" and "title" in {k.lower() for k in info.metadata}:
            self.warnings.append(f"the title is the service's name in {named(self._target)}")

    def _open(self, in_order: bool, given: Mapping[str, str]) -> OutputContainer:
        options: dict[str, str] = {}
        if self._kind.live or self._info.kind == "live":
            # A camera whose sound ends must not hold up its picture.
            options["max_interleave_delta"] = _LIVE_INTERLEAVE
        elif not in_order:
            # Audio waits in memory for the encoder's look-ahead instead of overtaking the picture.
            options["max_interleave_delta"] = "0"
        if self._kind.muxer == "mpegts":
            options["mpegts_copyts"] = "1"
        if self._kind.even_pace:
            # Sound is as long as it is, wherever it begins; frame numbers that were moved would leave a hole.
            options["avoid_negative_ts"] = "disabled"
        if self._names_of_ones_own():
            options["movflags"] = "+use_metadata_tags"
        if "movflags" in given:
            options["movflags"] = options.get("movflags", "") + given["movflags"]
        options = {**given, **options}
        file = for_ffmpeg(self._path) if isinstance(self._path, Path) else self._path
        try:
            return av.open(file, "w", format=self._kind.muxer, container_options=options)
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{self._target} cannot be created: {error.strerror}") from None

    def _add_picture(self, encoding: PictureEncoding) -> VideoStream:
        encoder = encoding.codec.encoder
        try:
            stream: VideoStream = self._container.add_stream(  # type: ignore[assignment]  # PyAV says: any stream
                encoder, rate=encoding.rate, time_base=encoding.time_base
            )
        except ValueError as error:
            if "does not support" not in str(error):
                raise UsageError(f"this build of FFmpeg has no {encoder} encoder") from None
            raise UsageError(f"{named(self._target)} cannot hold {encoder}; choose another --codec") from None
        if self._info.display_matrix and encoding.turn is None:
            stream.set_display_matrix(self._info.display_matrix)
        said = _said_of(self._info.picture_metadata, self._kind)
        stream.metadata.update({k: v for k, v in said.items() if k.lower() in _PICTURE_METADATA})
        if self._info.stereo in self._kind.stereo and self._kind.muxer in ("matroska", "webm"):
            stream.metadata["stereo_mode"] = self._info.stereo
        return stream

    def _add_copies(self, sound: Sound) -> dict[int, Stream]:
        copies: dict[int, Stream] = {}
        left_out: list[str] = []
        heard = False
        growing = self._info.kind == "live" and self._kind.muxer in ("mp4", "mov")
        for source in self._info.copied:
            if source.type == "audio" and sound == "none":
                continue
            if source.type == "audio" and heard and self._kind.one_sound:
                left_out.append("further audio")
                continue
            heard = heard or source.type == "audio"
            if _takes(self._kind, source):
                copy = self._container.add_stream_from_template(source, opaque=True)
                copies[source.index] = copy
                if growing and source.codec_context.name == "aac" and not source.codec_context.extradata:
                    # FFmpeg does this by itself in files that are not written in fragments.
                    self._headers[source.index] = BitStreamFilterContext("aac_adtstoasc", source)
                if self._avi_sound is not None and isinstance(copy, AudioStream):
                    assert isinstance(source, AudioStream)
                    self._avi_sound.add(source, copy)
            elif codec := text_codec(self._kind.muxer, source):
                copy = self._add_text(source, codec)
            elif source.type != "audio":
                pictures = source.type == "subtitle" and source.codec_context.codec.bitmap_sub
                left_out.append(f"{source.type}{' (pictures, not text)' if pictures else ''}")
                continue
            elif sound == "copy" and self._kind.live:
                left_out.append(f"{source.codec_context.name} audio")
                continue
            elif sound == "copy":
                raise UsageError(_no_place(self._target, source))
            else:
                copy = self._add_converted(source)
            self.carried.append(source.type)
            self._languages |= "language" in source.metadata
            self._forced |= bool(source.disposition & Disposition.forced)
            copy.metadata.update(_said_of(source.metadata, self._kind))
            copy.disposition = source.disposition
        if left_out:
            in_mkv = self._kind.muxer == "matroska"
            self.warnings.append(
                f"{named(self._target)} cannot hold the source's {', '.join(dict.fromkeys(left_out))} "
                f"streams; they were left out{'' if self._kind.live or in_mkv else ' (.mkv takes them)'}"
            )
        return copies

    def _add_covers(self) -> list[Packet[Stream]]:
        """Makes place for them; the packets that are still to be written."""
        packets: list[Packet[Stream]] = []
        for number, cover in enumerate(self._info.covers):
            codec = cover.stream.codec_context.name
            if self._kind.covers == "attachment" and codec in _COVER_FILES:
                ending, mime = _COVER_FILES[codec]
                name = f"cover{number or ''}.{ending}"
                self._container.add_attachment(name, mime, cover.data)
                self._covers_kept += 1
            elif self._kind.covers == "stream" and codec in _COVER_FILES and not self._names_of_ones_own():
                stream = self._container.add_stream_from_template(cover.stream, opaque=True)
                stream.disposition = Disposition.attached_pic
                packet = Packet(cover.data)
                packet.stream, packet.pts, packet.dts = stream, 0, 0
                packet.time_base = Fraction(1, 90_000)
                packets.append(packet)
                self._covers_kept += 1
        return packets

    def _mux_covers(self) -> None:
        while self._covers:
            self._container.mux_one(self._covers.pop())

    def _names_of_ones_own(self) -> bool:
        """Says whether MP4 and MOV need the form that has any metadata, and no cover."""
        names = {name.lower() for name in _names(self._info)}
        return self._kind.muxer in ("mp4", "mov") and not names <= _MP4_FIELDS

    def _add_converted(self, source: Stream) -> Stream:
        assert isinstance(source, AudioStream)
        try:
            converted = ConvertedSound(self._container, self._kind.muxer, source)
        except (ValueError, FFmpegError) as error:
            raise UsageError(
                f"the source's {source.codec_context.name} audio cannot be converted for "
                f"{named(self._target)} ({error}); use --sound none"
            ) from None
        self._converted[source.index] = converted
        self._say_once(
            f"{named(self._target)} cannot hold the source's {source.codec_context.name} audio: it was "
            f"converted to {converted.stream.codec_context.name.removeprefix('lib')}"
        )
        return converted.stream

    def _add_text(self, source: Stream, codec: str) -> Stream:
        assert isinstance(source, SubtitleStream)
        text = self._texts[source.index] = ConvertedSubtitles(self._container, codec, source)
        name = source.codec_context.codec.canonical_name
        styling = "; fonts, places and drawings are not kept" if name in ("ass", "ssa") else ""
        self._say_once(
            f"{named(self._target)} cannot hold the source's {name} subtitles: they were converted to "
            f"{codec}{styling}"
        )
        return text.stream

    def _say_once(self, line: str) -> None:
        if line not in self.warnings:
            self.warnings.append(line)


def _said_of(metadata: Mapping[str, str], kind: Container) -> dict[str, str]:
    """Writes a stream's properties as a container takes them."""
    said = dict(metadata)
    if kind.muxer not in ("mp4", "mov"):
        # Which part of a player it is for, as MP4 says of each; and MP4's word for a title.
        said.pop("handler_name", None)
        if "name" in said:
            said.setdefault("title", said.pop("name"))
    language = said.get("language")
    if language is not None and kind.muxer == "mov":
        said["language"] = _QUICKTIME_NAMES.get(language, language)
    return said


def _takes(kind: Container, source: Stream) -> bool:
    """Says whether a stream can be found again in such a file."""
    if source.type == "attachment":
        return kind.attachments
    name = source.codec_context.name
    known = {"audio": kind.sound, "subtitle": kind.subtitles}.get(source.type)
    if known is not None and name not in known:
        return False
    if name.startswith(kind.no_sound):
        return False
    if kind.sound_headers and name == "aac" and not source.codec_context.extradata:
        return False
    return _muxes(kind, source)


def _muxes(kind: Container, source: Stream) -> bool:
    """Tries whether FFmpeg begins such a file with a stream like this one. Some muxers say no only then."""
    nowhere = io.BytesIO()
    # A playlist would be written at once; its pieces are MPEG-TS.
    muxer = "mpegts" if kind.muxer == "hls" else kind.muxer
    with av.open(nowhere, "w", format=muxer) as trial:
        try:
            trial.add_stream_from_template(source, opaque=True)
            trial.start_encoding()
        except (ValueError, FFmpegError):
            return False
        finally:
            # So that it is not completed: there is nothing in it.
            nowhere.close()
    return True


def _no_place(target: Target, source: Stream) -> str:
    """Says why there can be no such file, and which there can be."""
    # The first ending stands for all of its kind.
    endings = {kind: ending for ending, kind in reversed(CONTAINERS.items())}
    others = [ending for kind, ending in endings.items() if _takes(kind, source)]
    another = f"choose an --out ending in {' '.join(sorted(others))}, or " if others else "choose "
    return (
        f"{named(target)} cannot hold the source's {source.codec_context.name} audio as it is; "
        f"{another}--sound convert or none"
    )


def _names(info: StreamInfo) -> dict[str, str]:
    return {k: v for k, v in info.metadata.items() if k.lower() not in _MUXER_METADATA}


def _kept_names(kind: Container, info: StreamInfo) -> dict[str, str]:
    return {k: v for k, v in _names(info).items() if kind.names is None or k.lower() in kind.names}
