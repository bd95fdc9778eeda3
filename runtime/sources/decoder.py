"""Decoder of one container's picture stream; its other streams are passed along as packets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import starmap
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from measnet.errors import InputError, UsageError
from measnet.runtime.colour import bit_depth, read_colour
from measnet.runtime.frame import Cover, SourceKind, StreamInfo
from measnet.runtime.memory import MAX_PIXELS, check_memory, check_size
from measnet.runtime.side_data import read_hdr, side_data
from measnet.runtime.sources.times import Continuity

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

# Damage in a row after which a file counts as unreadable, not as damaged here and there.
_HOPELESS = 1000
_HOPELESS_READS = 20

# FFmpeg's kinds of stereo by Matroska's names: the left view first, the right one first.
_STEREO = {
    1: ("left_right", "right_left"),
    2: ("top_bottom", "bottom_top"),
    3: ("block_lr", "block_rl"),
    4: ("checkerboard_lr", "checkerboard_rl"),
    6: ("row_interleaved_lr", "row_interleaved_rl"),
    7: ("col_interleaved_lr", "col_interleaved_rl"),
}


class PictureDecoder:
    """Decodes the main picture stream of an open container.

    Args:
        container: open for reading.
        name: what messages call it.
        track: which of several video tracks, from 1; None for the default one.
        keep_tracks: copy the other ones.
        low_delay: give out every frame at once, at the price of decoding on one core.
        most_pixels: of a picture in the stream, whose container may have said less.

    Raises:
        InputError: no picture stream, no decoder for it, an absurd size.
        UsageError: it has not so many tracks.
    """

    def __init__(
        self,
        container: InputContainer,
        name: str,
        *,
        track: int | None = None,
        keep_tracks: bool = False,
        low_delay: bool = False,
        most_pixels: int = MAX_PIXELS,
    ) -> None:
        self._container = container
        self._name = name
        self.tracks = _picture_streams(container, name)
        self.stream = _chosen(self.tracks, track, name)
        copied = ("audio", "subtitle", "video") if keep_tracks else ("audio", "subtitle")
        self.copied = tuple(
            stream
            for stream in container.streams
            if stream.type == "attachment"
            or (
                stream.type in copied
                and stream.codec_context is not None
                and stream is not self.stream
                and not _is_cover(stream)
                and (keep_tracks or _goes_with(container, stream, self.stream))
            )
        )
        left = [
            stream
            for stream in container.streams
            if not (stream is self.stream or stream in self.copied or _is_cover(stream))
            and not _says_it_elsewhere(container, stream)
        ]
        others = [stream for stream in left if not _goes_with(container, stream, self.stream)]
        self.left_behind = [
            f"{stream.type} stream {stream.index}{' (of another program)' if stream in others else ''}"
            for stream in left
            if stream not in self.tracks or track is not None
        ]
        self._covers: dict[VideoStream, bytes] = {}
        context = self.stream.codec_context
        check_size(name, context.width, context.height)
        check_memory(name, context.width, context.height)
        # A damaged bitstream can claim another size than its container does.
        context.options = {"max_pixels": str(most_pixels)}
        context.thread_type = "SLICE" if low_delay else "AUTO"
        self.damaged = 0
        self.pictures_read = 0
        self.end = Fraction(0)
        self.gave_up = False
        self._continuity = Continuity(_lead(container))
        self._untimed: dict[int, list[Packet[Stream]]] = {}

    @property
    def lead(self) -> Fraction:
        """Seconds by which its times are later than the container has them."""
        return self._continuity.lead

    @property
    def jumps(self) -> int:
        """The number of times that its times jumped back so far."""
        return self._continuity.jumps

    @property
    def warnings(self) -> list[str]:
        """A line on times that jumped back, if any did so far."""
        jumps = self._continuity.jumps
        if not jumps:
            return []
        often = "once" if jumps == 1 else f"{jumps} times"
        return [f"its times jump back {often}: what follows was moved to go on where it was"]

    def items(self) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """Sound frames in order of presentation, copied packets in order of storage.

        A frame that cannot be decoded, or that the decoder had to patch up, is left out
        and counted in ``damaged``.
        """
        failures = 0
        for packet in self._packets([self.stream, *self._timed_copies()]):
            if packet.stream is not self.stream:
                yield from self._with_decoding_times(packet)
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
                    # The frame's own value, which PyAV does not hand out; threads may be a few frames ahead.
                    frame.opaque = self.stream.codec_context.sample_aspect_ratio or Fraction(1)
                    yield frame

    def copied_packets(self) -> Iterator[Packet[Stream]]:
        """The copied packets alone, as ``items`` gives them; call one or the other."""
        if not (wanted := self._timed_copies()):
            return
        # The pictures are passed over, but not left unread: where times jump back, all streams go together.
        for packet in self._packets([self.stream, *wanted]):
            if packet.stream is not self.stream:
                yield from self._with_decoding_times(packet)

    def info(self, first: av.VideoFrame, kind: SourceKind) -> StreamInfo:
        """Reads the stream's properties from its headers and its first frame."""
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
            intra=_is_intra(stream.codec_context.codec),
            colour=read_colour(first),
            hdr=read_hdr(first),
            sample_aspect=stream.sample_aspect_ratio or None,
            display_matrix=_display_matrix(first),
            stereo=_stereo(first),
            spherical=_spherical(first),
            copied=self.copied,
            covers=tuple(starmap(Cover, self._covers.items())),
            metadata=dict(self._container.metadata),
            picture_metadata=dict(stream.metadata),
            chapters=tuple(self._container.chapters()),
        )

    def _timed_copies(self) -> list[Stream]:
        return [stream for stream in self.copied if stream.type != "attachment"]

    def _with_decoding_times(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        """Gives a copied packet, behind those whose decoding times are known by it: the first pictures of a
        track in Matroska have none of their own."""
        waiting = self._untimed.setdefault(packet.stream.index, [])
        if packet.dts is None:
            if packet.stream.type == "video" and packet.size:
                waiting.append(packet)
            return
        step = packet.duration or 1
        for place, early in enumerate(waiting):
            early.dts = packet.dts - (len(waiting) - place) * step
            yield early
        waiting.clear()
        yield packet

    def _packets(self, wanted: list[Stream]) -> Iterator[Packet[Stream]]:
        failures = 0
        # They come before all else; there is nothing to decode.
        covers = [stream for stream in self._container.streams.video if _is_cover(stream)]
        while True:
            try:
                for packet in self._container.demux([*wanted, *covers]):
                    failures = 0
                    if packet.stream in covers:
                        self._covers.setdefault(packet.stream, bytes(packet))
                        continue
                    self._continuity.carry_on(packet)
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
        if packet.pts is not None and not packet.is_discard:
            self.end = max(self.end, (packet.pts + (packet.duration or 0)) * packet.time_base)


def _lead(container: InputContainer) -> Fraction:
    """Finds how much to add to the times of a transport stream so that none is below zero.

    Its clock of 33 bits begins anew every 26.5 hours, and FFmpeg counts what lies before that as less than
    zero; elsewhere such times are the run-up of an encoder, which is not shown.
    """
    if container.format.name != "mpegts":
        return Fraction(0)
    return Fraction(max(0, -(container.start_time or 0)), av.time_base)


def _picture_streams(container: InputContainer, name: str) -> list[VideoStream]:
    pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not pictures:
        kinds = " and ".join(sorted({stream.type for stream in container.streams}))
        only = "a cover picture" if container.streams.video else kinds or "nothing"
        raise InputError(f"{name}: holds {only} but no video; give a file with a picture in it")
    return pictures


def _chosen(tracks: list[VideoStream], number: int | None, name: str) -> VideoStream:
    if number is None:
        stream = max(tracks, key=lambda s: bool(s.disposition & Disposition.default))
    elif number <= len(tracks):
        stream = tracks[number - 1]
    else:
        has = "one video track" if len(tracks) == 1 else f"{len(tracks)} video tracks"
        raise UsageError(f"{name} has {has}, not {number}; choose another --track")
    if stream.codec_context is None:
        raise InputError(f"{name}: its video codec is unknown to this build of FFmpeg; convert it first")
    return stream


def _goes_with(container: InputContainer, stream: Stream, picture: VideoStream) -> bool:
    """Says whether a stream of a broadcast of several programs belongs to that of the picture."""
    if container.format.name != "mpegts" or stream.type not in ("audio", "subtitle", "data"):
        return True
    best = container.streams.best
    return best("video", related=stream) in (picture, best("video", related=picture))


def _says_it_elsewhere(container: InputContainer, stream: Stream) -> bool:
    """Says whether a data stream of MP4 and MOV holds titles of chapters or a timecode, told elsewhere."""
    chapters = stream.type == "data" and stream.discard == Discard.all and bool(container.chapters())
    return chapters or "timecode" in stream.metadata


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data = side_data(frame).get("DISPLAYMATRIX")
    return None if data is None else tuple(int(v) for v in np.frombuffer(data, dtype=np.int32))


def _is_intra(codec: av.codec.Codec) -> bool:
    """Says whether it codes each frame for itself. Of a lossless one nobody knows: it may hold what another
    codec has left."""
    return codec.intra_only and codec.lossy


def _stereo(frame: av.VideoFrame) -> str | None:
    """Reads FFmpeg's AVStereo3D (the kind, and whether the right view comes first) by Matroska's names."""
    data = side_data(frame).get("STEREO3D")
    if data is None:
        return None
    kind, flags = struct.unpack_from("=2i", data)
    names = _STEREO.get(kind)
    return names and names[flags & 1]


def _spherical(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data = side_data(frame).get("SPHERICAL")
    return None if data is None else struct.unpack_from("=4i5I", data)
