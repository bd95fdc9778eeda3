"""Subtitles in another container: text written anew, in the form that it takes."""

from __future__ import annotations

import itertools
import re
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from av.error import FFmpegError
from av.packet import Packet
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.stream import Stream
    from av.subtitles.stream import SubtitleStream

# By muxer: FFmpeg's encoder of text.
_CODECS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
# The tracks in which a line ends where the next begins.
_ONE_AT_A_TIME = ("mov_text",)
_TICK = Fraction(1, 1000)
# How long a line is shown that does not say.
_USUAL = Fraction(5)
# ASS can draw: paths, written where text is.
_DRAWING = re.compile(rb"\{[^}]*\\p[1-9][^}]*\}.*?(?:\{[^}]*\\p0[^}]*\}|$)", re.DOTALL)
_FIELDS = 8
"""Count of the fields that stand before the text of a line, as FFmpeg hands it out."""


@dataclass(frozen=True, slots=True)
class _Subtitle:
    """One subtitle: when it is shown, in seconds, what stands before its text, and that."""

    start: Fraction
    end: Fraction
    head: bytes
    text: bytes


def text_codec(muxer: str, source: Stream) -> str | None:
    """FFmpeg's encoder for the text of a stream of subtitles; None where it is none, or has no place."""
    if source.type != "subtitle" or not source.codec_context.codec.text_sub:
        return None
    return _CODECS.get(muxer)


class ConvertedSubtitles:
    """One stream of subtitles, read and written again as text. Bold, italics and colours stay where the
    new form has them; drawings are left out.

    Args:
        container: is given the new stream.
        codec: FFmpeg's encoder.
        source: whose packets will come.

    Where only one line can be shown at a time, those that overlap become one of several rows for as long as
    they do.

    ``stream`` is the new one. ``damaged`` counts packets that could not be read.

    Raises FFmpegError or ValueError where the source cannot be read.
    """

    def __init__(self, container: OutputContainer, codec: str, source: SubtitleStream) -> None:
        self.damaged = 0
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self.stream = cast("SubtitleStream", container.add_stream(codec))
        self._encoder = self.stream.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._encoder.time_base = _TICK
        self._encoder.open()
        self._one_at_a_time = codec in _ONE_AT_A_TIME
        self._lines: list[_Subtitle] = []

    def encoded(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Encodes a packet of the source, in order of storage."""
        line = self._line(packet)
        if line is None:
            return []
        if not self._one_at_a_time:
            return [self._packet(line.start, line.end, [line])]
        packets = self.due(line.start)
        self._lines.append(line)
        return packets

    def due(self, moment: Fraction | None) -> list[Packet[Stream]]:
        """Encodes lines that touch each other once all of them have been shown at ``moment``, in seconds;
        for None, all that is left.

        FFmpeg's muxer takes a line at its word, and moves what begins before its end behind it.
        """
        if not self._lines or (moment is not None and moment <= max(line.end for line in self._lines)):
            return []
        lines, self._lines = self._lines, []
        changes = sorted({line.start for line in lines} | {line.end for line in lines})
        waiting = deque(sorted(lines, key=lambda line: line.start))
        shown: list[_Subtitle] = []
        packets = []
        for start, end in itertools.pairwise(changes):
            shown = [line for line in shown if line.end > start]
            while waiting and waiting[0].start == start:
                shown.append(waiting.popleft())
            if shown:
                packets.append(self._packet(start, end, shown))
        return packets

    def _line(self, packet: Packet[Stream]) -> _Subtitle | None:
        if packet.pts is None:
            return None
        try:
            found = self._decoder.decode2(packet)
        except FFmpegError:
            self.damaged += 1
            return None
        rows = [row.ass for row in found or () if isinstance(row, AssSubtitle)]
        split = [row.split(b",", _FIELDS) for row in rows if row.count(b",") >= _FIELDS]
        texts = [_DRAWING.sub(b"", fields[-1]).strip() for fields in split]
        if not any(texts):
            return None
        start = packet.pts * packet.time_base
        lasts = packet.duration * packet.time_base if packet.duration else _USUAL
        return _Subtitle(
            start, start + lasts, b",".join(split[0][:_FIELDS]), rb"\N".join(filter(None, texts))
        )

    def _packet(self, start: Fraction, end: Fraction, lines: list[_Subtitle]) -> Packet[Stream]:
        text = b",".join((lines[0].head, rb"\N".join(line.text for line in lines)))
        packet = Packet(bytes(self._encoder.encode_subtitle(SubtitleSet.create(text, 0, 0))))
        packet.stream, packet.time_base = self.stream, _TICK
        packet.pts = packet.dts = round(start / _TICK)
        packet.duration = round(end / _TICK) - packet.pts
        return packet
