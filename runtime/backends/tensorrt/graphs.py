"""CUDA graphs: the launch of a whole network as one call, for one context, shape and set of addresses.

Capturing costs about as much as a frame, so a shape must have come a few times in a row; tiles of changing
sizes are launched the ordinary way. An engine that cannot be captured (streamed weights, shapes that depend
on data, plugins that allocate) is launched the ordinary way for good, and ``refusal`` says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

from measnet.errors import BackendError
from measnet.runtime.backends.tensorrt.cuda import Cuda, CudaError

STEADY = 3
"""Frames of one shape in a row before it is worth a graph."""


class LaunchGraph:
    """The graph of one slot of buffers, or none yet."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._graph: Any = None
        self._key: Hashable = None

    def holds(self, key: Hashable) -> bool:
        """Whether there is a graph for exactly these shapes and addresses."""
        return self._graph is not None and self._key == key

    def launch(self, stream: Any) -> None:
        self._cuda.launch(self._graph, stream)

    def capture(self, key: Hashable, stream: Any, enqueue: Callable[[], None]) -> None:
        """Records what ``enqueue`` puts into ``stream``, which must be idle and have run it once before.

        Nothing runs yet. Raises ``BackendError`` when it cannot be recorded; ``stream`` is usable then
        unless the error says the GPU is lost.
        """
        self.close()
        cuda = self._cuda
        cuda.begin_capture(stream)
        try:
            enqueue()
        except BaseException:
            _end_in_vain(cuda, stream)
            raise
        captured = cuda.end_capture(stream)
        if not _is_graph(captured):
            raise BackendError("CUDA returned no graph")
        try:
            self._graph = cuda.instantiate(captured)
        finally:
            cuda.destroy_captured(captured)
        self._key = key

    def close(self) -> None:
        """Forgets the graph. It must not be running."""
        graph, self._graph, self._key = self._graph, None, None
        if graph is not None:
            self._cuda.destroy_graph(graph)


def _end_in_vain(cuda: Cuda, stream: Any) -> None:
    """Takes a stream out of a capture that failed; a graph of the part that succeeded is thrown away."""
    with contextlib.suppress(CudaError):
        captured = cuda.end_capture(stream)
        if _is_graph(captured):
            cuda.destroy_captured(captured)


def _is_graph(captured: Any) -> bool:
    """A capture that holds nothing may end in None or in a null handle."""
    return captured is not None and int(captured) != 0
