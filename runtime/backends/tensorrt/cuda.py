"""CUDA through cuda-python, as far as a runner needs it; every status code becomes a sentence.

All of it happens in the primary context of the first GPU that CUDA shows: the one that TensorRT, PyTorch and
CuPy use too. Pointers are plain integers; streams, events and graphs are cuda-python's own objects."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measnet.errors import BackendError, MissingPackageError, first_line

DEVICE = 0

_LOST = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorDeviceUnavailable",
        "cudaErrorDevicesUnavailable",
        "cudaErrorECCUncorrectable",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorNvlinkUncorrectable",
    }
)
"""After these a process gets no more work out of the GPU."""


class CudaError(BackendError):
    """A CUDA call failed. ``name`` is CUDA's own, such as ``cudaErrorMemoryAllocation``."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name

    @property
    def lost(self) -> bool:
        """Says whether this process can use the GPU no more."""
        return self.name in _LOST


class Cuda:
    """The calls of a runner, each raising ``CudaError``; ``MissingPackageError`` without cuda-python."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver, runtime
        except ImportError:
            raise MissingPackageError("the tensorrt backend", "cuda-python", "tensorrt") from None
        self._runtime: Any = runtime
        self._driver: Any = driver
        self._primary: Any = None

    def use_primary_context(self) -> None:
        """Makes the primary context current in this thread.

        Raises ``BackendError`` when another one is: it would be lost to whoever made it current.
        """
        if self._primary is None:
            self._primary = self._retain_primary()
        current = int(self._driven("asking for the current context", self._driver.cuCtxGetCurrent))
        if current not in (0, int(self._primary)):
            raise BackendError(
                "another CUDA context than the GPU's primary one is current in this thread, as after "
                "'import pycuda.autoinit' or with another GPU chosen; make the primary context current "
                "(docs/embedding.md says how)"
            )
        self._call("using the GPU", self._runtime.cudaSetDevice, DEVICE)

    @contextlib.contextmanager
    def primary_context(self) -> Iterator[None]:
        """For tidying up in a thread that may have any context current; it is current again afterwards."""
        if self._primary is None:
            yield
            return
        error, *_ = self._driver.cuCtxPushCurrent(self._primary)
        try:
            yield
        finally:
            if error == self._driver.CUresult.CUDA_SUCCESS:
                self._driver.cuCtxPopCurrent()

    def release_primary_context(self) -> None:
        """Lets go of it. The last one to let go ends it, so memory and streams are freed before."""
        if self._primary is not None:
            self._primary = None
            self._driver.cuDevicePrimaryCtxRelease(DEVICE)

    def is_foreign(self, pointer: int) -> bool:
        """Says whether device memory is known to belong to another context than the primary one."""
        attribute = self._driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_CONTEXT
        error, owner = self._driver.cuPointerGetAttribute(attribute, pointer)
        # Memory from a pool has no context: no answer is no evidence.
        known = error == self._driver.CUresult.CUDA_SUCCESS and owner is not None and int(owner) != 0
        return known and int(owner) != int(self._primary)

    def stream(self) -> Any:
        """A new stream that does not wait for the default one."""
        flags = self._runtime.cudaStreamNonBlocking
        return self._call("making a stream", self._runtime.cudaStreamCreateWithFlags, flags)

    def event(self) -> Any:
        """A new event without timing."""
        flags = self._runtime.cudaEventDisableTiming
        return self._call("making an event", self._runtime.cudaEventCreateWithFlags, flags)

    def record(self, event: Any, stream: Any) -> None:
        """``event`` is when everything now in ``stream`` is done."""
        self._call("recording an event", self._runtime.cudaEventRecord, event, stream)

    def wait(self, stream: Any, event: Any) -> None:
        """Makes all later work in ``stream`` wait for ``event``; the CPU does not wait."""
        self._call("ordering streams", self._runtime.cudaStreamWaitEvent, stream, event, 0)

    def synchronize(self, stream: Any) -> None:
        """The CPU waits until ``stream`` is empty."""
        self._call("waiting for the GPU", self._runtime.cudaStreamSynchronize, stream)

    def allocate(self, nbytes: int) -> int:
        """Device memory, 256-byte aligned as CUDA promises."""
        return self._allocated(nbytes, "on the GPU", self._runtime.cudaMalloc)

    def allocate_pinned(self, nbytes: int) -> int:
        """Host memory that the GPU copies from and to by itself."""
        return self._allocated(nbytes, "of pinned host memory", self._runtime.cudaMallocHost)

    def free(self, pointer: int) -> None:
        self._call("freeing GPU memory", self._runtime.cudaFree, pointer)

    def free_pinned(self, pointer: int) -> None:
        self._call("freeing pinned memory", self._runtime.cudaFreeHost, pointer)

    def upload(self, device: int, host: int, nbytes: int, stream: Any) -> None:
        """Copies from pinned ``host`` to ``device`` memory, in its turn in ``stream``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("copying to the GPU", self._runtime.cudaMemcpyAsync, device, host, nbytes, kind, stream)

    def download(self, host: int, device: int, nbytes: int, stream: Any) -> None:
        """Copies from ``device`` to pinned ``host`` memory, in its turn in ``stream``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("copying from the GPU", self._runtime.cudaMemcpyAsync, host, device, nbytes, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        """Has what this thread puts into ``stream`` from now on go into a graph instead."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("beginning a CUDA graph", self._runtime.cudaStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """The graph. Raises ``CudaError`` when something in it could not be captured."""
        return self._call("ending a CUDA graph", self._runtime.cudaStreamEndCapture, stream)

    def instantiate(self, graph: Any) -> Any:
        """A graph that can be launched."""
        return self._call("making a CUDA graph", self._runtime.cudaGraphInstantiate, graph, 0)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("launching a CUDA graph", self._runtime.cudaGraphLaunch, graph, stream)

    def destroy_stream(self, stream: Any) -> None:
        self._call("closing a stream", self._runtime.cudaStreamDestroy, stream)

    def destroy_event(self, event: Any) -> None:
        self._call("closing an event", self._runtime.cudaEventDestroy, event)

    def destroy_captured(self, graph: Any) -> None:
        self._call("closing a captured graph", self._runtime.cudaGraphDestroy, graph)

    def destroy_graph(self, graph: Any) -> None:
        self._call("closing a CUDA graph", self._runtime.cudaGraphExecDestroy, graph)

    def _retain_primary(self) -> Any:
        # The first call of the runtime also starts the driver, which the driver's own calls do not.
        self._call("looking for a GPU", self._runtime.cudaGetDeviceCount)
        self._driven("starting the driver", self._driver.cuInit, 0)
        doing = "opening the GPU's primary context"
        return self._driven(doing, self._driver.cuDevicePrimaryCtxRetain, DEVICE)

    def _allocated(self, nbytes: int, where: str, function: Callable[..., tuple[Any, ...]]) -> int:
        try:
            return int(self._call("allocating memory", function, nbytes))
        except CudaError as error:
            if error.name != "cudaErrorMemoryAllocation":
                raise
            raise CudaError(
                f"out of memory: {_mib(nbytes)} {where} cannot be had{self._free_memory()}; "
                "add --tile for smaller pieces, or stop other programs on this GPU",
                error.name,
            ) from None

    def _free_memory(self) -> str:
        error, *sizes = self._runtime.cudaMemGetInfo()
        if error != self._runtime.cudaError_t.cudaSuccess:
            return ""
        return f" ({_mib(sizes[0])} of {_mib(sizes[1])} are free on the GPU)"

    def _call(self, doing: str, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        error, *values = _answered(doing, function, arguments)
        if error == self._runtime.cudaError_t.cudaSuccess:
            return values[0] if values else None
        self._runtime.cudaGetLastError()  # or the next call of anybody else would be given it
        name = self._runtime.cudaGetErrorName(error)[1].decode()
        text = self._runtime.cudaGetErrorString(error)[1].decode()
        after = "; the GPU is lost to this process, start it again" if name in _LOST else ""
        raise CudaError(f"CUDA failed at {doing}: {text} ({name}){after}", name)

    def _driven(self, doing: str, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        error, *values = _answered(doing, function, arguments)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise CudaError(f"CUDA failed at {doing}: {error.name}", error.name)
        return values[0] if values else None


def _answered(
    doing: str, function: Callable[..., tuple[Any, ...]], arguments: tuple[Any, ...]
) -> tuple[Any, ...]:
    try:
        return function(*arguments)
    except RuntimeError as error:  # cuda-python's own word for a driver that is not installed
        raise CudaError(f"CUDA is not there, {doing}: {first_line(error)}", "") from None


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MiB"


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
        """Address on the GPU."""
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
