"""Where the cameras of ``measnet-serve`` meet the rest of a live run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from measnet.runtime.job import Job
from measnet.runtime.live.events import Events
from measnet.runtime.live.watch import Watch
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.stream import Observer


def open_job(camera: Camera, watch: Watch, stop: threading.Event) -> Job:
    """Opens a camera and its sinks. Raises InputError where it gives no picture, MEASNetError."""
    return Job(camera.source, replace(camera.options, out=camera.sinks), watch=watch, stop=stop)


# MERGE 2 of 2, the operations server: to be started and closed here, with the events; what it yields shows
# one more camera (its telemetry and a LatestPair, which is an observer) and gives that camera's observers.
@contextlib.contextmanager
def operations(events: Events) -> Iterator[Callable[[Watch], Sequence[Observer]]]:
    """Serves what there is to see of the cameras; yields what is told of each of them."""
    yield lambda watch: ()
