"""Sinks: where restored frames go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from measnet.runtime.frame import Frame, Mark
from measnet.runtime.sinks.target import Target

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

    from measnet.runtime.sinks.part_folder import Header


@dataclass(frozen=True, slots=True)
class Begun:
    """Share of a result that an earlier run of the same command left; none, to begin with."""

    frames: int = 0
    """Frames of the source that are in what is finished."""

    names: frozenset[str] = frozenset()
    """Names of a folder's pictures that are finished."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Settled by the run that began it, for all that go on."""

    mark: Mark = field(default_factory=Mark)
    """Left behind the last frame."""


class Sink:
    """Takes restored frames and becomes a file. Nothing bears the result's name before ``finish``.

    One that keeps what is finished for a later run to go on with says so by ``resumable``, and overrides
    ``begin``, ``begun_before`` and ``kept``: ``finish`` with ``partial`` and ``abort`` then keep it.
    """

    resumable = False

    segment_frames: int | None = None
    """Every so many frames, and at the end, it is to be given a mark."""

    def __init__(self) -> None:
        self.skipped = 0
        """Frames that could not be placed in the file."""

        self.warnings: list[str] = []
        """Lines for the user."""

    def _take_over(self, other: Sink) -> None:
        """Adds what another sink has skipped and warned of, once it is done."""
        self.skipped += other.skipped
        self.warnings += [line for line in other.warnings if line not in self.warnings]

    def begin(self, header: Header, *, restart: bool) -> Begun:
        """Takes up what an earlier run left, or with ``restart`` throws it away; before the first ``write``.

        Raises UsageError when another run is at work on it or it was begun from something else, OutputError.
        """
        return Begun(settings=header.settings)

    def begun_before(self, header: Header, *, restart: bool) -> Begun:
        """Tells what ``begin`` would take up; changes nothing. Raises UsageError as ``begin``."""
        return Begun(settings=header.settings)

    def kept(self) -> int:
        """Says how many frames the same command need not restore again, were this run to end now."""
        return 0

    def made_of(self) -> dict[str, Any]:
        """Facts that must be the same in every run that works on the result, by words for the user."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Settles what runs that go on take over."""
        return {}

    def for_report(self) -> dict[str, Any]:
        """Says how a video's picture is encoded, ready for JSON."""
        return {}

    def figures(self) -> list[dict[str, Any]]:
        """Tells how each result of a live source fared, ready for JSON."""
        return []

    def write(self, frame: Frame, /) -> None:
        """Takes the next frame. Raises OutputError."""
        raise NotImplementedError

    def deliver(self, frame: Frame, delivered: Callable[[Frame], None], /) -> None:
        """Takes the next frame as ``write``; ``delivered`` is called once it has it, in whatever thread."""
        self.write(frame)
        delivered(frame)

    def copy(self, packet: Packet[Stream], /) -> None:
        """Takes a packet of one of the source's other streams, where it has a place for it."""

    def end_segment(self, mark: Mark, /) -> None:
        """Ends a segment behind the last frame, with what a run needs that goes on there."""

    def finish(self, *, partial: bool = False) -> Target | None:
        """Completes the file and gives it its name, or a name for partial results.

        Returns where it lies, or went; None when nothing had been written and so there is no file.
        Raises OutputError, after which nothing is left behind.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Leaves nothing behind. Does nothing after ``finish``."""
        raise NotImplementedError
