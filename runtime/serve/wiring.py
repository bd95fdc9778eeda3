"""Where the cameras of ``measnet-serve`` meet the rest of a live run."""

from __future__ import annotations

import threading
from dataclasses import replace

from measnet.runtime.job import Job
from measnet.runtime.live.watch import Watch
from measnet.runtime.serve.cameras import Camera


def open_job(camera: Camera, watch: Watch, stop: threading.Event) -> Job:
    """Opens a camera and its sinks. Raises InputError where it gives no picture, MEASNetError."""
    return Job(camera.source, replace(camera.options, out=camera.sinks), watch=watch, stop=stop)
