"""A video file: encoded pictures with the source's other streams copied in beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError
from av.video.stream import VideoStream

from measnet.errors import OutputError, UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.sinks.aside import encoding_error
from measnet.runtime.sinks.containers import Container
from measnet.runtime.sinks.encoder import PictureEncoder, PictureEncoding

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

# Written by the muxer about the file it makes; the source's own would be untrue of it.
_MUXER_METADATA = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration"})

# Codecs whose run-up every container knows of.
_OWN_RUN_UP = ("opus", "libopus")


class Muxer:
    """One video file on its way to disk; the file itself begins with the first packet.

    Args:
        path: where it grows.
        target: the name it will bear, for messages.
        kind: of container.
        info: what belongs to the source and is to survive.
        encoding: of the picture.
        in_order: packets will come in the order of their times over all streams.

    ``encoder`` makes packets for it. ``warnings`` are lines for the user.

    Raises:
        UsageError: the container cannot hold the source's audio or the codec.
        OutputError: the encoder refuses the picture.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        kind: Container,
        info: StreamInfo,
        encoding: PictureEncoding,
        *,
        in_order: bool = False,
    ) -> None:
        self.warnings: list[str] = []
        self._path = path
        self._target = target
        self._kind = kind
        self._info = info
        self._rounded = 0
        self._packets_left_out = 0
        self._run_up = Fraction(0)
        self._container = self._open(in_order)
        try:
            self.stream = self._add_picture(encoding)
            self.encoder: PictureEncoder = encoding.open(self.stream.codec_context)
            self._copies = self._add_copies()
            self._container.metadata.update(
                {k: v for k, v in info.metadata.items() if k.lower() not in _MUXER_METADATA}
            )
            self._container.set_chapters(list(info.chapters))
        except BaseException:
            self.close_anyhow()
            raise

    def mux_picture(self, packets: Iterable[Packet[Any]]) -> None:
        """Write encoded pictures, in the order of their decoding times. Raises OutputError."""
        try:
            for packet in packets:
                seconds = (packet.pts or 0) * packet.time_base
                packet.stream = self.stream
                self._container.mux_one(packet)
                # The container settles its own time base when it begins.
                if self.stream.time_base is not None:
                    self._rounded += (seconds / self.stream.time_base).denominator != 1
        except FFmpegError as error:
            raise encoding_error(self._target, error) from None

    def mux_copy(self, packet: Packet[Stream]) -> None:
        """Write a packet of one of the source's other streams. Raises OutputError."""
        copy = self._copies.get(packet.stream.index)
        if copy is None:
            return
        if packet.pts is not None and packet.pts < 0 and copy.name not in _OWN_RUN_UP:
            self._run_up = min(self._run_up, packet.pts * packet.time_base)
        packet.stream = copy
        try:
            self._container.mux_one(packet)
        except ArgumentError:
            # A packet whose times run backwards: no container takes it.
            self._packets_left_out += 1
        except FFmpegError as error:
            raise encoding_error(self._target, error) from None

    def close(self) -> None:
        """Complete the file. Raises OutputError."""
        try:
            self._container.close()
        except FFmpegError as error:
            raise encoding_error(self._target, error) from None

    def close_anyhow(self) -> None:
        """Let go of a file that is not wanted."""
        with contextlib.suppress(FFmpegError):
            self._container.close()

    def losses(self, times_rounded: int) -> list[str]:
        """Lines on what the container could not hold. ``times_rounded`` were so before they came here."""
        lines = []
        if times_rounded or self._rounded:
            lines.append(
                f"{self._target.suffix} files count time in steps of {self.stream.time_base} s; "
                "the source's finer times were rounded to that"
            )
        if self._run_up and not self._kind.edit_list:
            lines.append(
                f"{self._target.suffix} files cannot begin before time zero as the source's sound "
                f"does: every time lies {float(-self._run_up):.3f} s later"
            )
        if self._packets_left_out:
            lines.append(
                f"{self._packets_left_out} audio or subtitle packets were left out: their times run backwards"
            )
        return lines

    def _open(self, in_order: bool) -> OutputContainer:
        # Audio waits in memory for the encoder's look-ahead instead of overtaking the picture.
        options = {} if in_order else {"max_interleave_delta": "0"}
        if self._kind.muxer == "mpegts":
            options["mpegts_copyts"] = "1"
        try:
            return av.open(str(self._path), "w", format=self._kind.muxer, container_options=options)
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
            raise UsageError(
                f"{self._target.suffix} files cannot hold {encoder}; choose another --codec"
            ) from None
        if self._info.display_matrix and encoding.turn is None:
            stream.set_display_matrix(self._info.display_matrix)
        return stream

    def _add_copies(self) -> dict[int, Stream]:
        copies: dict[int, Stream] = {}
        left_out: list[str] = []
        for source in self._info.copied:
            try:
                if not _takes(self._kind, source):
                    raise ValueError
                copy = self._container.add_stream_from_template(source)
            except ValueError:
                if source.type == "audio":
                    raise UsageError(
                        f"{self._target.suffix} files cannot hold the source's "
                        f"{source.codec_context.name} audio, which is copied; choose an --out "
                        "ending in .mkv"
                    ) from None
                left_out.append(source.type)
                continue
            copy.metadata.update(source.metadata)
            copy.disposition = source.disposition
            copies[source.index] = copy
        if left_out:
            self.warnings.append(
                f"{self._target.suffix} files cannot hold the source's {', '.join(left_out)} "
                "streams; they were left out (.mkv takes them)"
            )
        return copies


def _takes(kind: Container, source: Stream) -> bool:
    """Whether a stream can be found again in such a file; beyond that, its muxer is asked."""
    if source.type == "attachment":
        return kind.attachments
    known = {"audio": kind.sound, "subtitle": kind.subtitles}.get(source.type)
    return known is None or source.codec_context.name in known
