"""Memory that this process shares with a Triton server on the same machine, so that pictures are not sent."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 8
"""Regions that wait for their next picture, at most."""


class SharedRegions:
    """Regions of shared memory, one for each request under way; kept from frame to frame. Thread-safe.

    Args:
        client: a gRPC client of ``tritonclient``.
        timeout: seconds in which the server is to register a region.
    """

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._idle: list[Region] = []
        self._lock = threading.Lock()

    @classmethod
    def offered_by(cls, client: Any, timeout: float) -> SharedRegions | None:
        """Tries whether the server can open this process's memory; None where not, as in a container."""
        from tritonclient.utils import InferenceServerException

        regions = cls(client, timeout)
        try:
            with regions.holding(np.zeros(1, np.uint8)):
                pass
        except (InferenceServerException, OSError):
            return None
        return regions

    @contextlib.contextmanager
    def holding(self, image: NDArray[Any]) -> Iterator[Region]:
        """Gives a region that holds ``image`` and has room for as much again. One with which a request failed
        is given up: a server that was started again knows it no more.

        Raises InferenceServerException where the server cannot open it.
        """
        with self._lock:
            region = next((one for one in self._idle if one.size == image.nbytes), None)
            if region is not None:
                self._idle.remove(region)
        if region is None:
            region = Region(self._client, image.nbytes, self._timeout)
        try:
            region.put(image)
            yield region
        except BaseException:
            region.close()
            raise
        with self._lock:
            self._idle.append(region)
            surplus = self._idle.pop(0) if len(self._idle) > KEPT else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Lets go of all of it."""
        with self._lock:
            old, self._idle = self._idle, []
        for region in old:
            region.close()


class Region:
    """A region: a picture of ``size`` bytes, and behind it the place for the restored one."""

    def __init__(self, client: Any, size: int, timeout: float) -> None:
        from tritonclient.utils import shared_memory

        self.size = size
        self._client = client
        self._timeout = timeout
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype(np.uint8)
        self._name = f"measnet-{uuid.uuid4().hex}"
        self._handle = shared_memory.create_shared_memory_region(self._name, self._name, 2 * size)
        try:
            client.register_system_shared_memory(
                self._name, f"/{self._name}", 2 * size, client_timeout=timeout
            )
        except BaseException:
            shared_memory.destroy_shared_memory_region(self._handle)
            raise

    def put(self, image: NDArray[Any]) -> None:
        """Copies a picture in."""
        from tritonclient.utils import shared_memory

        self._shape, self._dtype = image.shape, image.dtype
        shared_memory.set_shared_memory_region(self._handle, [image])

    def carry(self, image: Any, restored: Any) -> None:
        """Has a request's input and output lie here instead of in its messages."""
        image.set_shared_memory(self._name, self.size)
        restored.set_shared_memory(self._name, self.size, offset=self.size)

    def result(self) -> NDArray[Any]:
        """Copies the restored picture out."""
        from tritonclient.utils import shared_memory

        found = shared_memory.get_contents_as_numpy(self._handle, self._dtype, self._shape, self.size)
        return np.array(found)

    def close(self) -> None:
        """Gives the memory back."""
        from tritonclient.utils import InferenceServerException, shared_memory

        # A server that has gone away has let go of it too.
        with contextlib.suppress(InferenceServerException):
            self._client.unregister_system_shared_memory(self._name, client_timeout=self._timeout)
        shared_memory.destroy_shared_memory_region(self._handle)
