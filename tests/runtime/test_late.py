"""Frames that come too late: which of them go, how late the others are, and what a ladder does about it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from measnet.errors import BackendError, UsageError
from measnet.image import Pixels
from measnet.runtime.frame import Frame, Mark, Restoration
from measnet.runtime.live.backoff import Backoff
from measnet.runtime.live.events import Event, Events
from measnet.runtime.live.ladder import LEAST_FRAMES, PATIENCE, WINDOW, AtRung, Ladder, rungs
from measnet.runtime.live.latencies import Latencies
from measnet.runtime.live.waits import USUAL
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Live
from measnet.runtime.stream import FrameQueue, Observer, Pace, RunFigures, pace_of, run

from .conftest import Each
from .identity import given_back
from .test_stream import TIME_BASE, Kept, Numbers


def run_slowly(seconds: float, **options: Any) -> tuple[RunFigures, list[int], Watch]:
    """60 live frames, one in 5 ms, through an engine that takes ``seconds`` for each."""

    def slow(pixels: Pixels) -> Pixels:
        time.sleep(seconds)
        return pixels

    sink, watch = Kept(), Watch("door")
    figures = run(Numbers(60, kind="live", pause=0.005), (Each(slow),), sink, watch=watch, **options)
    return figures, sink.numbers, watch


@pytest.mark.parametrize(
    ("late", "reason"), [("drop-oldest", "newer"), ("drop-newest", "full"), ("block", None)]
)
def test_the_frame_that_goes_is_chosen(late: Any, reason: str | None) -> None:
    figures, numbers, watch = run_slowly(0.03, pace=Pace(2, late))
    told = watch.telemetry.figures()
    assert (told.frames_in, told.frames_out) == (60, len(numbers))
    assert numbers == sorted(numbers) and len(numbers) + figures.dropped == 60
    assert dict(told.dropped) == ({} if reason is None else {reason: figures.dropped})
    if reason is None:
        assert numbers == list(range(60))
    else:
        assert figures.dropped > 0
    if reason == "newer":
        assert numbers[-2:] == [58, 59]
    if reason == "full":
        assert numbers[:2] == [0, 1]


def test_a_queue_that_drops_keeps_the_newest_or_what_was_there() -> None:
    def frame(number: int) -> Frame:
        return Frame(np.zeros((2, 2, 3), np.uint8), number, TIME_BASE)

    for late, left in (("drop-oldest", [3, 4]), ("drop-newest", [1, 2])):
        gone: list[str] = []
        queue = FrameQueue(2, late, gone.append)  # type: ignore[arg-type]  # one of the words
        queue.put(frame(0))
        assert isinstance(first := queue.get(), Frame) and first.pts == 0
        for number in range(1, 5):
            queue.put(frame(number))
        queue.close()
        kept = [item.pts for item in iter(queue.get, None) if isinstance(item, Frame)]
        assert kept == left and len(gone) == 2


@pytest.mark.parametrize("capacity", [1, 2])
def test_the_first_frame_is_never_dropped_so_that_results_begin_with_it(capacity: int) -> None:
    gone: list[str] = []
    queue = FrameQueue(capacity, "drop-oldest", gone.append)
    for number in range(5):
        queue.put(Frame(np.zeros((2, 2, 3), np.uint8), number, TIME_BASE))
    queue.close()
    kept = [item.pts for item in iter(queue.get, None) if isinstance(item, Frame)]
    assert kept == [0, 4][:capacity] and gone == ["newer"] * (5 - capacity)


def test_frames_that_are_too_old_for_the_engine_are_left_out() -> None:
    ages: list[float] = []

    class Ages(Observer):
        def restored(self, passing: Restoration) -> None:
            ages.append(time.monotonic() - passing.source.captured)

    figures, numbers, watch = run_slowly(0.05, pace=Pace(8, "block", max_latency=0.2), observers=[Ages()])
    dropped = watch.telemetry.figures().dropped
    assert dict(dropped) == {"late": figures.dropped} and figures.dropped > 5
    assert len(numbers) + figures.dropped == 60
    assert len(ages) == len(numbers)


def test_live_sources_drop_and_files_wait_unless_something_else_is_asked_for() -> None:
    assert pace_of("live", None, None).late == "drop-oldest"
    assert pace_of("video", None, None).late == pace_of("images", None, None).late == "block"
    assert pace_of("video", "drop-newest", 0.5) == Pace(4, "drop-newest", 0.5)
    with pytest.raises(UsageError, match="max-latency"):
        Live(max_latency=0)
    with pytest.raises(UsageError, match="reconnect"):
        Live(reconnect=float("nan"))


def test_the_latency_of_a_run_is_that_from_the_decoder_to_the_sink() -> None:
    _, numbers, watch = run_slowly(0.04, pace=Pace(1, "drop-oldest"))
    latency = watch.telemetry.latency()
    assert latency is not None and watch.telemetry.figures().latency is not None
    assert 0.04 * 0.98 <= latency.p50 <= latency.p95 <= latency.p99 <= latency.largest
    assert len(numbers) == watch.telemetry.figures().frames_out


def test_percentiles_are_true_to_one_percent_and_take_no_more_room_over_days() -> None:
    random = np.random.default_rng(3)
    values = random.lognormal(-2, 1, 20_000)
    latencies = Latencies()
    for value in values:
        latencies.add(float(value))
    told = latencies.latency()
    assert told is not None and told.largest == values.max()
    for share, figure in ((50, told.p50), (95, told.p95), (99, told.p99)):
        assert figure == pytest.approx(np.percentile(values, share), rel=0.012)
    for value in (0.0, 1e-9, 1e9):
        latencies.add(value)
    assert len(latencies._classes) < 1100
    assert Latencies().latency() is None


def test_outages_are_the_time_stalled_and_reconnecting_and_end_with_the_stream() -> None:
    watch = Watch("door")
    figures = watch.telemetry.figures
    watch.enter("connecting", "")
    watch.enter("running", "")
    assert figures().outage_seconds == 0
    watch.enter("stalled", "")
    time.sleep(0.05)
    watch.enter("reconnecting", "")
    time.sleep(0.05)
    assert figures().outage_seconds >= 0.1
    watch.enter("running", "")
    told = figures().outage_seconds
    time.sleep(0.02)
    assert figures().outage_seconds == told and figures().reconnects == 1
    watch.end("stopped")
    watch.enter("ended", "again")
    time.sleep(0.02)
    assert figures().outage_seconds == told and figures().state == "ended"
    assert [event.words for event in watch.events.recent()][-1] == "stopped"


def test_pauses_between_connections_grow_to_a_limit_and_differ_by_chance() -> None:
    steady = Backoff(chance=lambda: 0.0)
    pauses = [steady.pause() for _ in range(10)]
    assert pauses[0] == USUAL.retry and pauses[-1] == USUAL.longest_retry
    assert pauses == sorted(pauses) and pauses[3] == USUAL.retry * 1.5**3
    steady.reset()
    assert steady.pause() == USUAL.retry
    assert Backoff(chance=lambda: 1.0).pause() == USUAL.retry / 2
    assert len({Backoff().pause() for _ in range(20)}) > 10


def test_drops_are_told_now_and_then_with_their_reasons() -> None:
    watch = Watch("door", late_every=0.2)
    told: list[Event] = []
    watch.events.listen(told.append)
    began = time.monotonic()
    for _ in range(40):
        watch.drop("newer")
        watch.drop("late")
        time.sleep(0.01)
    assert 2 <= len(told) <= 1 + (time.monotonic() - began) / 0.2
    assert {event.kind for event in told} == {"late"}
    assert told[0].words == "frames left out: 1 newer"
    together = Counter[str]()
    for event in told:
        together.update({reason: int(count) for reason, count in event.values.items()})
    assert together["newer"] <= 40 and together["late"] <= 40
    assert dict(watch.telemetry.figures().dropped) == {"newer": 40, "late": 40}


RUNGS = rungs()


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def climb(ladder: Ladder, clock: Hand, seconds: float, latency: float) -> list[str]:
    """Ten frames a second of the same latency; the rungs on the way."""
    words = [ladder.rung.words]
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        ladder.saw(latency)
        if ladder.rung.words != words[-1]:
            words.append(ladder.rung.words)
    return words


def test_a_ladder_goes_down_while_frames_are_late_and_up_when_there_is_time() -> None:
    clock, events = Hand(), Events()
    ladder = Ladder(0.5, Watch("door", events), rungs(), clock=clock)
    all_rungs = [rung.words for rung in RUNGS]
    assert climb(ladder, clock, 60, 0.8) == all_rungs
    assert climb(ladder, clock, PATIENCE - 1, 0.1) == all_rungs[-1:]
    assert climb(ladder, clock, 3 * PATIENCE, 0.1) == all_rungs[::-1]
    assert climb(ladder, clock, 2 * PATIENCE, 0.1) == ["full"]
    said = [event.words for event in events.recent() if event.kind == "ladder"]
    assert said[0] == "frames come later than 0.5 s: every second frame"
    assert said[-1] == "there is time again: full"
    assert len(said) == 6 == len(ladder.for_report())
    assert ladder.for_report()[0]["at"] >= WINDOW


def test_a_ladder_waits_twice_as_long_each_time_that_more_was_too_much() -> None:
    clock = Hand()
    ladder = Ladder(0.5, Watch("door"), rungs(), clock=clock)
    climb(ladder, clock, 3, 0.8)
    waits = []
    for _ in range(3):
        began = clock.now
        while ladder.rung != RUNGS[0]:
            climb(ladder, clock, 0.1, 0.1)
        waits.append(clock.now - began)
        climb(ladder, clock, WINDOW + 0.2, 0.8)
        assert ladder.rung == RUNGS[1]
    assert waits == pytest.approx([PATIENCE, 2 * PATIENCE, 4 * PATIENCE], abs=3)


@pytest.mark.parametrize("latency", [0.3, 0.45])
def test_a_ladder_stays_where_frames_are_neither_late_nor_early(latency: float) -> None:
    clock = Hand()
    ladder = Ladder(0.5, Watch("door"), rungs(), clock=clock)
    climb(ladder, clock, 3, 0.8)
    assert climb(ladder, clock, 500, latency) == [RUNGS[1].words]


def test_a_few_late_frames_are_no_reason() -> None:
    clock = Hand()
    ladder = Ladder(0.5, Watch("door"), rungs(), clock=clock)
    for _ in range(LEAST_FRAMES * 50):
        climb(ladder, clock, 0.1, 5.0)
        climb(ladder, clock, 0.2, 0.3)
    assert ladder.rung == RUNGS[0]


class Sized:
    """A first step that takes as long as the picture is large, and notes the sizes."""

    name = "restore"

    def __init__(self, seconds: float) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self._seconds = seconds

    def take(self, passing: Restoration) -> None:
        self.sizes.append(passing.source.pixels.shape)
        height, width = passing.source.pixels.shape[:2]
        time.sleep(self._seconds * height * width / (25 * 35))
        passing.pixels, passing.tiles = passing.source.pixels, 1
        passing.engine_result = given_back(passing.pixels)

    def mark(self, mark: Mark) -> Mark:
        return mark


def test_a_stream_that_cannot_keep_up_is_restored_small_and_comes_out_whole() -> None:
    class Endless(Numbers):
        def read(self) -> Any:
            number = 0
            while not self.over.is_set():
                time.sleep(0.02)
                yield Frame(np.full((25, 35, 3), 100, np.uint8), number, TIME_BASE)
                number += 1

        over = threading.Event()

    source, step, watch = Endless(0, kind="live"), Sized(0.25), Watch("door")
    ladder = Ladder(0.2, watch, rungs(), window=0.2)
    shapes: set[tuple[int, ...]] = set()
    results: list[object] = []
    stop = threading.Event()

    class Shapes(Kept):
        def write(self, frame: Frame) -> None:
            shapes.add(frame.pixels.shape)
            assert (frame.pixels == 100).all()

    class Results(Observer):
        def restored(self, passing: Restoration) -> None:
            results.append(passing.engine_result)
            assert passing.source.pixels.shape == (25, 35, 3)
            if step.sizes.count((13, 18, 3)) > 20 or len(results) > 300:
                stop.set()
                source.over.set()

    run(
        source,
        (AtRung(step, ladder, watch),),
        Shapes(),
        watch=watch,
        ladder=ladder,
        stop=stop,
        observers=[Results()],
        pace=Pace(1, "drop-oldest", 0.2),
    )
    assert ladder.rung.half
    assert set(step.sizes) == {(25, 35, 3), (13, 18, 3)} and shapes == {(25, 35, 3)}
    assert results[0] is not None and results[-1] is None
    told = watch.telemetry.figures()
    assert told.rung == ladder.rung.words and told.dropped["ladder"] > 0


def test_the_rungs_are_fewer_frames_then_a_smaller_model_then_a_smaller_picture() -> None:
    assert [rung.words for rung in rungs("nano")] == [
        "full",
        "every second frame",
        "every second frame, by nano",
        "every second frame, by nano, at half size",
        "every fourth frame, by nano, at half size",
    ]
    assert len(rungs()) == 4 and not any(rung.smaller for rung in rungs())


@pytest.mark.parametrize("there", [True, False], ids=["which is there", "which is not"])
def test_a_smaller_model_takes_over_and_hands_back(there: bool) -> None:
    large, small, clock, watch, opened = Sized(0), Sized(0), Hand(), Watch("door"), []
    ladder = Ladder(0.5, watch, rungs("nano"), clock=clock)

    def open_smaller() -> Sized:
        opened.append(1)
        if not there:
            raise BackendError("no memory")
        return small

    step = AtRung(large, ladder, watch, open_smaller)

    def take() -> Restoration:
        frame = Frame(np.zeros((25, 35, 3), np.uint8), 0, TIME_BASE)
        passing = Restoration(frame, frame.pixels)
        step.take(passing)
        return passing

    assert take().engine_result is not None and not opened
    while ladder.rung.smaller is None:
        climb(ladder, clock, 0.1, 0.8)
    assert (take().engine_result is None) == there
    take()
    assert len(opened) == 1 and (len(small.sizes), len(large.sizes)) == ((2, 1) if there else (0, 3))
    notes = [event.words for event in watch.events.recent() if event.kind == "note"]
    assert notes == ([] if there else ["nano cannot take over: no memory"])
    while ladder.rung.smaller is not None:
        climb(ladder, clock, 0.1, 0.1)
    assert take().engine_result is not None
