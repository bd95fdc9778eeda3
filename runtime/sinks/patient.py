"""A sink of a live stream that may stall, fail and come back: the stream does not wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from measnet.errors import ClosedError, MEASNetError, OutputError
from measnet.runtime.frame import Frame
from measnet.runtime.live.backoff import Backoff
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.target import Target

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

ROOM = 4
"""Frames that may wait; then the oldest goes."""

SOUND_ROOM = 500
"""Packets that may wait, about ten seconds of sound; then the oldest goes."""

STEADY_SECONDS = 3.0
"""A sink that lasted for so long is tried again soon when it is lost; others ever more seldom."""

END_SECONDS = 10.0
"""The time that it has, when the stream has ended, to write the frames that wait."""


class PatientSink(Sink):
    """Gives a sink as many frames as it takes, in a thread of its own, and leaves out the rest.

    Events of kind ``sink`` tell that it stalls, fails, comes back; frames left out are counted as ``sink``.

    Args:
        target: for events.
        sink: open; None where it is yet to be opened by ``again``.
        watch: hears it.
        again: opens it anew after a failure, as often as it takes; None where a failure is the end of it.
        waits: says when it stalls, and when it is tried again.
    """

    def __init__(
        self,
        target: Target,
        sink: Sink | None,
        watch: Watch,
        again: Callable[[], Sink] | None = None,
        waits: Waits = USUAL,
    ) -> None:
        super().__init__()
        self.target = target
        self._name = str(target)
        self._sink = sink
        self._watch = watch
        self._again = again
        self._waits = waits
        self._backoff = Backoff(waits)
        self._report = {} if sink is None else sink.for_report()
        self.warnings = [] if sink is None else list(sink.warnings)
        self._delivered: Callable[[Frame], None] = lambda frame: None
        self._items: deque[Frame | Packet[Stream]] = deque()
        self._frames = self._packets = 0
        self._ending = False
        self._gone: OutputError | None = None
        self._stalled = False
        self._written_at = self._opened_at = time.monotonic()
        self._written = self._left_out = self._failures = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"measnet-sink-{self._name}", daemon=True)
        self._thread.start()

    def for_report(self) -> dict[str, Any]:
        return self._report

    def figures(self) -> list[dict[str, Any]]:
        with self._changed:
            return [
                {
                    "target": self._name,
                    "frames": self._written,
                    "dropped": self._left_out,
                    "failures": self._failures,
                    "error": None if self._gone is None else str(self._gone),
                }
            ]

    def deliver(self, frame: Frame, delivered: Callable[[Frame], None]) -> None:
        """See Sink.deliver. Of a frame that is left out nothing is told."""
        self._delivered = delivered
        self.write(frame)

    def write(self, frame: Frame) -> None:
        """See Sink.write. Never waits. Raises OutputError once it is gone for good."""
        full = stalls = False
        with self._changed:
            self._refuse_if_gone()
            full = self._frames == ROOM
            if full:
                self._drop(Frame)
                self._left_out += 1
                quiet = time.monotonic() - self._written_at
                stalls = quiet > self._waits.unwritten and not self._stalled and self._sink is not None
                self._stalled = self._stalled or stalls
            self._items.append(frame)
            self._frames += 1
            self._changed.notify_all()
        if full:
            self._watch.drop("sink")
        if stalls:
            self._watch.say("sink", f"{self._name} stalls; frames for it are left out")

    def copy(self, packet: Packet[Stream]) -> None:
        with self._changed:
            self._refuse_if_gone()
            if self._packets == SOUND_ROOM:
                self._drop(type(packet))
            self._items.append(packet)
            self._packets += 1
            self._changed.notify_all()

    def finish(self, *, partial: bool = False) -> Target | None:
        """See Sink.finish. Nothing is waited for longer than ``END_SECONDS``."""
        self._end(at_once=False)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive() and self._sink is not None:
            words = f"{self._name} took nothing for {END_SECONDS:.0f} s at the end"
            self._watch.say("sink", words)
            raise OutputError(words)
        with self._changed:
            if isinstance(self._gone, ClosedError):
                return self.target
            self._refuse_if_gone()
            sink, self._sink = self._sink, None
        if sink is None:
            # It was away at the end; what it had until then, it has.
            return self.target if self._written else None
        try:
            return sink.finish(partial=partial)
        except OutputError as error:
            if self._again is None:
                raise
            self._watch.say("sink", f"{self._name} is lost at the end: {error}")
            return self.target if self._written else None
        finally:
            sink.abort()
            self._take_over(sink)

    def abort(self) -> None:
        """See Sink.abort. A thread that does not come back is left to itself."""
        self._end(at_once=True)
        self._thread.join(END_SECONDS / 3)
        sink = self._sink
        if sink is not None and not self._thread.is_alive():
            self._sink = None
            sink.abort()
            self._take_over(sink)

    def _work(self) -> None:
        """Hands frames on; ends with the stream, or when the sink is gone for good."""
        while (item := self._next()) is not None:
            sink = self._sink
            if sink is None:
                self._leave_out(item)
                self._reopen()
                continue
            try:
                if isinstance(item, Frame):
                    sink.write(item)
                else:
                    sink.copy(item)
            except Exception as error:
                self._leave_out(item)
                self._fail(sink, error)
                continue
            if isinstance(item, Frame):
                self._note_written(item)

    def _next(self) -> Frame | Packet[Stream] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ending or self._gone)
            if self._gone is not None or not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Frame):
                self._frames -= 1
            else:
                self._packets -= 1
            return item

    def _note_written(self, frame: Frame) -> None:
        self._delivered(frame)
        with self._changed:
            self._written += 1
            self._written_at = time.monotonic()
            recovered, self._stalled = self._stalled, False
        if recovered:
            self._watch.say("sink", f"{self._name} takes frames again")

    def _fail(self, sink: Sink, error: Exception) -> None:
        """Lets go of a sink that failed; for good, unless it is of a kind that is opened again."""
        words = str(error) if isinstance(error, MEASNetError) else f"{type(error).__name__}: {error}"
        sink.abort()
        self._take_over(sink)
        final = self._again is None
        closed = isinstance(error, ClosedError)
        if time.monotonic() >= self._opened_at + STEADY_SECONDS:
            self._backoff.reset()
        with self._changed:
            self._sink = None
            self._failures += not closed
            self._stalled = False
            if final:
                self._gone = ClosedError(words) if closed else OutputError(words)
                self._items.clear()
        if not (self._ending or closed):
            self._watch.say("sink", f"{self._name} is lost: {words}")
        if not final:
            self._pause()

    def _reopen(self) -> None:
        """Tries to open it anew; after a failure waits until it is worth another try, or the stream ends."""
        assert self._again is not None
        if self._ending:
            return
        try:
            sink = self._again()
        except Exception:
            self._pause()
            return
        with self._changed:
            late = self._ending
            if not late:
                self._sink = sink
                self._written_at = self._opened_at = time.monotonic()
        if late:
            sink.abort()
        else:
            self._watch.say("sink", f"{self._name} is back")

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending, self._backoff.pause())

    def _end(self, *, at_once: bool) -> None:
        with self._changed:
            self._ending = True
            if at_once:
                self._items.clear()
            self._changed.notify_all()

    def _drop(self, kind: type) -> None:
        oldest = next(item for item in self._items if isinstance(item, kind))
        # Not remove(): comparing frames would compare their pixels.
        self._items = deque(item for item in self._items if item is not oldest)
        if kind is Frame:
            self._frames -= 1
        else:
            self._packets -= 1

    def _leave_out(self, item: Frame | Packet[Stream]) -> None:
        """Counts a frame that was taken from the queue for nothing."""
        if isinstance(item, Frame):
            with self._changed:
                self._left_out += 1
            self._watch.drop("sink")

    def _refuse_if_gone(self) -> None:
        if self._gone is not None:
            raise type(self._gone)(str(self._gone))
