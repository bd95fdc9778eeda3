"""CUDA's functions on a machine without a GPU: as lazy as a GPU may be, and stricter than one.

Work is done when somebody waits for it and not before, so a missing wait shows as a wrong result. "Device"
memory is memory of this process, filled with NaN before anybody writes to it. A ``Violation`` is raised for
what a GPU would do silently or at times: memory used after it was freed or while others write to it, a
pinned buffer changed before it was copied, a closed handle, contexts mixed up.

    cuda = FakeCuda()
    cuda.install(monkeypatch)       # ``from cuda.bindings import runtime`` finds it
"""

# ruff: noqa: N801, N802, N803, N815, N818 - the names are CUDA's
from __future__ import annotations

import ctypes
import enum
import itertools
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

PRIMARY, FOREIGN = 0x1000, 0x2000
Span = tuple[int, int]
"""An address and a number of bytes."""


class Violation(AssertionError):
    """Something that works by luck, if at all, on a real GPU."""


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorStreamCaptureUnmatched = 903
    cudaErrorStreamCaptureWrongThread = 908


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1


class CUpointer_attribute(enum.IntEnum):
    CU_POINTER_ATTRIBUTE_CONTEXT = 1


OK = cudaError_t.cudaSuccess


@dataclass(eq=False)
class Block:
    """An allocation."""

    address: int
    nbytes: int
    pinned: bool
    context: int
    memory: Any
    freed: bool = False


@dataclass(eq=False)
class Work:
    """Something that a stream does in its turn."""

    what: str
    run: Callable[[], None]
    reads: list[Span]
    writes: list[Span]
    after: list[Work] = field(default_factory=list)
    done: bool = False


@dataclass(eq=False)
class Handle:
    """A stream, an event or a graph. ``int()`` gives the number that TensorRT is handed."""

    kind: str
    number: int
    last: Work | None = None
    nodes: list[Work] | None = None
    broken: bool = False
    thread: int = 0

    def __int__(self) -> int:
        return self.number


class FakeCuda:
    """A GPU of ``memory`` bytes. ``runtime`` and ``driver`` have cuda-python's functions."""

    def __init__(self, memory: int = 1 << 30, devices: int = 1) -> None:
        self.memory = memory
        self.blocks: list[Block] = []
        self.handles: dict[int, Handle] = {}
        self.pending: list[Work] = []
        self.launches: list[str] = []
        self.sticky: cudaError_t | None = None
        self.faults: dict[str, list[cudaError_t]] = {}
        self.calls: list[str] = []
        self.retained = 0
        self.pushed: list[int] = []
        self._numbers = itertools.count(0x10, 0x10)
        self._threads = threading.local()
        self._lock = threading.RLock()
        self._default = Handle("stream", 0)
        self.handles[0] = self._default
        self.properties = SimpleNamespace(name=b"NVIDIA Make-believe 9000\0", major=8, minor=9)
        self.devices = devices
        self.runtime = self._module("cuda.bindings.runtime", _RUNTIME)
        self.driver = self._module("cuda.bindings.driver", _DRIVER)
        for name, value in _CONSTANTS.items():
            setattr(self.runtime, name, value)
        self.driver.CUresult = CUresult  # type: ignore[attr-defined]
        self.driver.CUpointer_attribute = CUpointer_attribute  # type: ignore[attr-defined]

    # What tests say and ask

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Puts it where cuda-python would be imported from."""
        bindings = ModuleType("cuda.bindings")
        bindings.runtime, bindings.driver = self.runtime, self.driver  # type: ignore[attr-defined]
        package = ModuleType("cuda")
        package.bindings = bindings  # type: ignore[attr-defined]
        for name, module in (
            ("cuda", package),
            ("cuda.bindings", bindings),
            ("cuda.bindings.runtime", self.runtime),
            ("cuda.bindings.driver", self.driver),
        ):
            monkeypatch.setitem(sys.modules, name, module)

    def fail(self, function: str, error: cudaError_t, after: int = 0) -> None:
        """The call of ``function`` after ``after`` good ones fails, once."""
        self.faults[function] = [OK] * after + [error]

    def alive(self) -> dict[str, int]:
        """Things that were made and not freed, by kind."""
        found: dict[str, int] = {}
        for handle in self.handles.values():
            if handle is not self._default:
                found[handle.kind] = found.get(handle.kind, 0) + 1
        for block in self.blocks:
            if not block.freed:
                kind = "pinned" if block.pinned else "device"
                found[kind] = found.get(kind, 0) + 1
        if self.retained:
            found["context"] = self.retained
        return found

    def make_current(self, context: int) -> None:
        """As a program does that has made another context current in this thread."""
        self._threads.context = context

    def current(self) -> int:
        return getattr(self._threads, "context", 0)

    # What the fake TensorRT asks

    def stream(self, stream: Any) -> Handle:
        handle = self.handles.get(int(stream))
        if handle is None or handle.kind != "stream":
            raise Violation(f"{stream!r} is no stream that is open")
        return handle

    def enqueue(
        self,
        stream: Any,
        what: str,
        run: Callable[[], None] = lambda: None,
        reads: Iterable[Span] = (),
        writes: Iterable[Span] = (),
        after: Iterable[Work] = (),
    ) -> Work:
        """Puts work into a stream, or into the graph that it is recording."""
        with self._lock:
            handle = self.stream(stream)
            work = Work(what, run, list(reads), list(writes))
            for span in (*work.reads, *work.writes):
                self.block(span)
            if handle.nodes is not None:
                handle.nodes.append(work)
                return work
            work.after = [*after, *([handle.last] if handle.last else [])]
            self._check_races(work)
            handle.last = work
            self.pending.append(work)
            self.launches.append(what)
            return work

    def block(self, span: Span) -> Block:
        """The live allocation that ``span`` lies in."""
        address, nbytes = span
        for block in self.blocks:
            if block.address <= address < block.address + block.nbytes:
                if block.freed:
                    raise Violation(f"memory at {address:#x} is used after it was freed")
                if address + nbytes > block.address + block.nbytes:
                    raise Violation(f"{nbytes} bytes at {address:#x} run past the end of their allocation")
                return block
        raise Violation(f"nothing was allocated at {address:#x}")

    def is_ordered(self, earlier: Work, stream: Any) -> bool:
        """Tells whether new work in ``stream`` comes after ``earlier``."""
        last = self.stream(stream).last
        return earlier.done or (last is not None and _reaches(last, earlier))

    def complete(self, work: Work | None) -> None:
        """Does ``work`` and all that it waits for, nothing else."""
        with self._lock:
            todo = [work] if work else []
            while todo:
                head = todo[-1]
                waiting = [before for before in head.after if not before.done]
                if waiting and not head.done:
                    todo.extend(waiting)
                    continue
                todo.pop()
                if not head.done:
                    for span in (*head.reads, *head.writes):
                        self.block(span)
                    head.done = True
                    head.after = []
                    self.pending.remove(head)
                    head.run()

    def _check_races(self, work: Work) -> None:
        for other in self.pending:
            clash = _overlap(work.writes, other.writes + other.reads) or _overlap(work.reads, other.writes)
            if clash and not any(_reaches(before, other) for before in work.after):
                raise Violation(f"{work.what} and {other.what} use the same memory and nothing orders them")

    # Plumbing

    def _module(self, name: str, functions: dict[str, Callable[..., Any]]) -> ModuleType:
        module = ModuleType(name)
        for function in functions.values():
            setattr(module, function.__name__, self._guarded(function))
        return module

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        runtime = function.__name__.startswith("cuda")
        tells = function.__name__ in ("cudaGetErrorName", "cudaGetErrorString", "cudaGetLastError")

        def call(*arguments: Any) -> Any:
            with self._lock:
                self.calls.append(function.__name__)
                if tells:
                    return function(self, *arguments)
                if runtime and self.sticky is not None:
                    return (self.sticky, None)
                planned = self.faults.get(function.__name__)
                if planned and (error := planned.pop(0)) != OK:
                    if function is cudaStreamEndCapture:  # it ends one way or the other
                        self.stream(arguments[0]).broken = True
                        return function(self, *arguments)
                    return (error, None)
                if runtime and self.current() == FOREIGN and function not in _CONTEXT_FREE:
                    raise Violation(f"{function.__name__} in another context than the primary one")
                try:
                    return function(self, *arguments)
                except DeviceFault as fault:
                    self.sticky = fault.error
                    return (self.sticky, None)

        call.__name__ = function.__name__
        call.__wrapped__ = function  # type: ignore[attr-defined]
        return call

    def _open(self, kind: str) -> Handle:
        handle = Handle(kind, next(self._numbers) + 0x7F00)
        self.handles[handle.number] = handle
        return handle

    def _close(self, handle: Handle, kind: str) -> tuple[cudaError_t]:
        if self.handles.get(int(handle)) is not handle or handle.kind != kind:
            raise Violation(f"a {kind} is closed that is not open")
        del self.handles[handle.number]
        return (OK,)

    def _capturing(self) -> Handle | None:
        """The stream that this thread is recording, if any."""
        here = threading.get_ident()
        return next((h for h in self.handles.values() if h.nodes is not None and h.thread == here), None)


class DeviceFault(Exception):
    """Work failed on the GPU: every call from now on does."""

    def __init__(self, error: cudaError_t) -> None:
        super().__init__(error.name)
        self.error = error


def read_memory(address: int, nbytes: int) -> bytes:
    return ctypes.string_at(address, nbytes)


def write_memory(address: int, content: bytes) -> None:
    ctypes.memmove(address, content, len(content))


def _reaches(work: Work, earlier: Work) -> bool:
    todo, seen = [work], {id(work)}
    while todo:
        head = todo.pop()
        if head is earlier:
            return True
        for before in head.after:
            if id(before) not in seen:
                seen.add(id(before))
                todo.append(before)
    return False


def _overlap(some: list[Span], others: list[Span]) -> bool:
    return any(a < b + n and b < a + m for a, m in some for b, n in others)


# cuda-python's functions, with its parameter names; every one returns a tuple that begins with a code.


def cudaGetDeviceCount(self: FakeCuda) -> Any:
    if not self.devices:
        return cudaError_t.cudaErrorNoDevice, None
    return OK, self.devices


def cudaGetDeviceProperties(self: FakeCuda, device: int) -> Any:
    return OK, self.properties


def cudaDriverGetVersion(self: FakeCuda) -> Any:
    return OK, 13000


def cudaSetDevice(self: FakeCuda, device: int) -> Any:
    assert device == 0
    self.make_current(PRIMARY)
    return (OK,)


def cudaMemGetInfo(self: FakeCuda) -> Any:
    used = sum(block.nbytes for block in self.blocks if not block.freed and not block.pinned)
    return OK, self.memory - used, self.memory


def _allocate(self: FakeCuda, size: int, pinned: bool) -> Any:
    stream = self._capturing()
    if stream is not None:
        stream.broken = True
        return cudaError_t.cudaErrorStreamCaptureUnsupported, None
    if size <= 0:
        raise Violation(f"an allocation of {size} bytes")
    if not pinned and size > cudaMemGetInfo(self)[1]:
        return cudaError_t.cudaErrorMemoryAllocation, None
    memory = np.full(size + 256, 0xFF, np.uint8)
    address = -(-memory.ctypes.data // 256) * 256
    self.blocks.append(Block(address, size, pinned, self.current() or PRIMARY, memory))
    return OK, address


def cudaMalloc(self: FakeCuda, size: int) -> Any:
    return _allocate(self, size, pinned=False)


def cudaMallocHost(self: FakeCuda, size: int) -> Any:
    return _allocate(self, size, pinned=True)


def _free(self: FakeCuda, pointer: int, pinned: bool) -> Any:
    block = self.block((pointer, 1))
    if block.address != pointer or block.pinned != pinned:
        raise Violation("memory is freed as what it is not")
    span = [(block.address, block.nbytes)]
    for work in self.pending:
        if _overlap(span, work.reads + work.writes):
            raise Violation(f"memory is freed that {work.what} still uses")
    if stream := self._capturing():
        stream.broken = True
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    block.freed = True
    block.memory[:] = 0xFF
    return (OK,)


def cudaFree(self: FakeCuda, devPtr: int) -> Any:
    return _free(self, devPtr, pinned=False)


def cudaFreeHost(self: FakeCuda, ptr: int) -> Any:
    return _free(self, ptr, pinned=True)


def cudaMemcpyAsync(self: FakeCuda, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: Any) -> Any:
    if not isinstance(kind, cudaMemcpyKind):
        raise Violation("the kind of a copy is one of cudaMemcpyKind")
    if int(stream) == 0:
        raise Violation("a copy in the default stream holds up all others")
    upload = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
    if self.block((dst, count)).pinned == upload or self.block((src, count)).pinned != upload:
        raise Violation("a copy's direction is not that of its addresses")
    seal = zlib.crc32(read_memory(src, count)) if upload else 0
    if not upload:
        write_memory(dst, b"\xff" * count)  # or what an earlier frame left there would pass for a result

    def copy() -> None:
        content = read_memory(src, count)
        if upload and zlib.crc32(content) != seal:
            raise Violation("pinned memory was changed before it was copied to the GPU")
        write_memory(dst, content)

    self.enqueue(stream, "upload" if upload else "download", copy, [(src, count)], [(dst, count)])
    return (OK,)


def cudaStreamCreateWithFlags(self: FakeCuda, flags: int) -> Any:
    if flags != _CONSTANTS["cudaStreamNonBlocking"]:
        raise Violation("a stream that waits for the default one")
    return OK, self._open("stream")


def cudaStreamDestroy(self: FakeCuda, stream: Handle) -> Any:
    return self._close(stream, "stream")


def cudaStreamSynchronize(self: FakeCuda, stream: Any) -> Any:
    handle = self.stream(stream)
    if handle.nodes is not None:
        handle.broken = True
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    self.complete(handle.last)
    return (OK,)


def cudaStreamWaitEvent(self: FakeCuda, stream: Any, event: Handle, flags: int) -> Any:
    if self.handles.get(int(event)) is not event or event.kind != "event":
        raise Violation("waiting for an event that is not open")
    if event.last is not None:
        self.enqueue(stream, "wait", after=[event.last])
    return (OK,)


def cudaEventCreateWithFlags(self: FakeCuda, flags: int) -> Any:
    return OK, self._open("event")


def cudaEventDestroy(self: FakeCuda, event: Handle) -> Any:
    return self._close(event, "event")


def cudaEventRecord(self: FakeCuda, event: Handle, stream: Any) -> Any:
    if self.handles.get(int(event)) is not event or event.kind != "event":
        raise Violation("an event is recorded that is not open")
    handle = self.stream(stream)
    if handle.nodes is not None:
        handle.broken = True
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    event.last = handle.last
    return (OK,)


def cudaStreamBeginCapture(self: FakeCuda, stream: Any, mode: cudaStreamCaptureMode) -> Any:
    handle = self.stream(stream)
    if handle is self._default or handle.nodes is not None:
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    if mode != cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
        raise Violation("a capture that other threads' calls break")
    handle.nodes, handle.broken, handle.thread = [], False, threading.get_ident()
    return (OK,)


def cudaStreamEndCapture(self: FakeCuda, stream: Any) -> Any:
    handle = self.stream(stream)
    if handle.nodes is None:
        return cudaError_t.cudaErrorStreamCaptureUnmatched, None
    if handle.thread != threading.get_ident():
        return cudaError_t.cudaErrorStreamCaptureWrongThread, None
    nodes, handle.nodes = handle.nodes, None
    if handle.broken:
        return cudaError_t.cudaErrorStreamCaptureInvalidated, None
    graph = self._open("captured")
    graph.nodes = nodes
    graph.thread = -1
    return OK, graph


def cudaGraphInstantiate(self: FakeCuda, graph: Handle, flags: int) -> Any:
    if self.handles.get(int(graph)) is not graph or graph.kind != "captured":
        raise Violation("a graph is made of what is no captured one")
    made = self._open("graph")
    made.nodes, made.thread = list(graph.nodes or []), -1
    return OK, made


def cudaGraphLaunch(self: FakeCuda, graphExec: Handle, stream: Any) -> Any:
    if self.handles.get(int(graphExec)) is not graphExec or graphExec.kind != "graph":
        raise Violation("a graph is launched that is not open")
    for node in graphExec.nodes or []:
        graphExec.last = self.enqueue(stream, f"graph of {node.what}", node.run, node.reads, node.writes)
    return (OK,)


def cudaGraphDestroy(self: FakeCuda, graph: Handle) -> Any:
    return self._close(graph, "captured")


def cudaGraphExecDestroy(self: FakeCuda, graphExec: Handle) -> Any:
    if graphExec.last is not None and not graphExec.last.done:
        raise Violation("a graph is destroyed while it runs")
    return self._close(graphExec, "graph")


def cudaGetLastError(self: FakeCuda) -> Any:
    return (self.sticky or OK,)


def cudaGetErrorName(self: FakeCuda, error: cudaError_t) -> Any:
    return OK, error.name.encode()


def cudaGetErrorString(self: FakeCuda, error: cudaError_t) -> Any:
    return OK, f"make-believe {error.name}".encode()


def cuInit(self: FakeCuda, Flags: int) -> Any:
    return (CUresult.CUDA_SUCCESS,)


def cuCtxGetCurrent(self: FakeCuda) -> Any:
    return CUresult.CUDA_SUCCESS, Handle("context", self.current())


def cuCtxPushCurrent(self: FakeCuda, ctx: Handle) -> Any:
    self.pushed.append(self.current())
    self.make_current(int(ctx))
    return (CUresult.CUDA_SUCCESS,)


def cuCtxPopCurrent(self: FakeCuda) -> Any:
    popped = Handle("context", self.current())
    self.make_current(self.pushed.pop())
    return CUresult.CUDA_SUCCESS, popped


def cuDevicePrimaryCtxRetain(self: FakeCuda, dev: int) -> Any:
    self.retained += 1
    return CUresult.CUDA_SUCCESS, Handle("context", PRIMARY)


def cuDevicePrimaryCtxRelease(self: FakeCuda, dev: int) -> Any:
    self.retained -= 1
    if self.retained < 0:
        raise Violation("the primary context is let go of twice")
    return (CUresult.CUDA_SUCCESS,)


def cuPointerGetAttribute(self: FakeCuda, attribute: CUpointer_attribute, ptr: int) -> Any:
    return CUresult.CUDA_SUCCESS, Handle("context", self.block((ptr, 1)).context)


_CONTEXT_FREE = (cudaGetDeviceCount, cudaGetDeviceProperties, cudaDriverGetVersion)
_RUNTIME = {name: made for name, made in globals().items() if re.match("cuda[A-Z]", name) and callable(made)}
_RUNTIME = {name: made for name, made in _RUNTIME.items() if not isinstance(made, type)}
_DRIVER = {name: made for name, made in globals().items() if re.match("cu[A-Z]", name)}
_CONSTANTS: dict[str, Any] = {
    "cudaError_t": cudaError_t,
    "cudaMemcpyKind": cudaMemcpyKind,
    "cudaStreamCaptureMode": cudaStreamCaptureMode,
    "cudaStreamNonBlocking": 1,
    "cudaEventDisableTiming": 2,
}
