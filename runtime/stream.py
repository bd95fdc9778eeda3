"""One stream: a source's frames through the steps that restore them, into a sink, all at the same time.

    source ── queue ── restore ── queue ── fuse ── queue ── sink
                          └ observers ─────┘

The source, each step and the sink have a thread. Queues between them are bounded, so that a slow one holds
the others back instead of filling memory. An error in any thread, and a stop from outside, reach all of them
through the queues: nobody is left waiting, and no thread outlives ``run``.

A file and a live source differ in their pace alone: frames of a file wait their turn, of a live source the
newest is taken and the others are dropped. Frames are dropped behind the decoder, never before it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from measnet.errors import ClosedError
from measnet.runtime.frame import Frame, Mark, Restoration, SourceKind
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Late

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

    from measnet.runtime.live.ladder import Ladder
    from measnet.runtime.run_report import RunReport
    from measnet.runtime.sinks import Sink
    from measnet.runtime.sources import Source

    Item: TypeAlias = Frame | Restoration | Mark | Packet[Stream]

_PROGRESS_EVERY = 0.1


class Step(Protocol):
    """A step on the way of every frame, in a thread of its own. ``name`` is that of its time in reports."""

    name: str

    def take(self, passing: Restoration, /) -> None:
        """Does its part for the next frame, in order."""
        ...

    def mark(self, mark: Mark, /) -> Mark:
        """Adds its state after the frames so far, at the end of a segment."""
        ...


class LaterStep(Step, Protocol):
    """A step behind the first."""

    @property
    def waits(self) -> bool:
        """Says whether a frame is done only when the next one has been taken, or ``end`` was called."""
        ...

    def end(self) -> None:
        """Does what is left to do for the last frame."""
        ...


class Observer:
    """Looks at every frame of a run, and changes none. Subclasses override what they need."""

    def restored(self, passing: Restoration) -> None:
        """Sees a frame as the engine gave it back, in the thread that restores."""

    def finished(self, passing: Restoration) -> None:
        """Sees a frame as it goes to the sink, in the thread of the last step."""

    def fill(self, report: RunReport) -> None:
        """Adds what it has seen to the report of a run that ended, well or not."""

    def conclude(self, report: RunReport) -> None:
        """Adds its verdict to the report of a run that ended well. Raises MEASNetError for a bad one."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Way in which frames wait for the next step."""

    room: int
    """Frames that may wait for the first step, and for the sink."""

    late: Late = "block"
    """Frame that is dropped when there is no room for the first step."""

    max_latency: float | None = None
    """Seconds that a frame may be old when the first step takes it."""


PACES: dict[SourceKind, Pace] = {"video": Pace(4), "images": Pace(4), "live": Pace(1, "drop-oldest")}

DROPPED_FOR = {"drop-oldest": "newer", "drop-newest": "full"}
"""Reasons by which frames without room are counted."""


def pace_of(kind: SourceKind, late: Late | None, max_latency: float | None) -> Pace:
    """Gives the usual pace of a kind of source, changed by the options that were given."""
    usual = PACES[kind]
    return Pace(usual.room, late or usual.late, max_latency)


@dataclass(slots=True)
class RunFigures:
    """Counts and times of a run.

    ``frames`` were restored, after the ``resumed_at`` that an earlier run had done. ``dropped`` are frames
    that were left out for being late, and those that a ladder spared. ``most_tiles`` is of the frame that was
    cut into most.
    ``seconds`` are those of work, of ``decode``, of each step by its name, and of ``encode``;
    ``seconds_total`` is by the clock. ``stopped`` says that the run ended because it was told to, not because
    the source did.
    """

    resumed_at: int = 0
    frames: int = 0
    dropped: int = 0
    most_tiles: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds_total: float = 0.0
    stopped: bool = False

    @property
    def position(self) -> int:
        """Frames of the result that are restored, by this run or one before."""
        return self.resumed_at + self.frames

    @property
    def fps(self) -> float:
        """Frames restored per second by the clock."""
        return self.frames / self.seconds_total if self.seconds_total else 0.0


def run(
    source: Source,
    steps: tuple[Step, *tuple[LaterStep, ...]],
    sink: Sink,
    *,
    observers: Sequence[Observer] = (),
    on_progress: Callable[[RunFigures], None] = lambda figures: None,
    stop: threading.Event | None = None,
    pace: Pace | None = None,
    limit: int | None = None,
    resumed_at: int = 0,
    watch: Watch | None = None,
    ladder: Ladder | None = None,
) -> RunFigures:
    """Takes every frame of ``source`` through ``steps`` into ``sink``; none of them is closed or finished.

    Args:
        steps: the first one restores.
        on_progress: called about ten times a second in the caller's thread.
        stop: once set, the frames restored so far are written and the run ends.
        pace: by default that of the source's kind.
        limit: end after so many frames, those before ``resumed_at`` included.
        resumed_at: frames that were done before and that ``source`` leaves out.
        watch: gets the figures of every frame: arrived, dropped, delivered to the sink.
        ladder: told of every latency, and says which frames are spared.

    Raises:
        Whatever the first thread to fail raised. All threads have ended by then.
    """
    figures = RunFigures(resumed_at=resumed_at)
    if limit is not None and figures.position >= limit:
        return figures
    pace = pace or PACES[source.info.kind]
    watch = watch or Watch(source.info.name)
    stream = _Stream(source, steps, sink, observers, pace, limit, figures, watch, ladder)
    return stream.run(on_progress, stop or threading.Event())


class _Stream:
    def __init__(
        self,
        source: Source,
        steps: tuple[Step, *tuple[LaterStep, ...]],
        sink: Sink,
        observers: Sequence[Observer],
        pace: Pace,
        limit: int | None,
        figures: RunFigures,
        watch: Watch,
        ladder: Ladder | None,
    ) -> None:
        self._watch = watch
        self._ladder = ladder
        self._max_latency = pace.max_latency
        self._dropping = threading.Lock()
        self._source = source
        self._steps = steps
        self._later_steps: tuple[LaterStep, ...] = steps[1:]
        self._sink = sink
        self._observers = observers
        self._limit = limit
        self._figures = figures
        self._segment = sink.segment_frames
        # Between two steps one frame waits: more would only fill memory.
        later = [FrameQueue(1) for _ in steps[1:]]
        self._to_steps = [FrameQueue(pace.room, pace.late, self._drop), *later]
        self._to_sink = FrameQueue(pace.room)
        self._failure: BaseException | None = None
        self._failing = threading.Lock()
        self._exhausted = False

    def run(self, on_progress: Callable[[RunFigures], None], stop: threading.Event) -> RunFigures:
        started = time.perf_counter()
        works: list[tuple[str, Callable[..., None], int | None, tuple[int, ...]]] = [
            ("decode", self._decode, 0, ()),
            *(
                (step.name, self._go_on_steps if number else self._begin_steps, number, (number,))
                for number, step in enumerate(self._steps)
            ),
            ("encode", self._write, None, ()),
        ]
        threads = [
            threading.Thread(target=self._guarded, args=(work, number, *arguments), name=f"measnet-{name}")
            for name, work, number, arguments in works
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_PROGRESS_EVERY)
                    self._figures.seconds_total = time.perf_counter() - started
                    self._pass_on(stop)
                    on_progress(self._figures)
        except BaseException:
            self._abort()
            for thread in threads:
                if thread.ident is not None:  # else it did not even start
                    thread.join()
            raise
        self._figures.seconds_total = time.perf_counter() - started
        if self._failure is not None:
            raise self._failure
        return self._figures

    def _decode(self) -> None:
        items, queue = self._source.read(), self._to_steps[0]
        with contextlib.closing(queue):
            while True:
                started = time.perf_counter()
                item = next(items, None)
                self._figures.seconds["decode"] += time.perf_counter() - started
                if item is None:
                    break
                if isinstance(item, Frame):
                    self._watch.telemetry.arrived(item.pixels.shape[1], item.pixels.shape[0])
                    if not item.captured:
                        item = replace(item, captured=time.monotonic())
                    if self._ladder is not None and not self._ladder.admits():
                        self._drop("ladder")
                        continue
                queue.put(item)

    def _begin_steps(self, number: int) -> None:
        """The first step: frames become restorations, and segments end."""
        figures, queue = self._figures, self._to_steps[number]
        # However this step ends, frames that are restored are still written.
        with contextlib.closing(self._following(number)):
            while (item := queue.get()) is not None:
                if not isinstance(item, Frame):
                    self._hand_on(number, item)
                    continue
                if self._is_late(item):
                    self._drop("late")
                    continue
                passing = Restoration(item, item.pixels)
                self._take(number, passing)
                figures.frames += 1
                figures.most_tiles = max(figures.most_tiles, passing.tiles)
                for observer in self._observers:
                    observer.restored(passing)
                passing.engine_result = None
                self._hand_on(number, passing)
                if self._segment and figures.position % self._segment == 0:
                    self._hand_on(number, self._steps[number].mark(Mark()))
                if figures.position == self._limit:
                    queue.abort()
                    self._source.interrupt()
                    break
            self._exhausted = True
            if self._segment and figures.frames and figures.position % self._segment:
                self._hand_on(number, self._steps[number].mark(Mark()))

    def _go_on_steps(self, number: int) -> None:
        step = self._later_steps[number - 1]
        held: list[Item] = []  # a frame that waits for the next, and what came behind it
        with contextlib.closing(self._following(number)):
            while (item := self._to_steps[number].get()) is not None:
                if isinstance(item, Restoration):
                    self._take(number, item)
                    self._hand_on_all(number, held)
                elif isinstance(item, Mark):
                    item = step.mark(item)
                held.append(item)
                if not (step.waits and isinstance(held[0], Restoration)):
                    self._hand_on_all(number, held)
            step.end()
            if not self._exhausted:
                # A run that goes on has the frame that would have followed: it makes this segment again.
                held = [item for item in held if not isinstance(item, Mark)]
            self._hand_on_all(number, held)

    def _hand_on_all(self, number: int, held: list[Item]) -> None:
        for item in held:
            self._hand_on(number, item)
        held.clear()

    def _is_late(self, frame: Frame) -> bool:
        age = time.monotonic() - frame.captured
        late = self._max_latency is not None and age > self._max_latency
        if late and self._ladder is not None:
            self._ladder.saw(age)
        return late

    def _drop(self, reason: str) -> None:
        with self._dropping:
            self._figures.dropped += 1
        self._watch.drop(reason)

    def _take(self, number: int, passing: Restoration) -> None:
        step = self._steps[number]
        started = time.perf_counter()
        step.take(passing)
        self._figures.seconds[step.name] += time.perf_counter() - started

    def _following(self, number: int) -> FrameQueue:
        return self._to_sink if number + 1 == len(self._steps) else self._to_steps[number + 1]

    def _hand_on(self, number: int, item: Item) -> None:
        last = number + 1 == len(self._steps)
        if last and isinstance(item, Restoration):
            for observer in self._observers:
                observer.finished(item)
            item = item.result
        self._following(number).put(item)

    def _write(self) -> None:
        closed = False
        while (item := self._to_sink.get()) is not None:
            if closed:
                continue
            started = time.perf_counter()
            try:
                self._give(item)
            except ClosedError:
                closed = True
                self._to_steps[0].abort()
                self._source.interrupt()
            self._figures.seconds["encode"] += time.perf_counter() - started

    def _give(self, item: Item) -> None:
        if isinstance(item, Frame):
            self._sink.deliver(item, self._note_delivered)
        elif isinstance(item, Mark):
            self._sink.end_segment(item)
        else:
            assert not isinstance(item, Restoration)
            self._sink.copy(item)

    def _note_delivered(self, frame: Frame) -> None:
        latency = time.monotonic() - frame.captured
        self._watch.telemetry.delivered(latency)
        if self._ladder is not None:
            self._ladder.saw(latency)

    def _guarded(self, work: Callable[..., None], number: int | None, *arguments: object) -> None:
        """Does the work of step ``number``, of the source (0) or of the sink (None). If that fails, stages in
        front of it are called off, and those behind it write what has been restored."""
        try:
            work(*arguments)
        except AbortedError:
            pass
        except BaseException as failure:
            with self._failing:
                if self._failure is None:
                    self._failure = failure
            self._abort(number)

    def _pass_on(self, stop: threading.Event) -> None:
        # A stop that comes after the last frame has nothing left to stop.
        if stop.is_set() and not self._figures.stopped and not self._exhausted:
            self._figures.stopped = True
            self._to_steps[0].abort()
            self._source.interrupt()

    def _abort(self, number: int | None = None) -> None:
        """Calls off all that is in front of step ``number`` and the step itself; without one, everything."""
        self._source.interrupt()
        queues = [*self._to_steps, self._to_sink]
        for queue in queues if number is None else queues[: number + 1]:
            queue.abort()


class AbortedError(Exception):
    """The run was called off while a thread waited on a queue."""


class FrameQueue:
    """Hands frames and packets from one thread to the next, in order.

    Only frames count against the ``capacity``: packets are small, and a stretch of audio must not take the
    places of the frames that keep the engine busy.

    Args:
        capacity: how many frames may wait.
        late: which frame goes when there is no room: ``block`` waits for room, ``drop-oldest`` lets the frame
            go that waits for longest, ``drop-newest`` the one that comes. The first frame of all stays: with
            it results begin.
        on_drop: called with the reason for each that goes.
    """

    def __init__(
        self, capacity: int, late: Late = "block", on_drop: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._capacity = capacity
        self._late = late
        self._on_drop = on_drop
        self._items: deque[Item] = deque()
        self._frames = 0
        self._begun = False
        self._closed = False
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Appends, once there is room or room was made. Raises AbortedError."""
        dropped = False
        with self._changed:
            if isinstance(item, Frame | Restoration):
                dropped = self._late != "block" and self._frames >= self._capacity and not self._aborted
                made_room = dropped and self._late == "drop-oldest" and self._drop_oldest()
                if made_room or not dropped:
                    self._changed.wait_for(lambda: self._aborted or self._frames < self._capacity)
                    self._frames += 1
                    self._items.append(item)
            else:
                self._items.append(item)
            if self._aborted:
                raise AbortedError
            self._changed.notify_all()
        if dropped:
            self._on_drop(DROPPED_FOR[self._late])

    def get(self) -> Item | None:
        """Waits for the next item; None once the queue is closed and empty. Raises AbortedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._closed or self._items)
            if self._aborted:
                raise AbortedError
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Frame | Restoration):
                self._frames -= 1
                self._begun = True
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Says that nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Wakes everyone who waits, with AbortedError."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def _drop_oldest(self) -> bool:
        """Drops the frame that waits for longest, save the first of all; says whether there was one."""
        waiting = [item for item in self._items if isinstance(item, Frame)]
        oldest = next(iter(waiting[not self._begun :]), None)
        # Not remove(): comparing frames would compare their pixels.
        self._items = deque(item for item in self._items if item is not oldest)
        self._frames -= oldest is not None
        return oldest is not None
