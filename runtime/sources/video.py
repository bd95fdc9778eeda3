"""A video file, or a piece of one, decoded frame by frame."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Collection, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from measnet.errors import InputError
from measnet.file_name import for_ffmpeg
from measnet.runtime.colour import RgbReader
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.memory import check_size
from measnet.runtime.options import RawVideo, Reading
from measnet.runtime.side_data import HDR_TREATMENT, is_hdr, read_captions
from measnet.runtime.sources import Source
from measnet.runtime.sources.decoder import PictureDecoder
from measnet.runtime.sources.interlaced import Fields
from measnet.runtime.sources.standard_input import StandardInput
from measnet.runtime.sources.times import MARGIN, Cutter, delay, with_rising_times

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

# How much of a file's declared length, in seconds, may be missing before it counts as cut off:
# containers round the last frame's length.
_TAIL_TOLERANCE = 0.5
# How FFmpeg's names for readers of pictures end.
_PICTURES = ("_pipe", "image2")
# The containers whose headers declare a length that was not guessed from the file's size.
_DECLARES_LENGTH = ("mov", "matroska")
# The containers whose clocks begin anywhere, by FFmpeg's names, with the endings of results that keep them.
_BEGINS_ANYWHERE = {"mpegts": {".ts", ".mts", ".m2ts"}, "mpeg": set[str](), "flv": {".flv"}}
# Endings of files that hold bare pixels and nothing about them.
_RAW = (".yuv", ".rgb", ".bgr", ".nv12", ".i420", ".cif", ".qcif", ".raw")


class VideoFile(Source):
    """Frames of a video file, with their own presentation times.

    Args:
        path: the file, or standard input.
        reading: which piece of it, and how it is read.

    Raises:
        InputError: the file is missing, empty, cut off before its index, not a video, without
            a picture, or has no frame that can be decoded (in the piece asked for).
    """

    def __init__(self, path: Path | StandardInput, reading: Reading | None = None) -> None:
        super().__init__()
        self._path = path
        self._stamp = _stamp(path)
        self._changed = False
        self._skipped = 0
        self._sought = False
        self._zero = Fraction(0)
        self._reading = reading or Reading()
        self._container = _open(path, self._reading.raw)
        try:
            self._decoder = self._new_decoder(self._container)
            self._cutter = self._cut_out()
            self._fields = Fields(self._reading.interlaced, str(path))
            whole = self._fields.whole(self._timed(self._read_from_start()))
            self._items = self._cutter.cut(whole)
            # Rotation and colour are known for certain only once a frame has been decoded.
            self._head = _until_first_frame(self._items)
            first = self._head[-1] if self._head else None
            if not isinstance(first, av.VideoFrame):
                raise InputError(self._no_frames())
            self._refuse_a_picture()
            if self._cutter.start is not None:
                self._decoder.damaged = 0
            self._hidden = self._before(first)
            self.info = self._piece(self._decoder.info(first, "video"))
        except BaseException:
            self.close()
            raise
        self._warn_of_losses(first)

    def settle_clock(self, endings: Collection[str]) -> None:
        own = _BEGINS_ANYWHERE.get(self._container.format.name)
        if own is not None and not own.issuperset(endings) and self._cutter.start is None:
            self._zero = self._origin

    def skip(self, frames: int, names: frozenset[str] = frozenset()) -> None:
        """See Source.skip. They are decoded, as later ones need them."""
        self._skipped = frames

    def copied_packets(self) -> Iterator[Packet[Stream]]:
        """See Source.copied_packets. They are cut and moved as ``read`` gives them.

        Raises InputError when the file can no longer be opened.
        """
        container = _open(self._path, self._reading.raw)
        try:
            if self._sought:
                self._seek(container)
            packets = self._new_decoder(container).copied_packets()
            if self._changed:
                packets = _until(self._decoder.end, packets)
            for packet in self._cutter.cut_copies(packets):
                delay(packet, -self._zero)
                yield packet
        finally:
            container.close()

    def read(self) -> Iterator[Frame | Packet[Stream]]:
        info = self.info
        reader = RgbReader(info.colour, info.width, info.height, self._origin)
        items = itertools.chain(self._head, self._items)
        self._head = []
        left_out = 0
        zero = round(self._zero / info.time_base)
        for item in items:
            if not isinstance(item, av.VideoFrame):
                delay(item, -self._zero)
                yield item
                continue
            if left_out < self._skipped:
                left_out += 1
                continue
            yield Frame(
                pixels=reader.read(item),
                pts=(item.pts or 0) - zero,
                time_base=info.time_base,
                duration=item.duration,
                captions=read_captions(item),
            )
        self._settle(reader)

    def interrupt(self) -> None:
        if isinstance(self._path, StandardInput):
            self._path.stop_waiting()

    def close(self) -> None:
        self._container.close()

    def _new_decoder(self, container: InputContainer) -> PictureDecoder:
        reading = self._reading
        return PictureDecoder(
            container, str(self._path), track=reading.track, keep_tracks=reading.keep_tracks
        )

    def _cut_out(self) -> Cutter:
        return Cutter(self._reading, self._origin, self._decoder.copied)

    @property
    def _origin(self) -> Fraction:
        """Beginning by its own clock, in seconds."""
        # Before zero lies an encoder's run-up, which players do not count.
        return Fraction(max(0, self._container.start_time or 0), av.time_base)

    def _read_from_start(self) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """Reads the file from its beginning, or from a place well before the excerpt."""
        start = self._cutter.start
        by_name = isinstance(self._path, Path)
        if start is None or start <= MARGIN or self._container.start_time is None or not by_name:
            return self._decoder.items()
        try:
            self._seek(self._container)
            items = self._decoder.items()
            head = _until_first_frame(items)
        except (av.error.FFmpegError, InputError):
            head = []
        first = head[-1] if head else None
        if (
            isinstance(first, av.VideoFrame)
            and first.pts is not None
            and first.time_base is not None
            and first.pts * first.time_base <= start
        ):
            self._sought = True
            return itertools.chain(head, items)
        # No index, or one that leads astray: the frames before are decoded to be left out.
        self._container.close()
        self._container = _open(self._path, self._reading.raw)
        self._decoder = self._new_decoder(self._container)
        self._cutter = self._cut_out()
        return self._decoder.items()

    def _seek(self, container: InputContainer) -> None:
        """Seeks to a place before everything that belongs to the excerpt. Raises FFmpegError."""
        assert self._cutter.start is not None
        container.seek(round((self._cutter.start - MARGIN - self._decoder.lead) * av.time_base))

    def _timed(
        self, items: Iterator[av.VideoFrame | Packet[Stream]]
    ) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """The same items, every frame with a time, by the stream's rate where it has none."""
        stream = self._decoder.stream
        rate, unit = stream.average_rate or stream.guessed_rate, stream.time_base or Fraction(1, 90_000)
        step = round(1 / (rate * unit)) if rate else 1
        # A pipe may fall silent: what it has brought is restored without waiting for more.
        return with_rising_times(items, step, look_ahead=isinstance(self._path, Path))

    def _piece(self, info: StreamInfo) -> StreamInfo:
        """``info`` of the whole file as it is for the excerpt."""
        if not self._reading.is_part:
            return info
        container = self._container
        end = None
        if container.duration is not None:
            end = Fraction((container.start_time or 0) + container.duration, av.time_base)
            end += self._decoder.lead
        return replace(
            info,
            frames=self._cutter.expected(info.frames, info.rate, end),
            chapters=self._cutter.chapters(info.chapters),
        )

    def _before(self, first: av.VideoFrame) -> Fraction:
        """Seconds without a picture before the first that is sound, where damaged ones lie there."""
        start, unit = self._decoder.stream.start_time, self._decoder.stream.time_base
        if self._cutter.start is not None or not self._decoder.damaged or start is None or unit is None:
            return Fraction(0)
        return max(Fraction(0), ((first.pts or 0) - start) * unit - self._decoder.lead)

    def _settle(self, reader: RgbReader) -> None:
        decoder = self._decoder
        self.damaged = decoder.damaged
        self.warnings += self._fields.warnings + reader.warnings
        self._changed = _stamp(self._path) != self._stamp
        if self._changed:
            self.warnings.append(
                f"{self._path} was written to while it was read: it was restored up to "
                f"{float(decoder.end):.2f} s; restore it again once it is complete"
            )
        self.warnings += decoder.warnings
        if decoder.damaged:
            begins = f", and none is shown for the first {float(self._hidden):.2f} s" if self._hidden else ""
            self.warnings.append(
                f"{decoder.damaged} damaged frames were left out; "
                f"the frame before each is shown until the next sound one{begins}"
            )
        self.truncated = decoder.gave_up or (not self._cutter.reached_end and self._tail_is_missing())
        if self.truncated:
            self.warnings.append(f"{self._path} is cut off: it was restored up to {float(decoder.end):.2f} s")

    def _tail_is_missing(self) -> bool:
        name = self._container.format.name
        if not name.startswith(_DECLARES_LENGTH) or not self._container.duration:
            return False
        start = self._container.start_time or 0
        missing = (start + self._container.duration) / av.time_base - float(self._decoder.end)
        if missing > _TAIL_TOLERANCE:
            return True
        # Fewer pictures than its index has: cut off in the last half second, or an edit list that shows less.
        fewer = self._decoder.pictures_read < self._decoder.stream.frames
        return self._cutter.start is None and name.startswith("mov") and fewer and missing > 0

    def _refuse_a_picture(self) -> None:
        """Raises InputError for a file whose one frame is a picture, of a kind that is not read as such."""
        if not self._container.format.name.endswith(_PICTURES) or not isinstance(self._path, Path):
            return
        second = _until_first_frame(self._items)
        if not second and self._cutter.start is None:
            raise InputError(
                f"{self._path} is a picture of a kind that is not read; save it as PNG, TIFF or JPEG first"
            )
        self._head += second

    def _no_frames(self) -> str:
        if self._cutter.start is not None and self._decoder.end:
            start, end = (float(at - self._origin) for at in (self._cutter.start, self._decoder.end))
            return f"{self._path}: no frame is shown at {start:g} s or later; it ends at {end:.2f} s"
        if self._decoder.damaged:
            return (
                f"{self._path}: none of its {self._decoder.damaged} frames could be decoded; "
                "the file is damaged"
            )
        return f"{self._path}: its video stream has no frames; the recording is empty or cut off"

    def _warn_of_losses(self, first: av.VideoFrame) -> None:
        info = self.info
        if is_hdr(info.colour):
            self.warnings.append(HDR_TREATMENT)
        # VP8 and VP9 keep transparency as a second picture.
        second = self._decoder.stream.metadata.get("alpha_mode") == "1"
        if second or any(c.is_alpha for c in first.format.components):
            self.warnings.append("the video's transparency is not kept")
        tracks, taken = self._decoder.tracks, self._decoder.stream
        if len(tracks) > 1 and self._reading.track is None:
            self.warnings.append(
                f"it has {len(tracks)} video tracks: number {tracks.index(taken) + 1} "
                f"({info.width}×{info.height}) was restored; --track takes another"
                f"{'' if self._reading.keep_tracks else ', --keep-tracks copies the others'}"
            )
        if self._decoder.left_behind:
            self.warnings.append(f"not carried over: {', '.join(self._decoder.left_behind)}")


def _open(path: Path | StandardInput, raw: RawVideo | None) -> InputContainer:
    file: object = for_ffmpeg(path) if isinstance(path, Path) else path
    if raw is not None:
        check_size(str(path), raw.width, raw.height)
    try:
        if isinstance(path, Path) and path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); record or copy it again")
        if raw is not None:
            return av.open(file, mode="r", format="rawvideo", container_options=raw.demuxer_options)
        return av.open(file, mode="r", metadata_errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name") from None
    except PermissionError:
        raise InputError(f"{path} may not be read by this user; check its permissions") from None
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError):
        raise InputError(_why_unreadable(path)) from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from None


def _stamp(path: Path | StandardInput) -> tuple[int, int] | None:
    """Size and time of change; they tell that somebody has written to a file."""
    try:
        found = path.stat() if isinstance(path, Path) else None
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if found and stat.S_ISREG(found.st_mode) else None


def _until(end: Fraction, packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Gives the packets before ``end``: later ones were written meanwhile, behind the last picture."""
    for packet in packets:
        if packet.pts is None or packet.pts * packet.time_base < end:
            yield packet


def _why_unreadable(path: Path | StandardInput) -> str:
    if isinstance(path, StandardInput):
        return (
            f"{path} brings nothing that can be read as it comes; send y4m, MPEG-TS or Matroska, or say "
            "what it is with --raw (an MP4 with its index at the end has to be a file)"
        )
    if path.suffix.lower() in _RAW:
        return f"{path} looks like raw video; say what is in it, as with --raw 640x360:yuv420p@25"
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return f"{path} is cut off: its index (the 'moov' box) is missing; copy or record it again"
    return f"{path} is not a video or an image that can be read; it may be damaged"


def _until_first_frame(
    items: Iterator[av.VideoFrame | Packet[Stream]],
) -> list[av.VideoFrame | Packet[Stream]]:
    head: list[av.VideoFrame | Packet[Stream]] = []
    for item in items:
        head.append(item)
        if isinstance(item, av.VideoFrame):
            break
    return head
