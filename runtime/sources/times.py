"""Times of frames and packets: rising, going on where they jump back, cut to the part that is wanted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from measnet.runtime.options import Reading

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

LOOKED_AT = 16  # frames that tell which times can be trusted: as many as H.264 may reorder


def with_rising_times(
    items: Iterator[av.VideoFrame | Packet[Stream]], step: int, *, look_ahead: bool = True
) -> Iterator[av.VideoFrame | Packet[Stream]]:
    """The same items, in the same order; ``pts`` of every frame is set and above that of the one before.

    ``step`` is how long a frame usually lasts, in units of the stream. Without ``look_ahead`` every frame is
    given out as it comes, and presentation times are trusted.
    """
    head = _until_frames(items, LOOKED_AT) if look_ahead else []
    frames = [item for item in head if isinstance(item, av.VideoFrame)]
    by_decoding = not _rise(frame.pts for frame in frames) and _rise(frame.dts for frame in frames)
    last: int | None = None
    after = 0  # when a frame without a time is shown
    for item in itertools.chain(head, items):
        if isinstance(item, av.VideoFrame):
            time = item.dts if by_decoding else item.pts
            if time is None:
                time = after
            item.pts = time if last is None or time > last else last + 1
            last, after = item.pts, item.pts + (item.duration or step)
        yield item


def _rise(times: Iterable[int | None]) -> bool:
    known = [time for time in times if time is not None]
    return len(known) > 1 and all(early < late for early, late in itertools.pairwise(known))


def _until_frames(
    items: Iterator[av.VideoFrame | Packet[Stream]], count: int
) -> list[av.VideoFrame | Packet[Stream]]:
    head = []
    for item in items:
        head.append(item)
        count -= isinstance(item, av.VideoFrame)
        if not count:
            break
    return head


# Less is a careless muxer's wobble, which says nothing about what follows.
_JUMP = Fraction(1, 2)


class Continuity:
    """Moves the packets after a jump back, of all streams alike, so that sound and picture stay together.

    Each stream comes to the jump at its own place in the file; the second takes over what the first was moved
    by, unless that would put it before its own past. A gap ahead is left: nothing says that it is a mistake.
    Subtitles follow, and never lead: they may be stored in any order. Frames that an edit list cuts out are
    read on the way to the next ones, at times of their own: they make no jump.

    ``jumps`` counts them, by the stream that has most.

    Args:
        lead: by how much all times are moved from the beginning on, in seconds.
    """

    def __init__(self, lead: Fraction = Fraction(0)) -> None:
        self.lead = lead
        self._shifts: dict[int, list[Fraction]] = {}
        self._last: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}

    @property
    def jumps(self) -> int:
        return max(map(len, self._shifts.values()), default=0)

    def carry_on(self, packet: Packet[Stream]) -> None:
        """Give a packet its time in one line with those before it; call in order of storage."""
        stream, unit = packet.stream.index, packet.time_base
        if self.lead:
            delay(packet, self.lead)
        if packet.dts is None or packet.is_discard:
            return
        shifts = self._shifts.setdefault(stream, [])
        moment = packet.dts * unit
        if stream in self._last and moment + _total(shifts) < self._last[stream] - _JUMP:
            leads = packet.stream.type in ("video", "audio")
            shift = self._shared(stream, moment, Fraction(0) if leads else _JUMP)
            if shift is None and leads:
                shift = self._ends[stream] - moment
            if shift is not None:
                shifts.append(shift - _total(shifts))
        if shifts:
            delay(packet, _total(shifts))
        self._last[stream] = packet.dts * unit
        self._ends[stream] = (packet.dts + (packet.duration or 0)) * unit

    def _shared(self, stream: int, moment: Fraction, overlap: Fraction) -> Fraction | None:
        """Finds by how much another stream was moved, in all, at the jump that this one has come to.

        None if that reaches back by more than ``overlap`` before this one's past.
        """
        number = len(self._shifts[stream]) + 1
        for other in self._shifts.values():
            shared = _total(other[:number])
            if len(other) >= number and moment + shared > self._last[stream] - overlap:
                return shared
        return None


def delay(packet: Packet[Stream], seconds: Fraction) -> None:
    """Moves the times that a packet has, back where ``seconds`` are less than zero."""
    steps = round(seconds / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts + steps
    packet.pts = None if packet.pts is None else packet.pts + steps


def rebased(packet: Packet[Stream], origin: Fraction) -> bool:
    """Moves a packet's times to count from ``origin``, in seconds; False if it lies before, or has none."""
    first = round(origin / packet.time_base)
    if packet.pts is None or packet.dts is None or min(packet.pts, packet.dts) < first:
        return False
    delay(packet, -origin)
    return True


def _total(shifts: list[Fraction]) -> Fraction:
    return sum(shifts, Fraction(0))


MARGIN = 10
"""Seconds that sound and subtitles may be stored away from the pictures they go with."""


class Cutter:
    """Leaves of a stream of frames and packets what belongs to an excerpt.

    With a start, times are moved so that the first frame left is at zero; ``zero`` is its time
    in the file. Sound is cut between packets, a subtitle that reaches over an edge is shortened,
    a copied picture begins with its first key frame. Without a start nothing is moved.

    Args:
        reading: says which part of the file is wanted.
        origin: the time in the file, in seconds, that players call zero.
        copied: the streams whose packets come along.
    """

    def __init__(self, reading: Reading, origin: Fraction, copied: Iterable[Stream]) -> None:
        self.start = origin + reading.start if reading.start else None
        self.end = None
        if reading.duration is not None:
            self.end = origin + (reading.start or 0) + reading.duration
        self.zero: Fraction | None = None if self.start is not None else Fraction(0)
        self.reached_end = False
        self._copied = tuple(copied)
        self._awaiting_key = {s.index for s in self._copied if s.type == "video" and self.start is not None}

    def cut(
        self, items: Iterator[av.VideoFrame | Packet[Stream]]
    ) -> Iterator[av.VideoFrame | Packet[Stream]]:
        """Gives ``items`` in their order, without those that lie outside. Every frame must have its time."""
        early: list[Packet[Stream]] = []
        # Subtitles come once in a while: waiting for one could mean reading to the end.
        unfinished = {stream.index for stream in self._copied if stream.type in ("audio", "video")}
        for item in items:
            if isinstance(item, av.VideoFrame):
                unit = item.time_base or Fraction(1)
                at = (item.pts or 0) * unit
                if self.start is not None and at < self.start:
                    continue
                if self.end is not None and at >= self.end:
                    self.reached_end = True
                    if not unfinished or at > self.end + MARGIN:
                        return
                    continue
                if self.zero is None:
                    self.zero = at
                    for packet in early:
                        yield from self._moved(packet)
                if self.start is not None:
                    item.pts = (item.pts or 0) - round(self.zero / unit)
                yield item
                continue
            if self.end is not None and _time(item) >= self.end:
                unfinished.discard(item.stream.index)
                if self.reached_end and not unfinished:
                    return
            if self.zero is not None:
                yield from self._moved(item)
            elif self.start is not None and _end(item) >= self.start:
                early.append(item)

    def cut_copies(self, packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
        """Cuts copied packets alone, without the frames among them.

        ``cut`` must have come to a frame by then, as that says what zero is.
        """
        for packet in packets:
            if self.end is not None and _decoded(packet) > self.end + MARGIN:
                return
            yield from self._moved(packet)

    def chapters(self, chapters: Iterable[Any]) -> tuple[Any, ...]:
        """The chapters that reach into the excerpt, cut and moved like everything else."""
        kept = []
        for chapter in chapters:
            unit = chapter["time_base"]
            start, end = chapter["start"] * unit, chapter["end"] * unit
            if self.start is not None:
                start, end = max(start - (self.zero or 0), Fraction(0)), end - (self.zero or 0)
            if self.end is not None:
                end = min(end, self.end - (self.zero or 0))
            if end > start:
                kept.append({**chapter, "start": round(start / unit), "end": round(end / unit)})
        return tuple(kept)

    def expected(self, frames: int | None, rate: Fraction | None, length: Fraction | None) -> int | None:
        """Estimates how many of a file's ``frames`` belong to the excerpt, as far as its ``rate`` tells."""
        if self.start is None and self.end is None:
            return frames
        if rate is None or length is None:
            return None
        end = length if self.end is None else min(self.end, length)
        return max(1, round((end - (self.zero or 0)) * rate))

    def _moved(self, packet: Packet[Stream]) -> Iterator[Packet[Stream]]:
        zero = self.zero or Fraction(0)
        if packet.stream.type == "subtitle":
            if not self._shorten(packet):
                return
        elif packet.stream.type == "video":
            # In order of storage: a picture inside may need one stored before it and shown after it.
            if self.end is not None and _decoded(packet) >= self.end:
                return
            if packet.stream.index in self._awaiting_key:
                if not packet.is_keyframe or _time(packet) < zero:
                    return
                self._awaiting_key.discard(packet.stream.index)
        elif (self.start is not None and _time(packet) < zero) or (
            self.end is not None and _time(packet) >= self.end
        ):
            return
        if self.start is not None:
            delay(packet, -zero)
        yield packet

    def _shorten(self, packet: Packet[Stream]) -> bool:
        """Cut a subtitle to the excerpt, still in the file's times; False if nothing is left of it."""
        begin, end = _time(packet), _end(packet)
        unknown = not packet.duration
        if self.start is not None:
            begin = max(begin, self.zero or Fraction(0))
        if self.end is not None:
            end = min(end, self.end)
            if begin >= self.end:
                return False
        if begin > end or (begin == end and not unknown):
            return False
        packet.pts = packet.dts = round(begin / packet.time_base)
        if not unknown:
            packet.duration = round((end - begin) / packet.time_base)
        return True


def _time(packet: Packet[Stream]) -> Fraction:
    return (packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base


def _decoded(packet: Packet[Stream]) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base


def _end(packet: Packet[Stream]) -> Fraction:
    return _time(packet) + (packet.duration or 0) * packet.time_base
