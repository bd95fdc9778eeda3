"""Memory that grows as larger frames come, and the pair of buffers that every tensor of a slot has."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measnet.runtime.backends.tensorrt.cuda import Cuda

ALIGNMENT = 256
"""Bytes. TensorRT's rule for memory that it is given; sizes are rounded up to it too."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine, for frames of one size."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Memory:
    """A block of memory that is as large as was ever reserved. Nothing may be using it while it grows."""

    def __init__(self, allocate: Callable[[int], int], free: Callable[[int], None]) -> None:
        self._allocate = allocate
        self._free = free
        self.pointer = 0
        self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Makes room for ``nbytes``; what was in it is gone when it grows. Raises ``CudaError``."""
        nbytes = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        if nbytes > self.nbytes:
            self.close()  # first: both at once may be too much
            self.pointer = self._allocate(nbytes)
            self.nbytes = nbytes

    def close(self) -> None:
        pointer, self.pointer, self.nbytes = self.pointer, 0, 0
        if pointer:
            self._free(pointer)


class TensorBuffers:
    """A tensor's memory on the GPU, and pinned memory of the host to copy it from or to."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._device = Memory(cuda.allocate, cuda.free)
        self._host = Memory(cuda.allocate_pinned, cuda.free_pinned)
        self._spec: TensorSpec | None = None

    @property
    def device(self) -> int:
        """Its address on the GPU."""
        return self._device.pointer

    @property
    def host(self) -> NDArray[Any]:
        """The pinned memory as an array; the GPU may be writing to it."""
        assert self._spec is not None
        raw = (ctypes.c_uint8 * self._spec.nbytes).from_address(self._host.pointer)
        return np.frombuffer(memoryview(raw), self._spec.dtype).reshape(self._spec.shape)

    def fit(self, spec: TensorSpec) -> None:
        """Makes room for a tensor. Raises ``CudaError``."""
        self._device.reserve(spec.nbytes)
        self._host.reserve(spec.nbytes)
        self._spec = spec

    def upload(self, stream: Any) -> None:
        assert self._spec is not None
        self._cuda.upload(self._device.pointer, self._host.pointer, self._spec.nbytes, stream)

    def download(self, stream: Any) -> None:
        assert self._spec is not None
        self._cuda.download(self._host.pointer, self._device.pointer, self._spec.nbytes, stream)

    def close(self) -> None:
        self._device.close()
        self._host.close()
