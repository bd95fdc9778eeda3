"""One container's picture stream decoded, its other streams passed along as packets."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from measnet.errors import InputError
from measnet.runtime.colour import bit_depth, read_colour
from measnet.runtime.frame import Kind, StreamInfo
from measnet.runtime.hdr import read_hdr
from measnet.runtime.sources.limits import MAX_PIXELS, check_memory, check_size

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

# Damage in a row after which a file counts as unreadable, not as damaged here and there.
_HOPELESS = 1000
_HOPELESS_READS = 20


class PictureDecoder:
    """Decodes the main picture stream of an open container.

    Args:
        container: open for reading.
        name: what messages call it.
        low_delay: give out every frame at once, at the price of decoding on one core.

    Raises:
        InputError: no picture stream, no decoder for it, an absurd size.
    """

    def __init__(self, container: InputContainer, name: str, *, low_delay: bool = False) -> None:
        self._container = container
        self._name = name
        self.stream = _picture_stream(container, name)
        self.copied = tuple(
            stream
            for stream in container.streams
            if stream.type == "attachment"
            or (stream.type in ("audio", "subtitle") and stream.codec_context is not None)
        )
        self.left_behind = [
            f"{stream.type} stream {stream.index}"
            for stream in container.streams
            if stream is not self.stream and stream not in self.copied and not _is_cover(stream)
        ]
        context = self.stream.codec_context
        check_size(name, context.width, context.height)
        check_memory(name, context.width, context.height)
        # A damaged bitstream can claim another size than its container does.
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_type = "SLICE" if low_delay else "AUTO"
        self.damaged = 0
        self.pictures_read = 0
        self.end = Fraction(0)
        self.gave_up = False

    def items(self) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """Sound frames in order of presentation, copied packets in order of storage.

        A frame that cannot be decoded, or that the decoder had to patch up, is left out
        and counted in ``damaged``.
        """
        failures = 0
        for packet in self._packets([self.stream, *self._timed_copies()]):
            if packet.stream is not self.stream:
                if packet.dts is not None:
                    yield packet
                continue
            try:
                frames = self.stream.decode(packet)
                failures = 0
            except av.error.EOFError:
                continue
            except av.error.FFmpegError:
                self.damaged += 1
                failures += 1
                if failures >= _HOPELESS:
                    raise InputError(
                        f"{self._name}: {failures} frames in a row could not be decoded; "
                        "the file is damaged beyond what can be skipped"
                    ) from None
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.damaged += 1
                else:
                    yield frame

    def copied_packets(self) -> Iterator[Packet[Stream]]:
        """The copied packets alone, as ``items`` gives them; call one or the other."""
        if not (wanted := self._timed_copies()):
            return
        for packet in self._packets(wanted):
            if packet.dts is not None:
                yield packet

    def info(self, first: av.VideoFrame, kind: Kind) -> StreamInfo:
        """What belongs to the stream, by its headers and its first frame."""
        stream = self.stream
        rate = stream.average_rate or stream.guessed_rate
        frames = stream.frames or None
        if frames is None and rate and self._container.duration:
            frames = round(self._container.duration * rate / av.time_base)
        return StreamInfo(
            name=self._name,
            kind=kind,
            width=first.width,
            height=first.height,
            time_base=stream.time_base or Fraction(1, 90_000),
            rate=rate or None,
            frames=frames if kind == "video" else None,
            pixel_format=first.format.name,
            bits=bit_depth(first.format),
            colour=read_colour(first),
            hdr=read_hdr(first),
            sample_aspect=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(first),
            copied=self.copied,
            metadata=dict(self._container.metadata),
            chapters=tuple(self._container.chapters()),
        )

    def _timed_copies(self) -> list[Stream]:
        return [stream for stream in self.copied if stream.type != "attachment"]

    def _packets(self, wanted: list[Stream]) -> Iterator[Packet[Stream]]:
        failures = 0
        while True:
            try:
                for packet in self._container.demux(wanted):
                    failures = 0
                    self._note_end(packet)
                    yield packet
                return
            except av.error.InvalidDataError:
                # Reading goes on behind the damage, where the container allows it.
                failures += 1
                if failures >= _HOPELESS_READS:
                    self.gave_up = True
                    return

    def _note_end(self, packet: Packet[Stream]) -> None:
        if packet.stream is self.stream and packet.size:
            self.pictures_read += 1
        if packet.pts is not None:
            self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)


def _picture_stream(container: InputContainer, name: str) -> VideoStream:
    pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not pictures:
        kinds = " and ".join(sorted({stream.type for stream in container.streams}))
        only = "a cover picture" if container.streams.video else kinds or "nothing"
        raise InputError(f"{name}: holds {only} but no video; give a file with a picture in it")
    stream = max(pictures, key=lambda s: bool(s.disposition & Disposition.default))
    if stream.codec_context is None:
        raise InputError(f"{name}: its video codec is unknown to this build of FFmpeg; convert it first")
    return stream


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":  # type: ignore[attr-defined]  # PyAV types it loosely
            return tuple(int(v) for v in np.frombuffer(side_data, dtype=np.int32))  # type: ignore[call-overload]  # a buffer
    return None
