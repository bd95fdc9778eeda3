"""A video file that grows in segments, so that a run that was cut off can be taken up again.

    frames ── encoder ── segment-00000        ┐
    frames ── encoder ── segment-00001        ├── joined with the source's other streams ── clip.mp4
    frames ── encoder ── segment-00002 ...    ┘

Every segment is made from the same frames by an encoder of its own, whatever was cut off when: a result that
was taken up is put together from the very segments of one that was not.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from measnet.errors import InputError, OutputError, UsageError
from measnet.runtime.frame import Frame, Mark, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks import Begun, Sink
from measnet.runtime.sinks.aside import partial_name, writing
from measnet.runtime.sinks.containers import container_for
from measnet.runtime.sinks.encoder import FrameTimes, PictureEncoder, PictureEncoding, decoding_times
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.part_folder import (
    Header,
    Manifest,
    PartFolder,
    as_said,
    of_input,
    sync_file,
    sync_folder,
)
from measnet.runtime.sinks.segment import (
    FRAMES,
    KEPT,
    Segment,
    SegmentEntry,
    SegmentWriter,
    drop_past,
    read_past,
    read_segment,
    write_past,
)

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

MOST_THREADS = 16
"""Most threads of an encoder: more are of little use, and its result depends on their number."""

# How far, in seconds, packets may lie from where their times say, as containers interleave them.
_INTERLEAVING = 10


class SegmentedVideoSink(Sink):
    """Encodes frames into segments, and joins these into one video file at the end.

    Args:
        target: the result's name; its ending chooses the container. ``check_target`` has
            said yes to it.
        info: what belongs to the source's stream and is to survive.
        source: the file that the frames come from; one that has changed is not gone on with.
        copies: gives the packets of the source's other streams, from the first to the last, when the
            segments are joined.
        encoding: asked for.
        limit: of frames, if the run is to end early; the other streams then end with the picture.

    Raises:
        UsageError: the container cannot hold the source's audio or the codec, or the encoder
            not so many bits.
        OutputError: the encoder refuses the picture.
    """

    resumable = True
    segment_frames = FRAMES

    def __init__(
        self,
        target: Path,
        info: StreamInfo,
        source: Path,
        copies: Callable[[], Iterator[Packet[Stream]]],
        encoding: Encoding | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.done = 0
        self._target = target
        self._info = info
        self._source = source
        self._source_was: dict[str, Any] = {}
        self._copies = copies
        self._limit = limit
        self._folder = PartFolder(target)
        self._kind = container_for(target)
        self.encoding = PictureEncoding(target, self._kind, info, encoding or Encoding())
        self._times = FrameTimes(self.encoding.time_base)
        self._segments: list[Segment] = []
        self._written = 0
        self._encoder: PictureEncoder | None = None
        self._writer: SegmentWriter | None = None
        # Built to see whether it can be; not a byte is written before the segments are joined.
        muxer = self._new_muxer()
        self.warnings = [*self.encoding.warnings, *muxer.warnings]
        self._carried = muxer.carried
        self._flags = muxer.stream.codec_context.flags
        muxer.close_anyhow()

    def begin(self, header: Header, *, restart: bool) -> Begun:
        """See Sink.begin. The settings have ``encoder_threads``."""
        header = self._folder.begin(header, restart=restart)
        try:
            self.encoding.repeat_with(_threads(header))
            with writing(self._target):
                self._segments, good = _intact(self._folder.path, self._folder.manifest)
                mark = self._take_up(good)
        except BaseException:
            self._folder.release()
            raise
        return Begun(self.done, settings=header.settings, mark=mark)

    def begun_before(self, header: Header, *, restart: bool) -> Begun:
        manifest = self._folder.begun_before(header, restart=restart)
        if manifest is None or manifest.header is None:
            return Begun(settings=header.settings)
        _threads(manifest.header)
        segments, good = _intact(self._folder.path, manifest)
        done = sum(part.frames for part in good)
        return Begun(done, settings=manifest.header.settings, mark=self._mark_behind(segments, good))

    def kept(self) -> int:
        try:
            changed = self._source_was and of_input(self._source) != self._source_was
        except InputError:  # it is gone
            return 0
        return 0 if changed else self.done

    def made_of(self) -> dict[str, Any]:
        encoding = self.encoding
        self._source_was = of_input(self._source)
        return self._source_was | {
            "encoder": encoding.codec.encoder,
            "--pixel-format": encoding.pixel_format,
            "--crf": encoding.crf,
            "--preset": encoding.preset,
            "--bits": encoding.bits,
            "--sound": encoding.sound,
        }

    def settings(self) -> dict[str, Any]:
        return {"encoder_threads": min(MOST_THREADS, os.cpu_count() or 1)}

    def for_report(self) -> dict[str, Any]:
        return {**self.encoding.for_report(), "copied_streams": self._carried}

    def write(self, frame: Frame) -> None:
        """See Sink.write. Packets are not taken: they are read again for the joining."""
        if self.done % FRAMES:
            raise UsageError(
                f"{self._target} was finished up to frame {self.done}, yet the source has more frames now; "
                "add --restart to begin anew"
            )
        with writing(self._target):
            self._write_frame(frame)

    def end_segment(self, mark: Mark) -> None:
        with writing(self._target):
            if self._written:
                self._finish_segment(mark)

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish. A partial result has the frames that make no whole segment too; the folder stays
        only if there are whole segments."""
        try:
            with writing(self._target):
                if self._written:
                    self._finish_segment(Mark(), last=partial)
                if not any(segment.picture_bytes for segment in self._segments):
                    self._folder.discard()
                    return None
                target = partial_name(self._target) if partial else self._target
                self._join(target, cut=partial or (self._limit is not None and self.done >= self._limit))
        except OutputError:
            self.abort()
            raise
        if partial and self.done:
            for segment in self._segments[-(-self.done // FRAMES) :]:
                segment.path.unlink()
            self._folder.release()
        else:
            self._folder.discard()
        return target

    def abort(self) -> None:
        """See Sink.abort. Whole segments stay."""
        if not self._folder.is_open:
            return
        if self._writer is not None:
            self._writer.discard()
        if self.done:
            self._folder.release()
        else:
            self._folder.discard()

    def _take_up(self, good: list[SegmentEntry]) -> Mark:
        manifest = self._folder.manifest
        if self._folder.lost or manifest.torn or len(good) < len(manifest.parts):
            self.warnings.append(
                f"{self._folder.path.name}: part {len(good)} is damaged or missing; it was made again, "
                "with all that follow it"
            )
        manifest.keep(len(good))
        self.done = sum(part.frames for part in good)
        if not good:
            return Mark()
        self._times.last = good[-1].last
        self.skipped = self._times.skipped = good[-1].skipped
        self._times.rounded = good[-1].rounded
        return self._mark_behind(self._segments, good)

    def _mark_behind(self, segments: list[Segment], good: list[SegmentEntry]) -> Mark:
        if not good:
            return Mark()
        past = read_past(self._folder.path, len(good) - 1, good[-1].past)
        return Mark(segments[-1].state(), past)

    def _write_frame(self, frame: Frame) -> None:
        if self._writer is None:
            self._writer = SegmentWriter(_path(self._folder.path, len(self._segments)))
        self._written += 1
        place = self._times.place(frame)
        self.skipped = self._times.skipped
        if place is None:
            return
        if self._encoder is None:
            self._encoder = self.encoding.open_alone(self._flags)
        self._writer.add(self._encoder.encode(frame.pixels, *place, self.encoding.captions_of(frame)))

    def _finish_segment(self, mark: Mark, *, last: bool = False) -> None:
        """Ends a segment behind the frames so far; the ``last`` one of a partial result is not kept."""
        assert self._writer is not None
        if self._encoder is not None:
            self._writer.add(self._encoder.flush())
        frames, self._written = self._written, 0
        segment, size, digest = self._writer.finish(mark.state)
        number = len(self._segments)
        self._segments.append(segment)
        self._writer = self._encoder = None
        if last:
            return
        past = None if mark.past is None else write_past(self._folder.path, number, mark.past)
        self._folder.sync()
        times = self._times
        part = SegmentEntry(
            bytes=size,
            table=segment.table,
            state=segment.state_bytes,
            sha256=digest,
            frames=frames,
            last=times.last,
            skipped=times.skipped,
            rounded=times.rounded,
            past=past,
        )
        self._folder.manifest.add(msgspec.to_builtins(part))
        self.done += frames
        if mark.past is not None and number >= KEPT:
            drop_past(self._folder.path, number - KEPT)

    def _join(self, target: Path, *, cut: bool) -> None:
        """All segments and the copied packets as one file, which is given the name ``target`` when whole."""
        muxer = self._new_muxer()
        try:
            for _, packet, is_picture in heapq.merge(
                self._timed_pictures(muxer), self._timed_copies(cut), key=lambda timed: timed[0]
            ):
                if is_picture:
                    muxer.mux_picture([packet])
                else:
                    muxer.mux_copy(packet)
            muxer.close()
            sync_file(self._joined)
            self._joined.replace(target)
            sync_folder(target.parent)
        except BaseException:
            muxer.close_anyhow()
            self._joined.unlink(missing_ok=True)
            raise
        self.warnings += self._times.losses() + self.encoding.losses() + muxer.losses(self._times.rounded)

    def _timed_pictures(self, muxer: Muxer) -> Iterator[tuple[Fraction, Any, bool]]:
        time_base = self.encoding.time_base
        shown = [pts for segment in self._segments for _, pts, _, _ in segment.rows()]
        decoded = iter(decoding_times(shown, muxer.encoder.reordering))
        for segment in self._segments:
            for packet in segment.packets(time_base):
                packet.dts = next(decoded)
                yield packet.dts * time_base, packet, True

    def _timed_copies(self, cut: bool) -> Iterator[tuple[Fraction, Any, bool]]:
        if not self._info.copied:
            return
        end = self._end() if cut else None
        for packet in self._copies():
            if packet.dts is None:
                continue
            moment = packet.dts * packet.time_base
            if end is not None and moment >= end:
                if moment > end + _INTERLEAVING:
                    return
                continue
            yield moment, packet, False

    def _end(self) -> Fraction:
        """Says when the last picture has been shown."""
        last = next(segment for segment in reversed(self._segments) if segment.picture_bytes)
        _, pts, duration, _ = max(last.rows(), key=lambda row: row[1])
        return (pts + duration) * self.encoding.time_base

    @property
    def _joined(self) -> Path:
        return self._folder.path / f"joined{self._target.suffix}"

    def _new_muxer(self) -> Muxer:
        return Muxer(
            self._joined,
            self._target,
            self._kind,
            self._info,
            self.encoding,
            in_order=True,
        )


def _intact(folder: Path, manifest: Manifest) -> tuple[list[Segment], list[SegmentEntry]]:
    """The segments up to the first that is not as the manifest says, with their lines."""
    segments: list[Segment] = []
    good: list[SegmentEntry] = []
    last: int | None = None
    for line in manifest.parts:
        part = as_said(line, SegmentEntry)
        segment = None if part is None else read_segment(_path(folder, len(segments)), part)
        if part is None or segment is None or (good and good[-1].frames != FRAMES):
            break
        times = sorted(pts for _, pts, _, _ in segment.rows())
        if len(set(times)) < len(times) or (times and last is not None and times[0] <= last):
            break
        last = times[-1] if times else last
        if part.last != last:
            break
        segments.append(segment)
        good.append(part)
    while good and good[-1].past and read_past(folder, len(good) - 1, good[-1].past) is None:
        segments.pop()
        good.pop()
    return segments, good


def _threads(header: Header) -> int:
    threads = as_said(header.settings.get("encoder_threads"), int)
    if threads is None or not 1 <= threads <= MOST_THREADS:
        raise UsageError("the settings that the result was begun with are damaged; add --restart")
    return threads


def _path(folder: Path, number: int) -> Path:
    return folder / f"segment-{number:05}"
