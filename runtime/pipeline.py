"""Decode, restore and encode at the same time, each in a thread of its own.

    source ── queue ── restore ── queue ── sink

The queues are bounded, so a slow stage holds the others back instead of filling memory. An
error in any stage, and a stop from outside, reach every stage through the queues: nobody is
left waiting, and no thread outlives ``run``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from measnet.runtime.frame import Frame, Pixels
from measnet.runtime.queue import AbortedError, FrameQueue
from measnet.runtime.sinks import Sink
from measnet.runtime.sources import Source

Restore = Callable[[Pixels], Pixels]

_PROGRESS_EVERY = 0.1


@dataclass(slots=True)
class RunFigures:
    """What a run did. Times are seconds of work of one stage; ``seconds_total`` is by the clock.

    ``frames`` were restored, after the ``resumed_at`` that an earlier run had done.
    ``dropped`` are frames of a live source that a newer one overtook. ``stopped`` says that
    the run ended because it was told to, not because the source did.
    """

    resumed_at: int = 0
    frames: int = 0
    dropped: int = 0
    seconds_decode: float = 0.0
    seconds_restore: float = 0.0
    seconds_encode: float = 0.0
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
    restore: Restore,
    sink: Sink,
    *,
    on_progress: Callable[[RunFigures], None] = lambda figures: None,
    on_restored: Callable[[Frame, Frame], None] = lambda source, restored: None,
    stop: threading.Event | None = None,
    queue_size: int = 4,
    limit: int | None = None,
    resumed_at: int = 0,
) -> RunFigures:
    """Restore every frame of ``source`` into ``sink``; neither is closed or finished.

    A live source is not waited for: the engine gets the newest frame there is.

    Args:
        restore: H×W×3 RGB to the same shape and depth; called in one thread, in order.
        on_progress: called about ten times a second in the caller's thread.
        on_restored: called with every frame of the source and what became of it, in the restoring thread;
            it changes neither.
        stop: once set, the frames restored so far are written and the run ends.
        queue_size: how many frames may wait before each stage.
        limit: end after so many frames, those before ``resumed_at`` included.
        resumed_at: frames that were done before and that ``source`` leaves out.

    Raises:
        Whatever the first stage to fail raised. All threads have ended by then.
    """
    figures = RunFigures(resumed_at=resumed_at)
    if limit is not None and figures.position >= limit:
        return figures
    stages = _Stages(
        source, restore, sink, on_restored, stop or threading.Event(), queue_size, limit, figures
    )
    return stages.run(on_progress)


class _Stages:
    def __init__(
        self,
        source: Source,
        restore: Restore,
        sink: Sink,
        on_restored: Callable[[Frame, Frame], None],
        stop: threading.Event,
        queue_size: int,
        limit: int | None,
        figures: RunFigures,
    ) -> None:
        self._source = source
        self._restore = restore
        self._sink = sink
        self._on_restored = on_restored
        self._stop = stop
        self._limit = limit
        live = source.info.kind == "live"
        self._decoded = FrameQueue(1 if live else queue_size, newest_only=live)
        self._restored = FrameQueue(1 if live else queue_size)
        self._figures = figures
        self._failure: BaseException | None = None
        self._failing = threading.Lock()
        self._exhausted = False

    def run(self, on_progress: Callable[[RunFigures], None]) -> RunFigures:
        started = time.perf_counter()
        threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=f"measnet-{name}")
            for name, stage in (
                ("decode", self._decode_all),
                ("restore", self._restore_all),
                ("encode", self._encode_all),
            )
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_PROGRESS_EVERY)
                    self._figures.seconds_total = time.perf_counter() - started
                    self._pass_on_stop()
                    on_progress(self._figures)
        except BaseException:
            self._abort()
            for thread in threads:
                thread.join()
            raise
        self._figures.seconds_total = time.perf_counter() - started
        self._figures.dropped = self._decoded.dropped
        if self._failure is not None:
            raise self._failure
        return self._figures

    def _decode_all(self) -> None:
        items = self._source.read()
        try:
            while True:
                started = time.perf_counter()
                item = next(items, None)
                self._figures.seconds_decode += time.perf_counter() - started
                if item is None:
                    break
                self._decoded.put(item)
        finally:
            self._decoded.close()

    def _restore_all(self) -> None:
        # Whatever ends this stage, what has been restored is still to be written.
        with contextlib.closing(self._restored):
            while (item := self._decoded.get()) is not None:
                if isinstance(item, Frame):
                    started = time.perf_counter()
                    restored = replace(item, pixels=self._restore(item.pixels))
                    self._figures.seconds_restore += time.perf_counter() - started
                    self._figures.frames += 1
                    self._on_restored(item, restored)
                    item = restored
                self._restored.put(item)
                if self._figures.position == self._limit:
                    self._decoded.abort()
                    self._source.interrupt()
                    break
            self._exhausted = True

    def _encode_all(self) -> None:
        while (item := self._restored.get()) is not None:
            started = time.perf_counter()
            self._sink.write(item)
            self._figures.seconds_encode += time.perf_counter() - started

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except AbortedError:
            pass
        except BaseException as failure:
            with self._failing:
                if self._failure is None:
                    self._failure = failure
            self._abort()

    def _pass_on_stop(self) -> None:
        # A stop that comes after the last frame has nothing left to stop.
        if self._stop.is_set() and not self._figures.stopped and not self._exhausted:
            self._figures.stopped = True
            self._decoded.abort()
            self._source.interrupt()

    def _abort(self) -> None:
        self._source.interrupt()
        self._decoded.abort()
        self._restored.abort()
