"""Copied sound in AVI files, which know no times, only counts."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.stream import Stream

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
