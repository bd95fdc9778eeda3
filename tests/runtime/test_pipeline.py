"""The stages of a run end together, whichever of them fails, and leave no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from measnet.runtime.frame import Frame, Kind, Pixels, StreamInfo
from measnet.runtime.pipeline import RunFigures, run

TIME_BASE = Fraction(1, 25)


class Numbers:
    """A source of frames that say their number in every pixel."""

    def __init__(self, count: int, *, kind: Kind = "video", fail_at: int = -1, pause: float = 0) -> None:
        self.info = StreamInfo("numbers", kind, 4, 2, TIME_BASE)
        self.damaged = 0
        self.truncated = False
        self.warnings: list[str] = []
        self._count = count
        self._fail_at = fail_at
        self._pause = pause

    def read(self) -> Iterator[Frame]:
        for number in range(self._count):
            if number == self._fail_at:
                raise ValueError("source failed")
            time.sleep(self._pause)
            yield Frame(np.full((2, 4, 3), number % 256, np.uint8), number, TIME_BASE)

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self, *, fail_at: int = -1) -> None:
        self.skipped = 0
        self.warnings: list[str] = []
        self.numbers: list[int] = []
        self._fail_at = fail_at

    def write(self, item: object) -> None:
        assert isinstance(item, Frame)
        if item.pts == self._fail_at:
            raise OSError("sink failed")
        assert item.pixels.max() == item.pts % 256
        self.numbers.append(item.pts)

    def finish(self, *, partial: bool = False) -> Path | None:
        return None

    def abort(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def unchanged(pixels: Pixels) -> Pixels:
    return pixels


@pytest.mark.parametrize("queue_size", [1, 4])
def test_every_frame_arrives_in_order(queue_size: int) -> None:
    sink = Kept()
    figures = run(Numbers(50), unchanged, sink, queue_size=queue_size)
    assert sink.numbers == list(range(50))
    assert figures.frames == 50 and not figures.stopped and figures.dropped == 0


def test_stages_work_at_the_same_time() -> None:
    def slow(pixels: Pixels) -> Pixels:
        time.sleep(0.02)
        return pixels

    figures = run(Numbers(20, pause=0.02), slow, Kept())
    assert figures.seconds_decode + figures.seconds_restore > 1.4 * figures.seconds_total


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

    run(Counting(60), slow, Kept(), queue_size=3)
    assert max(lead) <= 3 + 2  # those in the queue, the one in hand, the one about to be put


@pytest.mark.parametrize("at", [0, 3, 49])
def test_failing_sink_surfaces(at: int) -> None:
    with pytest.raises(OSError, match="sink failed"):
        run(Numbers(50), unchanged, Kept(fail_at=at), queue_size=2)


@pytest.mark.parametrize("at", [0, 3, 49])
def test_failing_source_surfaces(at: int) -> None:
    with pytest.raises(ValueError, match="source failed"):
        run(Numbers(50, fail_at=at), unchanged, Kept(), queue_size=2)


def test_failing_engine_surfaces() -> None:
    def fail(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 3:
            raise RuntimeError("engine failed")
        return pixels

    with pytest.raises(RuntimeError, match="engine failed"):
        run(Numbers(50), fail, Kept(), queue_size=2)


def test_failing_progress_surfaces() -> None:
    def fail(figures: RunFigures) -> None:
        raise RuntimeError("terminal gone")

    with pytest.raises(RuntimeError, match="terminal gone"):
        run(Numbers(10_000), unchanged, Kept(), on_progress=fail)


def test_stop_writes_what_was_restored_and_ends() -> None:
    stop = threading.Event()

    def stop_at_five(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 5:
            stop.set()
        time.sleep(0.01)
        return pixels

    sink = Kept()
    figures = run(Numbers(100_000), stop_at_five, sink, stop=stop)
    assert figures.stopped
    assert sink.numbers == list(range(figures.frames))
    assert 6 <= figures.frames < 1000


def test_stop_after_the_end_does_not_count() -> None:
    stop = threading.Event()
    figures = run(Numbers(3), unchanged, Kept(), stop=stop)
    stop.set()
    assert not figures.stopped


def test_limit_ends_a_run_that_is_whole() -> None:
    sink = Kept()
    figures = run(Numbers(1000), unchanged, sink, limit=7)
    assert sink.numbers == list(range(7)) and not figures.stopped


def test_live_source_gives_the_newest_frame_and_counts_the_others() -> None:
    def slow(pixels: Pixels) -> Pixels:
        time.sleep(0.03)
        return pixels

    sink = Kept()
    figures = run(Numbers(100, kind="live", pause=0.005), slow, sink)
    assert figures.dropped > 40
    assert figures.frames + figures.dropped == 100
    assert sink.numbers == sorted(sink.numbers)
    assert sink.numbers[-1] == 99


def test_progress_is_told_in_the_callers_thread() -> None:
    threads: set[int] = set()
    run(
        Numbers(5, pause=0.05),
        unchanged,
        Kept(),
        on_progress=lambda figures: threads.add(threading.get_ident()),
    )
    assert threads == {threading.get_ident()}
