"""Where the cameras of ``measnet-serve`` meet the rest of a live run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from measnet.runtime.job import Job
from measnet.runtime.live.events import Event, Events, State
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.stream import Observer


# MERGE 1 of 2, source and sinks: measnet.runtime.live.watch.Watch takes the place of this class, which has the
# part of its face that is used here; open_job is Job(camera.source, replace(camera.options, out=camera.sinks),
# watch=watch, stop=stop). Until then a camera has one sink.
@dataclass(slots=True)
class Watch:
    """What a camera speaks through: states as events and in its telemetry."""

    camera: str
    events: Events
    telemetry: Telemetry = field(init=False)
    state: State | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(self.camera)

    def enter(self, state: State, words: str) -> None:
        """Tells that it is in another state from now on."""
        if state != self.state:
            self.state = state
            self.telemetry.enter(state)
            self.events.say(Event(self.camera, "state", words, state))


def open_job(camera: Camera, watch: Watch, stop: threading.Event) -> Job:
    """Opens a camera and its sinks. Raises InputError where it gives no picture, MEASNetError."""
    return Job(camera.source, replace(camera.options, out=camera.sinks[0]))


# MERGE 2 of 2, the operations server: to be started and closed here, with the events; what it yields shows
# one more camera (its telemetry and a LatestPair, which is an observer) and gives that camera's observers.
@contextlib.contextmanager
def operations(events: Events) -> Iterator[Callable[[Watch], Sequence[Observer]]]:
    """Serves what there is to see of the cameras; yields what is told of each of them."""
    yield lambda watch: ()
