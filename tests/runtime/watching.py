"""A live stream that runs, and all that is heard of it, for tests of outages, stops and damage."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from measnet.errors import InputError
from measnet.runtime.frame import Frame
from measnet.runtime.live.events import Event, Events
from measnet.runtime.live.waits import Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.sources.live import LiveSource
from measnet.runtime.stream import run

from .conftest import Each
from .test_stream import Kept

PATIENT = 60.0
"""Seconds that a slow machine may take for anything."""


HURRIED = Waits(retry=0.1, longest_retry=0.4, gone=20.0)
"""A busy machine may hold up a stream that is sent for longer than the five seconds of everyday."""


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert until(lambda: set(threading.enumerate()) <= before)


def until(condition: Callable[[], Any], seconds: float = PATIENT) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def opened(url: str, source: type[LiveSource] = LiveSource, **options: Any) -> LiveSource:
    """Connects as soon as the sender, which has just been started, is there."""
    end = time.monotonic() + PATIENT
    while True:
        try:
            return source(url, **{"waits": HURRIED, **options})
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Watching:
    """A stream that runs, and all that is heard of it."""

    def __init__(
        self, url: str, patience: float = PATIENT, opened: Any = opened, waits: Waits = HURRIED
    ) -> None:
        self.events: list[Event] = []
        events = Events()
        self.watch = Watch("door", events)
        self.source: LiveSource = opened(url, patience=patience, watch=self.watch, waits=waits)
        self.connecting = self.watch.events.recent()
        events.listen(self.events.append)
        self.frames: list[Frame] = []
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def states(self) -> list[str]:
        return [str(event.state) for event in self.events if event.kind == "state"]

    @property
    def changes(self) -> list[str]:
        """States without stalls, which a machine may have of its own when it is busy."""
        states = [state for state in self.states if state != "stalled"]
        return [state for state, _ in itertools.groupby(states)]

    def more(self, count: int = 5) -> None:
        """Waits for so many more frames."""
        wanted = len(self.frames) + count
        assert until(lambda: len(self.frames) >= wanted), (len(self.frames), wanted, self.events)

    def heard(self, state: str, times: int = 1) -> None:
        assert until(lambda: self.states.count(state) >= times), self.events

    def end(self) -> float:
        """Stops it; the seconds that this took."""
        began = time.monotonic()
        self.stop.set()
        self._thread.join(PATIENT)
        assert not self._thread.is_alive()
        self.source.close()
        return time.monotonic() - began

    def ended(self) -> None:
        """Waits for its own end."""
        self._thread.join(PATIENT)
        assert not self._thread.is_alive(), self.events
        self.source.close()

    def _run(self) -> None:
        class All(Kept):
            def write(sink, frame: Frame) -> None:  # noqa: N805 - self is the other one
                self.frames.append(frame)

        run(self.source, (Each(),), All(), stop=self.stop, watch=self.watch)


@contextlib.contextmanager
def watched(url: str, **options: Any) -> Iterator[Watching]:
    watching = Watching(url, **options)
    try:
        yield watching
    finally:
        watching.end()


def rising(frames: list[Frame]) -> bool:
    return all(a.pts * a.time_base < b.pts * b.time_base for a, b in itertools.pairwise(frames))


def has_srt() -> bool:
    protocols = subprocess.run(["ffmpeg", "-v", "quiet", "-protocols"], capture_output=True, text=True)
    return "srt" in protocols.stdout.split()


@contextlib.contextmanager
def answers_nothing() -> Iterator[int]:
    """A port where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])
