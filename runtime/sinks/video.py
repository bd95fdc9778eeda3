"""A video file, encoded from restored frames, with the source's other streams copied in."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError
from av.video.stream import VideoStream

from measnet.errors import OutputError, UsageError
from measnet.runtime.colour import PixelFormat, YuvWriter, written_colour
from measnet.runtime.frame import Frame, Pixels, StreamInfo
from measnet.runtime.sinks.aside import Aside, write_error
from measnet.runtime.sinks.containers import Codec, Container, codec_for, container_for
from measnet.runtime.sinks.orientation import Turn, turn_of, turned

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

    from measnet.runtime.sources import Item

# Written by the muxer about the file it makes; the source's own would be untrue of it.
_MUXER_METADATA = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands", "duration"})

# Codecs whose run-up every container knows of.
_OWN_RUN_UP = ("opus", "libopus")


class VideoSink:
    """Encodes frames into one video file.

    Args:
        target: the result's name; its ending chooses the container. ``check_target`` has
            said yes to it.
        info: what belongs to the source's stream and is to survive.
        codec: ``h264``, ``hevc``, ``vp9``, ``av1``; None for the container's usual one.
        crf: the encoder's quality, lower is better; None for the codec's default.
        preset: the encoder's name for how much effort it takes; None for its default.

    Raises:
        UsageError: the container cannot hold the source's audio or the codec.
        OutputError: the encoder refuses the picture.
    """

    def __init__(
        self,
        target: Path,
        info: StreamInfo,
        *,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
    ) -> None:
        self.skipped = 0
        self.warnings: list[str] = []
        self._target = target
        self._info = info
        self._kind = container_for(target)
        self._aside = Aside(target)
        self._turn = self._turn_to_apply()
        self._colour = written_colour(info.colour)
        self._time_base = _time_base(self._kind, info)
        self._last_pts: int | None = None
        self._rounded = 0
        self._packets_left_out = 0
        self._run_up = Fraction(0)
        self._done = False
        chosen = codec_for(self._kind, codec)
        self._container = self._open()
        try:
            self._stream = self._add_picture(chosen, crf, preset)
            self._copies = self._add_copies()
            self._container.metadata.update(
                {k: v for k, v in info.metadata.items() if k.lower() not in _MUXER_METADATA}
            )
            self._container.set_chapters(list(info.chapters))
        except BaseException:
            self.abort()
            raise

    def write(self, item: Item) -> None:
        """See Sink.write."""
        try:
            if isinstance(item, Frame):
                self._write_frame(item)
            else:
                self._write_packet(item)
        except FFmpegError as error:
            raise self._failed(error) from None

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish."""
        if self._last_pts is None:
            self.abort()
            return None
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except FFmpegError as error:
            failure = self._failed(error)
            self.abort()
            raise failure from None
        self._done = True
        self._note_losses()
        return self._aside.keep(partial=partial)

    def abort(self) -> None:
        """See Sink.abort."""
        if self._done:
            return
        self._done = True
        with contextlib.suppress(FFmpegError):
            self._container.close()
        self._aside.discard()

    def _write_frame(self, frame: Frame) -> None:
        exact = frame.pts * frame.time_base / self._time_base
        pts = round(exact)
        if self._last_pts is not None and pts <= self._last_pts:
            self.skipped += 1
            return
        self._last_pts = pts
        self._rounded += exact.denominator != 1
        encoded = self._writer.write(self._laid_out(frame.pixels))
        encoded.pts = pts
        encoded.time_base = self._time_base
        encoded.duration = round(frame.duration * frame.time_base / self._time_base)
        self._container.mux(self._stream.encode(encoded))
        if not self._rounded and self._stream.time_base is not None:
            self._rounded += (pts * self._time_base / self._stream.time_base).denominator != 1

    def _write_packet(self, packet: Packet[Stream]) -> None:
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

    def _laid_out(self, pixels: Pixels) -> Pixels:
        return turned(pixels, self._turn) if self._turn else pixels

    def _open(self) -> OutputContainer:
        # Audio waits in memory for the encoder's look-ahead instead of overtaking the picture.
        options = {"max_interleave_delta": "0"}
        if self._kind.muxer == "mpegts":
            options["mpegts_copyts"] = "1"
        try:
            return av.open(str(self._aside.path), "w", format=self._kind.muxer, container_options=options)
        except (FFmpegError, OSError) as error:
            raise OutputError(f"{self._target} cannot be created: {error.strerror}") from None

    def _add_picture(self, codec: Codec, crf: int | None, preset: str | None) -> VideoStream:
        info = self._info
        try:
            stream: VideoStream = self._container.add_stream(  # type: ignore[assignment]  # PyAV says: any stream
                codec.encoder, rate=info.rate or 25, time_base=self._time_base
            )
        except ValueError as error:
            if "does not support" not in str(error):
                raise UsageError(f"this build of FFmpeg has no {codec.encoder} encoder") from None
            raise UsageError(
                f"{self._target.suffix} files cannot hold {codec.encoder}; choose another --codec"
            ) from None
        context = stream.codec_context
        swapped = self._turn is not None and self._turn[0]
        context.width, context.height = (info.height, info.width) if swapped else (info.width, info.height)
        pixel_format = self._chroma(codec)
        context.pix_fmt = pixel_format
        self._writer = YuvWriter(self._colour, context.width, context.height, pixel_format, codec.chroma)
        context.colorspace = self._colour.matrix
        context.color_range = self._colour.range
        context.color_primaries = self._colour.primaries
        context.color_trc = self._colour.transfer
        if info.sample_aspect:
            context.sample_aspect_ratio = 1 / info.sample_aspect if swapped else info.sample_aspect
        # Without it the last frame of an uneven stream gets an average length.
        context.flags |= int(Flags.frame_duration)
        if self._kind.even_pace:
            # AVI has no presentation times: frames must be stored in the order they are shown.
            context.max_b_frames = 0
        context.options = {**codec.options, "crf": str(codec.crf if crf is None else crf)}
        if preset is not None:
            context.options[codec.preset_option] = preset
        if info.display_matrix and self._turn is None:
            stream.set_display_matrix(info.display_matrix)
        try:
            context.open()
        except (FFmpegError, ValueError) as error:
            raise OutputError(
                f"the encoder {codec.encoder} refuses {context.width}×{context.height} "
                f"{context.pix_fmt} with these options ({error}); try --codec h264"
            ) from None
        return stream

    def _chroma(self, codec: Codec) -> PixelFormat:
        """The 8-bit format with the source's own chroma resolution, where the encoder has it."""
        info = self._info
        wanted: PixelFormat = "yuv420p"
        if "444" in info.pixel_format or info.pixel_format.startswith(("gbr", "rgb", "bgr")):
            wanted = "yuv444p"
        elif "422" in info.pixel_format or info.pixel_format.startswith(("yuyv", "uyvy")):
            wanted = "yuv422p"
        if info.kind == "live" or codec.encoder == "libsvtav1":
            wanted = "yuv420p"
        odd = info.width % 2 or info.height % 2
        if odd and not codec.odd_sizes and wanted != "yuv444p":
            self.warnings.append(
                f"{info.width}×{info.height} is odd: written as 4:4:4 to keep the exact size, "
                "which some hardware players refuse"
            )
            wanted = "yuv444p"
        return wanted

    def _add_copies(self) -> dict[int, Stream]:
        copies: dict[int, Stream] = {}
        left_out: list[str] = []
        for source in self._info.copied:
            try:
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

    def _turn_to_apply(self) -> Turn | None:
        matrix = self._info.display_matrix
        if matrix is None or self._kind.display_matrix:
            return None
        turn = turn_of(matrix)
        if turn is None:
            self.warnings.append("the source is shown askew, which this container cannot say")
        else:
            self.warnings.append(
                f"{self._target.suffix} files cannot say that a picture is to be turned; "
                "the pixels themselves were turned"
            )
        return turn

    def _note_losses(self) -> None:
        if self.skipped:
            self.warnings.append(
                f"{self.skipped} frames were left out: their times do not follow the frame before"
            )
        if self._rounded:
            self.warnings.append(
                f"{self._target.suffix} files count time in steps of {self._stream.time_base} s; "
                "the source's finer times were rounded to that"
            )
        if self._run_up and not self._kind.edit_list:
            self.warnings.append(
                f"{self._target.suffix} files cannot begin before time zero as the source's sound "
                f"does: every time lies {float(-self._run_up):.3f} s later"
            )
        if self._packets_left_out:
            self.warnings.append(
                f"{self._packets_left_out} audio or subtitle packets were left out: their times run backwards"
            )

    def _failed(self, error: FFmpegError) -> OutputError:
        if isinstance(error, OSError):
            return write_error(self._target, error)
        return OutputError(f"writing {self._target} failed: {error.strerror}; nothing was kept")


def _time_base(kind: Container, info: StreamInfo) -> Fraction:
    # AVI counts frames: a finer time base would be filled up with thousands of empty ones.
    if kind.even_pace and info.rate:
        return 1 / info.rate
    return info.time_base
