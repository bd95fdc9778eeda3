"""Sound in another container: encoded again where it cannot be copied, and put right in AVI files."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from av.audio.resampler import AudioResampler
from av.error import FFmpegError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

# By muxer: FFmpeg's encoder, and the samples that it is given; "s32" loses nothing of 24 bits.
_CODECS = {
    "matroska": ("flac", "s16", "s32"),
    "mov": ("alac", "s16p", "s32p"),
    "mp4": ("alac", "s16p", "s32p"),
    "avi": ("pcm_s16le", "s16", "s16"),
    "webm": ("libopus", "s16", "flt"),
    "mpegts": ("aac", "fltp", "fltp"),
    "flv": ("aac", "fltp", "fltp"),
    "hls": ("aac", "fltp", "fltp"),
    "nut": ("aac", "fltp", "fltp"),
}
_OPUS_RATE = 48_000
# For sound that says how many channels it has, and not which.
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_DEEP = ("s32", "s32p")


class ConvertedSound:
    """One stream of sound, decoded and encoded again: without loss in .mkv, .mov, .mp4 and
    (up to 16 bits) .avi.

    Args:
        container: is given the new stream.
        muxer: FFmpeg's name of the container's kind.
        source: whose packets will come.

    ``stream`` is the new one. ``damaged`` counts packets that could not be decoded.
    """

    def __init__(self, container: OutputContainer, muxer: str, source: AudioStream) -> None:
        self.damaged = 0
        self._end: int | None = None
        self._decoder = source.codec_context
        codec, plain, deep = _CODECS[muxer]
        rate = _OPUS_RATE if codec == "libopus" else self._decoder.sample_rate
        form = deep if self._decoder.format.name in _DEEP else plain
        self.stream: AudioStream = container.add_stream(codec, rate=rate)  # type: ignore[assignment]  # PyAV says: any stream
        context = self.stream.codec_context
        channels = self._decoder.layout
        context.layout = (
            _USUAL_LAYOUTS.get(channels.nb_channels, channels) if " " in channels.name else channels
        )
        context.format = form
        # ALAC and FLAC work on blocks of their own size, which opening settles.
        context.open()
        self._resampler = AudioResampler(form, context.layout, rate, context.frame_size or None)

    def encoded(self, packet: Packet[Stream] | None) -> list[Packet[Stream]]:
        """Encodes a packet of the source; for None, what is left at the end.

        Raises FFmpegError.
        """
        try:
            frames = list(self._decoder.decode(packet))
        except FFmpegError:
            self.damaged += 1
            return []
        for frame in frames:
            # The last one that WMA's decoder gives out has no time.
            frame.pts = self._end if frame.pts is None else frame.pts
            if frame.pts is not None and frame.time_base is not None:
                self._end = frame.pts + round(Fraction(frame.samples, frame.sample_rate) / frame.time_base)
        resampled = [out for frame in frames for out in self._resampler.resample(frame)]
        if packet is None:
            resampled += self._resampler.resample(None)
        packets = [encoded for frame in resampled for encoded in self.stream.encode(frame)]
        if packet is None:
            packets += self.stream.encode(None)
        return packets


# The codecs whose packets all last equally long, whatever their size.
_FRAMED = ("aac", "ac3", "mp1", "mp2", "mp3")
# By codec: the samples and the bytes, of each channel, that a block begins with. Others take half a byte.
_ADPCM_HEADS = {"adpcm_ima_wav": (1, 4), "adpcm_ms": (2, 7)}
_STREAM_HEADER = re.compile(rb"strh\x38\0\0\0")
_LENGTH, _SAMPLE_SIZE = 40, 52  # where they lie behind that


class AviSound:
    """Puts right what FFmpeg takes from the source's headers where it copies sound into an AVI."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._packets: dict[int, int] = {}

    def add(self, source: AudioStream, copy: AudioStream) -> None:
        """Takes note of ``copy``, a stream of a file that has not begun."""
        context = source.codec_context
        if context.codec.canonical_name in _FRAMED:
            self._packets[copy.index] = 0
        if (bit_rate := _adpcm_bit_rate(source)) is not None:
            copy.codec_context.bit_rate = bit_rate

    def place(self, packet: Packet[Stream], copy: Stream) -> None:
        """Lets a packet follow the one before: two that share a count would be one too many."""
        unit, index = copy.time_base or packet.time_base, copy.index
        place = round((packet.dts or 0) * packet.time_base / unit)
        place = max(place, self._last.get(index, place - 1) + 1)
        packet.duration = round((packet.duration or 0) * packet.time_base / unit)
        packet.pts = packet.dts = self._last[index] = place
        packet.time_base = unit
        if index in self._packets:
            self._packets[index] += 1

    def complete(self, path: Path) -> None:
        """Lets the header of a complete file count packets where they all last equally long. FFmpeg counts
        bytes wherever the source was an AVI. Raises OSError."""
        with path.open("r+b") as file:
            head = file.read(20)
            head += file.read(struct.unpack_from("<I", head, 16)[0])
            for index, found in enumerate(_STREAM_HEADER.finditer(head)):
                (by_bytes,) = struct.unpack_from("<I", head, found.start() + _SAMPLE_SIZE)
                if by_bytes and index in self._packets:
                    file.seek(found.start() + _LENGTH)
                    file.write(struct.pack("<I", self._packets[index]))
                    file.seek(found.start() + _SAMPLE_SIZE)
                    file.write(bytes(4))


def _adpcm_bit_rate(source: AudioStream) -> int | None:
    """The bit/s that ADPCM's times are counted by; headers often give their encoder's default."""
    sound = source.codec_context
    channels, rate = sound.layout.nb_channels, sound.sample_rate
    if sound.name == "adpcm_yamaha":
        return 4 * channels * rate
    if sound.name not in _ADPCM_HEADS or len(sound.extradata or b"") < 2:
        return None
    (samples,) = struct.unpack_from("<H", sound.extradata or b"")
    head_samples, head_bytes = _ADPCM_HEADS[sound.name]
    block = channels * ((samples - head_samples) // 2 + head_bytes)
    return round(8 * block * rate / samples) if samples else None
