"""The sink of a result that is only looked at."""

from __future__ import annotations

from measnet.runtime.frame import Frame
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.target import Target, Watched


class WatchedSink(Sink):
    """Keeps nothing: observers have seen the frames by now."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = 0

    def write(self, frame: Frame) -> None:
        self._frames += 1

    def finish(self, *, partial: bool = False) -> Target | None:
        return Watched() if self._frames else None

    def abort(self) -> None:
        """See Sink.abort."""
