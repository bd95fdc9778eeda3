"""Places where the cameras of ``measnet-serve`` meet the rest of a live run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from measnet.errors import UsageError
from measnet.runtime.job import Job
from measnet.runtime.live.events import Event, Events, State
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.stream import Observer


# MERGE 1 of 2, source and sinks: this class goes, measnet.runtime.live.watch.Watch is what it stands for.
@dataclass(slots=True)
class Watch:
    """What a camera speaks through: states as events and in its telemetry."""

    camera: str
    events: Events
    telemetry: Telemetry = field(init=False)
    state: State | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(self.camera)

    def enter(self, state: State, words: str, **values: float | int | str) -> None:
        """Tells that it is in another state from now on; nothing where it is in that one already."""
        if state != self.state:
            self.state = state
            self.telemetry.enter(state)
            self.events.say(Event(self.camera, "state", words, state, values))


class CameraWatch(Watch):
    """Watch of a camera that is tried until it shows a picture: until then no try is its end.

        connecting ── (not there) ── reconnecting ── running ── ended, failed

    Its source and its job enter states as they do alone; those of tries that failed are passed over.
    """

    def __init__(self, camera: str, events: Events) -> None:
        super().__init__(camera, events)
        self._trying = True

    def enter(self, state: State, words: str, **values: float | int | str) -> None:
        """See Watch."""
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
        """Tells that it is over, by whatever state that has not been told yet."""
        self._trying = False
        self.enter(state, words)


def open_job(camera: Camera, watch: Watch, stop: threading.Event) -> Job:
    """Opens a camera and its sinks. Raises InputError where it gives no picture, MEASNetError."""
    # MERGE 1, too: Job(camera.source, replace(camera.options, out=camera.sinks), watch=watch, stop=stop)
    if len(camera.sinks) > 1:
        raise UsageError(f"camera {camera.name}: several sinks at once are not there yet; name one")
    watch.enter("connecting", "connecting")
    job = Job(camera.source, replace(camera.options, out=camera.sinks[0]))
    watch.enter("running", f"running: {job.info.width}x{job.info.height}")
    return job


# MERGE 2 of 2, the operations server: to be started and closed here, with the events; what it yields shows
# one more camera (its telemetry and a LatestPair, which is an observer) and gives that camera's observers.
@contextlib.contextmanager
def operations(events: Events) -> Iterator[Callable[[CameraWatch], Sequence[Observer]]]:
    """Serves what there is to see of the cameras; yields what is told of each of them."""
    yield lambda watch: ()
