"""Times that jump back in a container, as in recordings strung together, made to go on."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

# Less is a careless muxer's wobble, which says nothing about what follows.
_JUMP = Fraction(1, 2)


class Continuity:
    """Moves the packets after a jump back, of all streams alike, so that sound and picture stay together.

    Each stream comes to the jump at its own place in the file; the second takes over what the first was moved
    by, unless that would put it before its own past. A gap ahead is left: nothing says that it is a mistake.
    Subtitles follow, and never lead: they may be stored in any order. What an edit list has cut out is read
    on the way to what follows, at times of its own: it makes no jump.

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
            _move(packet, self.lead)
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
            _move(packet, _total(shifts))
        self._last[stream] = packet.dts * unit
        self._ends[stream] = (packet.dts + (packet.duration or 0)) * unit

    def _shared(self, stream: int, moment: Fraction, overlap: Fraction) -> Fraction | None:
        """By how much another stream was moved, in all, at the jump that this one has come to; None if that
        reaches back by more than ``overlap`` before this one's past."""
        number = len(self._shifts[stream]) + 1
        for other in self._shifts.values():
            shared = _total(other[:number])
            if len(other) >= number and moment + shared > self._last[stream] - overlap:
                return shared
        return None


def _move(packet: Packet[Stream], seconds: Fraction) -> None:
    steps = round(seconds / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts + steps
    packet.pts = None if packet.pts is None else packet.pts + steps


def _total(shifts: list[Fraction]) -> Fraction:
    return sum(shifts, Fraction(0))
