"""Several results of one run, as one sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av.packet import Packet

from measnet.errors import ClosedError, OutputError
from measnet.runtime.frame import Frame
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.muxer import RUN_UP
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.target import Target

if TYPE_CHECKING:
    from av.stream import Stream


class Several(Sink):
    """Gives each of several sinks all frames and all sound.

    The first failure of one ends the run, save of patient ones and of windows that are closed: these are left
    out from then on, and the run ends with the last of them. A run with several results is not resumable.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        super().__init__()
        self._all = list(sinks)
        self._left = list(sinks)

    def for_report(self) -> dict[str, Any]:
        """See Sink.for_report. That of the first."""
        return self._all[0].for_report()

    def figures(self) -> list[dict[str, Any]]:
        return [figures for sink in self._all for figures in sink.figures()]

    def deliver(self, frame: Frame, delivered: Callable[[Frame], None]) -> None:
        """See Sink.deliver. It is told of the first that is left."""
        first = self._left[0]
        self._each(lambda sink: sink.deliver(frame, delivered) if sink is first else sink.write(frame))

    def write(self, frame: Frame) -> None:
        self._each(lambda sink: sink.write(frame))

    def copy(self, packet: Packet[Stream]) -> None:
        # That it is hidden cannot be told of a twin: it would be heard, if it is not the run-up before zero.
        hidden = packet.is_discard and not -RUN_UP < (packet.pts or 0) * packet.time_base < 0
        twins = [] if hidden else [_twin(packet) for _ in self._left[1:]]
        given = dict(zip(self._left, [packet, *twins], strict=False))
        self._each(lambda sink: sink.copy(given[sink]) if sink in given else None)

    def finish(self, *, partial: bool = False) -> Target | None:
        """See Sink.finish. Where the first file lies, or else the first result went."""
        made: list[Target | None] = []
        self._each(lambda sink: made.append(sink.finish(partial=partial)))
        self._gather()
        there = [target for target in made if target is not None]
        return next((target for target in there if isinstance(target, Path)), there[0] if there else None)

    def abort(self) -> None:
        for sink in self._all:
            sink.abort()
        self._gather()

    def _each(self, do: Callable[[Sink], None]) -> None:
        for sink in list(self._left):
            try:
                do(sink)
            except OutputError as error:
                may_go = isinstance(sink, PatientSink) or isinstance(error, ClosedError)
                if len(self._left) == 1 or not may_go:
                    raise
                self._left.remove(sink)

    def _gather(self) -> None:
        self.skipped = max(sink.skipped for sink in self._all)
        self.warnings = list(dict.fromkeys(line for sink in self._all for line in sink.warnings))


def _twin(packet: Packet[Stream]) -> Packet[Stream]:
    """The same packet once more, as each file sets its own times in it."""
    twin: Packet[Stream] = Packet(bytes(packet))
    twin.stream = packet.stream
    twin.pts, twin.dts, twin.duration = packet.pts, packet.dts, packet.duration
    twin.time_base = packet.time_base
    twin.is_keyframe = packet.is_keyframe
    return twin
