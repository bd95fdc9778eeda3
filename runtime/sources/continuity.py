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

    ``jumps`` counts them, by the stream that has most.
    """

    def __init__(self) -> None:
        self._shifts: dict[int, list[Fraction]] = {}
        self._last: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}

    @property
    def jumps(self) -> int:
        return max(map(len, self._shifts.values()), default=0)

    def carry_on(self, packet: Packet[Stream]) -> None:
        """Give a packet its time in one line with those before it; call in order of storage."""
        stream, unit = packet.stream.index, packet.time_base
        if packet.dts is None:
            return
        shifts = self._shifts.setdefault(stream, [])
        moment = packet.dts * unit
        if stream in self._last and moment + _total(shifts) < self._last[stream] - _JUMP:
            shifts.append(self._jump(stream, moment) - _total(shifts))
        if shifts:
            steps = round(_total(shifts) / unit)
            packet.dts += steps
            packet.pts = None if packet.pts is None else packet.pts + steps
        self._last[stream] = packet.dts * unit
        self._ends[stream] = (packet.dts + (packet.duration or 0)) * unit

    def _jump(self, stream: int, moment: Fraction) -> Fraction:
        """By how much a stream is moved from here on, in all."""
        number = len(self._shifts[stream]) + 1
        for other in self._shifts.values():
            if len(other) >= number:
                shared = _total(other[:number])
                if moment + shared > self._last[stream]:
                    return shared
        return self._ends[stream] - moment


def _total(shifts: list[Fraction]) -> Fraction:
    return sum(shifts, Fraction(0))
