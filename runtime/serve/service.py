"""Service: all cameras of a file, each in a thread of its own, until they have ended or are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from measnet.errors import InputError, MEASNetError
from measnet.runtime.engine import open_restorer
from measnet.runtime.job import Job
from measnet.runtime.live.backoff import Backoff
from measnet.runtime.live.events import Event, Events, State
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import EngineOptions, RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.run_report import RunReport
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.stream import Observer
from measnet.runtime.turns import Turns

Opens = Callable[[RunOptions, Turns], Restorer]

_LOOK = 0.2


class Engines:
    """All engines of a number of cameras, which take turns at them; those that ask for the same one share it.

    A Triton server takes requests of all cameras at once and batches them itself: its cameras have a
    connection each.
    """

    def __init__(self, opens: Opens) -> None:
        self._opens = opens
        self._turns = Turns()
        self._shared: dict[EngineOptions, Restorer] = {}
        self._opened: list[Restorer] = []

    def open(self, options: RunOptions) -> Restorer:
        """Opens the engine that ``options`` ask for, or finds it open. Raises MEASNetError."""
        known = self._shared.get(options.engine)
        if known is not None:
            return known
        restorer = self._opens(options, self._turns)
        self._opened.append(restorer)
        if restorer.description.get("backend") != "triton":
            self._shared[options.engine] = restorer
        # The steerable graph is loaded when first asked for: here, before any camera is opened.
        _ = restorer.steerable
        return restorer

    def close(self) -> None:
        """Lets go of all of them."""
        for restorer in self._opened:
            restorer.close()


class CameraWatch(Watch):
    """Watch of a camera that is tried until it shows a picture: until then no try is its end.

        connecting ── (not there) ── reconnecting ── running ── ended, failed

    Its source and its job enter states as they do alone; those of tries that failed are passed over.
    """

    def __init__(self, camera: str, events: Events) -> None:
        super().__init__(camera, events)
        self._trying = True

    def enter(self, state: State, words: str, **values: float | int | str) -> None:
        if state == "running":
            self._trying = False
        if not self._trying or (state == "connecting" and self.state is None):
            super().enter(state, words, **values)

    def try_again(self, words: str) -> None:
        """Tells why it is tried again; a note where it is not the first time."""
        if self.state == "reconnecting":
            self.events.say(Event(self.camera, "note", words))
        super().enter("reconnecting", words)

    def over(self, state: State, words: str) -> None:
        """Tells that it is over, unless that was told."""
        self._trying = False
        if self.state not in ("ended", "failed"):
            self.enter(state, words)


class Service:
    """Restores all ``cameras`` at once, with engines that they share.

    A camera that cannot be reached is tried again until it can. One that has ended or failed, after a first
    picture, is done; the others go on. ``reports`` has what became of each, in their order.

    Args:
        events: hears what happens to them.
        observers_of: gives what is to look at a camera's frames.
        opens: opens an engine, in turns with the others.

    Raises:
        MEASNetError: one of the engines cannot be had. No camera has been opened by then.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        events: Events,
        observers_of: Callable[[CameraWatch], Sequence[Observer]] = lambda watch: (),
        opens: Opens = open_restorer,
    ) -> None:
        self._engines = Engines(opens)
        try:
            restorers = [self._engines.open(camera.options) for camera in cameras]
        except BaseException:
            self._engines.close()
            raise
        self._lines = [
            _CameraRun(camera, CameraWatch(camera.name, events), restorer, observers_of)
            for camera, restorer in zip(cameras, restorers, strict=True)
        ]

    @property
    def reports(self) -> list[RunReport]:
        """Reports of the cameras so far, in their order."""
        return [line.report for line in self._lines]

    def run(self, stop: threading.Event) -> bool:
        """Restores until all have ended, as they do when ``stop`` is set; says whether none has failed."""
        threads = [
            threading.Thread(target=line.run, args=(stop,), name=f"measnet-camera-{line.camera.name}")
            for line in self._lines
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK)  # and look for signals
        except BaseException:
            stop.set()
            raise
        finally:
            for thread in threads:
                thread.join()
            self._engines.close()
        return not any(line.watch.state == "failed" for line in self._lines)


class _CameraRun:
    """One camera on its way, from connecting to its end. Nothing that happens to it leaves its thread."""

    def __init__(
        self,
        camera: Camera,
        watch: CameraWatch,
        restorer: Restorer,
        observers_of: Callable[[CameraWatch], Sequence[Observer]],
    ) -> None:
        self.camera = camera
        self.watch = watch
        self.report = RunReport(input=camera.name)
        self._restorer = restorer
        self._observers = observers_of(watch)

    def run(self, stop: threading.Event) -> None:
        """Does all of it; ends soon after ``stop`` is set."""
        try:
            self._serve(stop)
        except MEASNetError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error} (a fault of this program)")
        else:
            self.watch.over("ended", "stopped" if stop.is_set() else "ended")

    def _serve(self, stop: threading.Event) -> None:
        job = self._job(stop)
        if job is None:
            return
        self.report = job.report
        self.report.input = self.camera.name
        job.run(self._restorer, stop, self._observers)

    def _job(self, stop: threading.Event) -> Job | None:
        """Opens the camera, as soon as it can be; None where it is told to stop before."""
        backoff, said = Backoff(self.camera.options.live.waits), ""
        while not stop.is_set():
            try:
                options = replace(self.camera.options, out=self.camera.sinks)
                return Job(self.camera.source, options, watch=self.watch, stop=stop, await_receivers=True)
            except InputError as error:
                if str(error) != said:
                    said = self.report.error = str(error)
                    self.watch.try_again(f"{said}; it is tried again")
            except MEASNetError:
                if not stop.is_set():
                    raise
            stop.wait(backoff.pause())
        return None

    def _fail(self, words: str) -> None:
        self.report.error = words
        self.watch.over("failed", " ".join(words.split()))
