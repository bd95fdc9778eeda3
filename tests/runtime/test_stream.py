"""The stages of a run end together, whichever of them fails, and leave no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet.image import Pixels
from measnet.runtime.frame import Frame, Mark, Restoration, SourceKind, StreamInfo
from measnet.runtime.sinks import Sink
from measnet.runtime.sources import Source
from measnet.runtime.stream import Observer, Pace, RunFigures, run

from .conftest import Each

TIME_BASE = Fraction(1, 25)


class Numbers(Source):
    """A source of frames that say their number in every pixel."""

    def __init__(
        self, count: int, *, kind: SourceKind = "video", fail_at: int = -1, pause: float = 0
    ) -> None:
        super().__init__()
        self.info = StreamInfo("numbers", kind, 4, 2, TIME_BASE)
        self._count = count
        self._fail_at = fail_at
        self._pause = pause

    def read(self) -> Iterator[Frame]:
        for number in range(self._count):
            if number == self._fail_at:
                raise ValueError("source failed")
            time.sleep(self._pause)
            yield Frame(np.full((2, 4, 3), number % 256, np.uint8), number, TIME_BASE)


class Kept(Sink):
    """A sink that keeps what it is given."""

    def __init__(self, *, fail_at: int = -1) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self._fail_at = fail_at

    def write(self, frame: Frame) -> None:
        if frame.pts == self._fail_at:
            raise OSError("sink failed")
        assert frame.pixels.max() == frame.pts % 256
        self.numbers.append(frame.pts)

    def finish(self, *, partial: bool = False) -> Path | None:
        return None

    def abort(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def restored(
    source: Source, sink: Sink, restore: Callable[[Pixels], Pixels] = lambda pixels: pixels, **options: Any
) -> RunFigures:
    return run(source, (Each(restore),), sink, **options)


@pytest.mark.parametrize("room", [1, 4])
def test_every_frame_arrives_in_order(room: int) -> None:
    sink = Kept()
    figures = restored(Numbers(50), sink, pace=Pace(room))
    assert sink.numbers == list(range(50))
    assert figures.frames == 50 and not figures.stopped and figures.dropped == 0


def together() -> threading.Barrier:
    """Two who only go on when both are at work."""
    return threading.Barrier(2, timeout=60)


def test_stages_work_at_the_same_time() -> None:
    both = together()

    class Meeting(Numbers):
        def read(self) -> Iterator[Frame]:
            for frame in super().read():
                if frame.pts:
                    both.wait()
                yield frame

    def meet(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] < 9:
            both.wait()  # for the source, which is at the next frame
        return pixels

    assert restored(Meeting(10), Kept(), meet).frames == 10


def test_source_waits_for_a_slow_engine() -> None:
    made: list[int] = []
    lead: list[int] = []

    class Counting(Numbers):
        def read(self) -> Iterator[Frame]:
            for frame in super().read():
                made.append(frame.pts)
                yield frame

    def slow(pixels: Pixels) -> Pixels:
        time.sleep(0.002)
        lead.append(len(made) - int(pixels[0, 0, 0]))
        return pixels

    restored(Counting(60), Kept(), slow, pace=Pace(3))
    assert max(lead) <= 3 + 2  # those in the queue, the one in hand, the one about to be put


@pytest.mark.parametrize("at", [0, 3, 49])
def test_failing_sink_surfaces(at: int) -> None:
    with pytest.raises(OSError, match="sink failed"):
        restored(Numbers(50), Kept(fail_at=at), pace=Pace(2))


@pytest.mark.parametrize("at", [0, 3, 49])
def test_failing_source_surfaces(at: int) -> None:
    with pytest.raises(ValueError, match="source failed"):
        restored(Numbers(50, fail_at=at), Kept(), pace=Pace(2))


def test_failing_engine_surfaces() -> None:
    def fail(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 3:
            raise RuntimeError("engine failed")
        return pixels

    with pytest.raises(RuntimeError, match="engine failed"):
        restored(Numbers(50), Kept(), fail, pace=Pace(2))


def test_frames_restored_before_the_engine_failed_are_written_by_a_slow_sink() -> None:
    failed = threading.Event()

    class Slow(Kept):
        def write(self, frame: Frame) -> None:
            assert failed.wait(60)
            time.sleep(0.05)  # for the failure to reach all stages
            super().write(frame)

    def fail(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 3:
            failed.set()
            raise RuntimeError("engine failed")
        return pixels

    sink = Slow()
    with pytest.raises(RuntimeError, match="engine failed"):
        restored(Numbers(50), sink, fail, pace=Pace(4))
    assert sink.numbers == [0, 1, 2]


def test_failing_progress_surfaces() -> None:
    def fail(figures: RunFigures) -> None:
        raise RuntimeError("terminal gone")

    with pytest.raises(RuntimeError, match="terminal gone"):
        restored(Numbers(10_000), Kept(), on_progress=fail)


@pytest.mark.parametrize("last", range(3))
def test_a_thread_that_cannot_be_started_leaves_none_of_the_others_waiting(
    last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def fail(thread: threading.Thread) -> None:
        if len(started) == last:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start"):
        restored(Numbers(10_000), Kept(), pace=Pace(1))


def test_stop_writes_what_was_restored_and_ends() -> None:
    stop = threading.Event()

    def stop_at_five(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 5:
            stop.set()
        time.sleep(0.01)
        return pixels

    sink = Kept()
    figures = restored(Numbers(100_000), sink, stop_at_five, stop=stop)
    assert figures.stopped
    assert sink.numbers == list(range(figures.frames))
    assert 6 <= figures.frames < 1000


def test_stop_after_the_end_does_not_count() -> None:
    stop = threading.Event()
    figures = restored(Numbers(3), Kept(), stop=stop)
    stop.set()
    assert not figures.stopped


def test_limit_ends_a_run_that_is_whole() -> None:
    sink = Kept()
    figures = restored(Numbers(1000), sink, limit=7)
    assert sink.numbers == list(range(7)) and not figures.stopped


def test_live_source_gives_the_newest_frame_and_counts_the_others() -> None:
    made: list[int] = []

    class Counting(Numbers):
        def read(self) -> Iterator[Frame]:
            for frame in super().read():
                made.append(frame.pts)
                yield frame

    def slow(pixels: Pixels) -> Pixels:
        begun, until = len(made), time.monotonic() + 60
        while len(made) < min(begun + 6, 100) and time.monotonic() < until:
            time.sleep(0.001)
        return pixels

    sink = Kept()
    figures = restored(Counting(100, kind="live", pause=0.001), sink, slow)
    assert figures.dropped > 40
    assert figures.frames + figures.dropped == 100
    assert sink.numbers == sorted(sink.numbers)
    assert sink.numbers[-1] == 99


def test_progress_is_told_in_the_callers_thread() -> None:
    threads: set[int] = set()
    restored(
        Numbers(5, pause=0.05),
        Kept(),
        on_progress=lambda figures: threads.add(threading.get_ident()),
    )
    assert threads == {threading.get_ident()}


class Slow:
    """A step that takes its time, and knows how many frames have come through it."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.name = name
        self.waits = False
        self.seen = 0
        self._seconds = seconds

    def take(self, passing: Restoration) -> None:
        time.sleep(self._seconds)
        self.seen += 1

    def mark(self, mark: Mark) -> Mark:
        state = self.name.encode() + bytes([self.seen])
        return Mark((mark.state or b"") + state, mark.past)

    def end(self) -> None:
        """Nothing is left to do."""


def test_steps_work_at_the_same_time_on_frames_behind_each_other() -> None:
    both = together()

    class Meeting(Slow):
        def take(self, passing: Restoration) -> None:
            # Of the first step all but the first frame, of the second all but the last.
            if passing.source.pts != (0 if self.name == "restore" else 9):
                both.wait()
            super().take(passing)

    assert run(Numbers(10), (Meeting("restore"), Meeting("temporal")), Kept()).frames == 10


class Segmented(Kept):
    segment_frames = 4

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[int, bytes | None]] = []

    def end_segment(self, mark: Mark) -> None:
        self.marks.append((len(self.numbers), mark.state))


@pytest.mark.parametrize(("count", "ends"), [(10, [4, 8, 10]), (8, [4, 8]), (3, [3]), (0, [])])
def test_the_state_of_every_step_comes_behind_the_end_of_a_segment(count: int, ends: list[int]) -> None:
    sink = Segmented()
    run(Numbers(count), (Slow("restore", 0.001), Slow("temporal")), sink)
    assert sink.marks == [(n, b"restore" + bytes([n]) + b"temporal" + bytes([n])) for n in ends]
    assert sink.numbers == list(range(count))


class Waiting(Slow):
    """Adds to each frame the number of the one that follows it."""

    def __init__(self) -> None:
        super().__init__("temporal")
        self.waits = True
        self.last: Restoration | None = None
        self.followed: dict[int, int | None] = {}

    def take(self, passing: Restoration) -> None:
        super().take(passing)
        if self.last is not None:
            self.followed[self.last.source.pts] = passing.source.pts
        self.last = passing

    def end(self) -> None:
        if self.last is not None:
            self.followed[self.last.source.pts] = None


@pytest.mark.parametrize(("count", "ends"), [(10, [4, 8, 10]), (8, [4, 8]), (1, [1]), (0, [])])
def test_a_step_that_waits_for_the_next_frame_hands_each_on_when_it_is_done(
    count: int, ends: list[int]
) -> None:
    step = Waiting()

    class Done(Observer):
        def finished(self, passing: Restoration) -> None:
            assert passing.source.pts in step.followed

    sink = Segmented()
    run(Numbers(count), (Slow("restore", 0.001), step), sink, observers=[Done()])
    assert sink.numbers == list(range(count))
    assert step.followed == {n: n + 1 if n + 1 < count else None for n in range(count)}
    # Every mark knows the frames before it and none behind.
    assert sink.marks == [(n, b"restore" + bytes([n]) + b"temporal" + bytes([n])) for n in ends]


@pytest.mark.parametrize(("waits", "ends"), [(False, [4]), (True, [])])
def test_a_stop_behind_a_segment_leaves_its_last_frame_to_be_made_again(waits: bool, ends: list[int]) -> None:
    """It was not followed by the frame that follows it in a whole run."""
    stop, sink, step = threading.Event(), Segmented(), Waiting()
    step.waits = waits

    class Stopping(Slow):
        def take(self, passing: Restoration) -> None:
            super().take(passing)
            if self.seen == 4:
                stop.set()
                time.sleep(1)

    assert run(Numbers(1000), (Stopping("restore"), step), sink, stop=stop).stopped
    assert sink.numbers == list(range(4))
    assert [end for end, _ in sink.marks] == ends


def test_segments_are_counted_on_from_an_earlier_run_and_a_stop_ends_none() -> None:
    sink = Segmented()
    run(Numbers(3), (Slow("restore"),), sink, resumed_at=2)
    assert [end for end, _ in sink.marks] == [2, 3]
    stop, stopped = threading.Event(), Segmented()

    class Stopping(Slow):
        def take(self, passing: Restoration) -> None:
            super().take(passing)
            if self.seen == 5:
                stop.set()
            time.sleep(0.05)

    assert run(Numbers(1000), (Stopping("restore"),), stopped, stop=stop).stopped
    assert all(end % 4 == 0 for end, _ in stopped.marks)


def test_observers_see_every_frame_behind_the_engine_and_in_the_end() -> None:
    class Seen(Observer):
        def __init__(self) -> None:
            self.numbers: dict[str, list[int]] = {"restored": [], "finished": []}

        def restored(self, passing: Restoration) -> None:
            self.numbers["restored"].append(passing.source.pts)
            result: Any = passing.engine_result
            assert result == passing.source.pts

        def finished(self, passing: Restoration) -> None:
            self.numbers["finished"].append(passing.source.pts)
            assert passing.engine_result is None

    class Telling(Slow):
        def take(self, passing: Restoration) -> None:
            result: Any = passing.source.pts
            passing.engine_result = result

    seen, other = Seen(), Seen()
    run(Numbers(9), (Telling("restore"), Slow("temporal")), Kept(), observers=[seen, other])
    assert seen.numbers == other.numbers == {"restored": list(range(9)), "finished": list(range(9))}
