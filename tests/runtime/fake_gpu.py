"""A GPU, with CUDA and TensorRT's runtime, on a machine that has none: as lazy as a GPU may be.

A stream is a list of steps. They are done when somebody waits for them, no others are (or others first, as
``eager`` says), and memory holds NaN until a step writes to it: a missing wait, or a wrong order, shows as a
wrong result. What a GPU does silently, or at times, is an AssertionError: memory used after it was freed or
past its end, a copy in the wrong direction, a closed handle. ``alive()`` counts what was never freed.

CUDA's names, constants and parameters are those of cuda-python, which must be installed; TensorRT's names in
our code are held against listings of the real ones by tests/export/test_conformance.py. A "plan" is an ONNX
graph and the profiles it was "built" for; ONNX Runtime computes it.

    gpu = FakeGpu()
    gpu.install(monkeypatch)    # ``import tensorrt`` and ``from cuda.bindings import runtime`` find it
"""

from __future__ import annotations

import enum
import functools
import inspect
import itertools
import pickle
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

NAME = "NVIDIA Make-believe 9000"
TENSORRT = "10.16.1.11"
PRIMARY, FOREIGN = 0x1000, 0x2000
"""CUDA contexts: the one that libraries share, and one that somebody made."""

FATAL = ("cudaErrorIllegalAddress", "cudaErrorLaunchFailure")
"""After these every call of CUDA's runtime fails."""

RECORDABLE = ("cudaMemcpyAsync", "cudaStreamWaitEvent", "cudaGraphLaunch", "cudaStreamEndCapture")
"""Calls that a thread may make while it records a graph."""

Step = Callable[[], object]
Shape = tuple[int, ...]
Profile = Mapping[str, Sequence[Shape]]


class RefusedError(Exception):
    """A call of CUDA's ends in this code."""


@dataclass(eq=False)
class Handle:
    """A stream, an event or a graph; or memory, whose number is its address."""

    kind: str
    number: int
    steps: list[Step] = field(default_factory=list)
    done: int = 0
    content: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def __int__(self) -> int:
        return self.number

    def run(self, count: int) -> None:
        """Does the first ``count`` steps, as far as they are not done yet."""
        while self.done < count:
            self.done += 1
            self.steps[self.done - 1]()


class Thread(threading.local):
    def __init__(self) -> None:
        self.contexts = [0]  # the last is current
        self.graph: Handle | None = None  # that it records


class FakeGpu:
    def __init__(self) -> None:
        self.runtime, self.driver = (Bindings(self, name) for name in ("runtime", "driver"))
        self.functions = _cuda(self)
        self.here = Thread()
        self.eager = False
        """True: streams that nobody waits for are done first, which shows a wait that they lack."""

        self.calls: list[str] = []
        self.faults: dict[str, list[str]] = {}
        self.last_error = self.lost = ""
        self.handles: dict[int, Handle] = {}
        self.owners: dict[int, int] = {}  # address -> context, of memory that is not the primary one's
        self.engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        self._numbers = itertools.count(16)  # 1 and 2 are names of default streams
        self._lock = threading.RLock()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trt = SimpleNamespace(__version__=TENSORRT, ILogger=Logger, TensorIOMode=Mode, DataType=Type)
        trt.__spec__ = ModuleSpec("tensorrt", None)  # others look for TensorRT too: PyTorch does
        trt.ExecutionContextAllocationStrategy = Strategy
        trt.Runtime = functools.partial(Runtime, self)
        cuda = SimpleNamespace(runtime=self.runtime, driver=self.driver)
        for name, module in (("cuda.bindings", cuda), ("tensorrt", trt)):
            monkeypatch.setitem(sys.modules, name, module)

    def fail(self, function: str, error: str, after: int = 0) -> None:
        """The call of ``function``, CUDA's or TensorRT's, after ``after`` good ones fails, once."""
        self.faults[function] = [""] * after + [error]

    def called(self, function: str) -> str:
        """Notes a call. Returns the error that was planned for it, or ""."""
        self.calls.append(function)
        faults = self.faults.get(function)
        return faults.pop(0) if faults else ""

    def alive(self) -> dict[str, int]:
        """Counts by kind what was made and not freed."""
        return dict(Counter(handle.kind for handle in self.handles.values() if handle.kind != "closed"))

    def make(self, kind: str, steps: Sequence[Step] = ()) -> Handle:
        made = Handle(kind, next(self._numbers), [*steps])
        return self.handles.setdefault(made.number, made)

    def find(self, kind: str, handle: Any) -> Handle:
        found = self.handles.get(int(handle))
        assert found is not None and found.kind == kind, f"{handle!r} is no {kind}, or it is closed"
        return found

    def close(self, kind: str, handle: Any) -> None:
        closed = self.find(kind, handle)
        closed.kind, closed.content[:] = "closed", 0xFF
        closed.steps.clear()

    def allocate(self, kind: str, size: int) -> int:
        room = np.full(size + 256, 0xFF, np.uint8)
        room = room[-room.ctypes.data % 256 :][:size]
        self.handles[room.ctypes.data] = Handle(kind, room.ctypes.data, content=room)
        return room.ctypes.data

    def at(self, address: int, nbytes: int, kind: str = "device") -> NDArray[np.uint8]:
        """Bytes of the memory."""
        for block in self.handles.values():
            start = address - block.number
            if 0 <= start < block.content.size:
                assert block.kind == kind, f"memory at {address:#x} is {block.kind}, not {kind}"
                assert start + nbytes <= block.content.size, f"{nbytes} bytes at {address:#x} are too many"
                return block.content[start : start + nbytes]
        raise AssertionError(f"there is no memory at {address:#x}")

    def put(self, stream: Any, steps: Sequence[Step]) -> None:
        """Has ``stream`` do this in its turn, or the graph that this thread records."""
        (self.here.graph or self.find("stream", stream)).steps.extend(steps)

    def copy(self, target: int, source: int, nbytes: int, kind: Any, stream: Any) -> None:
        up = kind == self.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        a, b = ("pinned", "device") if up else ("device", "pinned")
        self.at(target, nbytes, b)[:] = 0xFF  # what an earlier frame left there is no result
        self.at(source, nbytes, a)
        self.put(stream, [lambda: np.copyto(self.at(target, nbytes, b), self.at(source, nbytes, a))])

    def synchronize(self, stream: Any) -> None:
        found = self.find("stream", stream)
        others = [handle for handle in self.handles.values() if handle.kind == "stream" and self.eager]
        for each in (*(other for other in others if other is not found), found):
            each.run(len(each.steps))

    def close_stream(self, stream: Any) -> None:
        self.synchronize(stream)  # a GPU goes on with what is in it
        self.close("stream", stream)

    def record(self, event: Any, stream: Any) -> None:
        """Has those who wait for ``event`` do what is in ``stream`` now."""
        found = self.find("stream", stream)
        self.find("event", event).steps = [functools.partial(found.run, len(found.steps))]

    def begin(self, stream: Any, mode: Any) -> None:
        modes = self.runtime.cudaStreamCaptureMode
        assert mode == modes.cudaStreamCaptureModeThreadLocal, "calls of other threads would break the graph"
        self.here.graph = Handle("captured", next(self._numbers))

    def end(self, stream: Any) -> Handle:
        graph, self.here.graph = self.here.graph, None
        if graph is None or graph.kind == "broken":
            raise RefusedError("cudaErrorStreamCaptureInvalidated")
        return self.handles.setdefault(graph.number, graph)

    def answer(self, function: str, arguments: Sequence[Any]) -> Any:
        """The values that a function of CUDA returns after its code. Raises ``RefusedError``."""
        with self._lock:
            error, here = self.called(function), self.here
            if function.startswith("cuda") and not function.startswith(("cudaGet", "cudaDriver")):
                assert here.contexts[-1] != FOREIGN, f"{function} in a foreign context"
                if here.graph and function not in RECORDABLE:
                    here.graph.kind, error = "broken", "cudaErrorStreamCaptureUnsupported"
                if error and function == "cudaStreamEndCapture":
                    here.graph = None  # it ends, one way or the other
                self.lost = self.lost or (error if error in FATAL else "")
                error = self.lost or error
                self.last_error = error or self.last_error
            if error:
                raise RefusedError(error)
            return self.functions[function](*arguments)

    def forgive(self) -> None:
        self.last_error = ""


def _cuda(gpu: FakeGpu) -> dict[str, Callable[..., Any]]:
    """CUDA's functions, by what they return after the code."""

    def release(_: int) -> None:
        gpu.close("context", next(n for n, handle in gpu.handles.items() if handle.kind == "context"))

    return {
        "cudaGetDeviceCount": lambda: 1,
        "cudaGetDeviceProperties": lambda _: SimpleNamespace(name=f"{NAME}\0".encode(), major=8, minor=9),
        "cudaDriverGetVersion": lambda: 13000,
        "cudaSetDevice": lambda _: gpu.here.contexts.__setitem__(-1, PRIMARY),
        "cudaGetLastError": gpu.forgive,
        "cudaMemGetInfo": lambda: (1 << 29, 1 << 30),
        "cudaMalloc": lambda size: gpu.allocate("device", size),
        "cudaMallocHost": lambda size: gpu.allocate("pinned", size),
        "cudaFree": lambda address: gpu.close("device", address),
        "cudaFreeHost": lambda address: gpu.close("pinned", address),
        "cudaMemcpyAsync": gpu.copy,
        "cudaStreamCreateWithFlags": lambda flags: gpu.make({1: "stream", 0: "one that waits"}[flags]),
        "cudaStreamSynchronize": gpu.synchronize,
        "cudaStreamDestroy": gpu.close_stream,
        "cudaEventCreateWithFlags": lambda _: gpu.make("event"),
        "cudaEventRecord": gpu.record,
        "cudaStreamWaitEvent": lambda stream, event, _: gpu.put(stream, gpu.find("event", event).steps),
        "cudaEventDestroy": lambda event: gpu.close("event", event),
        "cudaStreamBeginCapture": gpu.begin,
        "cudaStreamEndCapture": gpu.end,
        "cudaGraphInstantiate": lambda graph, _: gpu.make("graph", gpu.find("captured", graph).steps),
        "cudaGraphLaunch": lambda graph, stream: gpu.put(stream, gpu.find("graph", graph).steps),
        "cudaGraphDestroy": lambda graph: gpu.close("captured", graph),
        "cudaGraphExecDestroy": lambda graph: gpu.close("graph", graph),
        "cuInit": lambda _: None,
        "cuCtxGetCurrent": lambda: gpu.here.contexts[-1],
        "cuCtxPushCurrent": lambda context: gpu.here.contexts.append(context),
        "cuCtxPopCurrent": lambda: gpu.here.contexts.pop(),
        "cuDevicePrimaryCtxRetain": lambda _: PRIMARY if gpu.make("context") else 0,
        "cuDevicePrimaryCtxRelease": release,
        "cuPointerGetAttribute": lambda _, address: gpu.owners.get(address, PRIMARY),
    }


class Bindings(ModuleType):
    """A module of cuda-python: its own enums, constants and texts, and the fake GPU's functions."""

    def __init__(self, gpu: FakeGpu, name: str) -> None:
        super().__init__(f"cuda.bindings.{name}")
        self._gpu = gpu
        self._real = pytest.importorskip(self.__name__, reason="cuda-python is not installed")

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        return functools.partial(self._call, real) if name in self._gpu.functions else real

    def _call(self, real: Any, *arguments: Any) -> tuple[Any, ...]:
        inspect.signature(real).bind(*arguments)
        codes = self.cudaError_t if real.__name__.startswith("cuda") else self.CUresult
        try:
            value = self._gpu.answer(real.__name__, arguments)
        except RefusedError as refusal:
            return getattr(codes, str(refusal)), None
        return codes(0), *(value if isinstance(value, tuple) else () if value is None else (value,))


# TensorRT

MAGIC = b"make-believe plan\n"
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
Mode = enum.Enum("Mode", "NONE INPUT OUTPUT")
Type = enum.Enum("Type", "FLOAT HALF UINT8 INT8 INT32 INT64 BOOL")
TYPES = {"tensor(float)": Type.FLOAT, "tensor(float16)": Type.HALF, "tensor(uint8)": Type.UINT8}
Strategy = enum.Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")


def make_plan(graph: bytes, profiles: Sequence[Profile]) -> bytes:
    return MAGIC + pickle.dumps((graph, profiles))


class Logger:
    INTERNAL_ERROR, ERROR = range(2)


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, gpu: FakeGpu, logger: Any) -> None:
        self.gpu, self.logger = gpu, logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if self.fails("deserialize_cuda_engine", "" if plan.startswith(MAGIC) else "no plan of this version"):
            return None
        return Engine(self, *pickle.loads(plan.removeprefix(MAGIC)))

    def fails(self, call: str, rule: str = "") -> bool:
        """Says whether a call fails, by a rule of TensorRT's or because a test planned it; logs why."""
        error = self.gpu.called(call) or rule
        if error:
            self.logger.log(Logger.ERROR, f"{call}: {error}")
        return bool(error)


class Engine:
    def __init__(self, runtime: Runtime, graph: bytes, profiles: Sequence[Profile]) -> None:
        self.gpu, self.fails, self.profiles = runtime.gpu, runtime.fails, profiles
        self.session = _session(graph)
        self.inputs = {value.name: value.type for value in self.session.get_inputs()}
        self.outputs = {value.name: value.type for value in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs | self.outputs)
        self.num_optimization_profiles = len(profiles)
        self.first_profile = 0  # of the next context
        self.gpu.engines.add(self)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Type:
        return TYPES[(self.inputs | self.outputs)[name]]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Sequence[Shape]:
        return self.profiles[profile][name]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return 4 * int(np.prod(self.profiles[profile]["image"][2]))

    def create_execution_context(self, strategy: Strategy) -> Context | None:
        assert strategy == Strategy.USER_MANAGED, "nobody counts the memory of such a context"
        return None if self.fails("create_execution_context") else Context(self)


@functools.cache
def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        # As the real ones: the first of an engine begins with profile 0, later ones with none.
        self.active_optimization_profile, engine.first_profile = engine.first_profile, -1
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.activations = 0
        self.ran: dict[str, Shape] = {}  # the shapes of the last frame that was computed
        self.gpu.contexts.add(self)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.gpu.find("stream", stream)
        if self.engine.fails("set_optimization_profile_async"):
            return False
        self.active_optimization_profile, self.shapes = profile, {}
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        self.activations = memory

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        assert self.active_optimization_profile >= 0, "no profile was chosen"
        least, _, most = self.engine.profiles[self.active_optimization_profile][name]
        fits = all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))
        if self.engine.fails("set_input_shape", "" if fits else f"{shape} is outside the profile"):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.engine.fails("set_tensor_address", "not aligned" if memory % 256 else ""):
            return False
        self.addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        return _results(self.engine.session, tuple(self.shapes.items()))[name]

    def execute_async_v3(self, stream: int) -> bool:
        unknown = self.gpu.here.graph and self.ran != self.shapes
        rule = "a new shape must run once before it is recorded" if unknown else ""
        if self.engine.fails("execute_async_v3", rule):
            return False
        needed = self.engine.get_device_memory_size_for_profile_v2(self.active_optimization_profile)
        run = functools.partial(self._run, {**self.shapes}, {**self.addresses}, self.activations, needed)
        self.gpu.put(stream, [run])
        return True

    def _run(
        self, shapes: dict[str, Shape], addresses: dict[str, int], activations: int, needed: int
    ) -> None:
        """The network with the shapes and addresses of when it was enqueued, as a graph keeps them."""
        given = {}
        for name, shape in shapes.items():
            dtype = np.dtype(DTYPES[self.engine.inputs[name]])
            content = self.gpu.at(addresses[name], int(np.prod(shape)) * dtype.itemsize)
            given[name] = content.view(dtype).reshape(shape)
        self.gpu.at(activations, needed)[:] = 0xAA
        for name, values in zip(self.engine.outputs, self.engine.session.run(None, given), strict=True):
            self.gpu.at(addresses[name], values.nbytes)[:] = np.frombuffer(values.tobytes(), np.uint8)
        self.ran = shapes


@functools.cache
def _results(
    session: onnxruntime.InferenceSession, shapes: tuple[tuple[str, Shape], ...]
) -> dict[str, Shape]:
    """The shapes of the outputs for those of the inputs."""
    dtypes = {value.name: DTYPES[value.type] for value in session.get_inputs()}
    made = session.run(None, {name: np.zeros(shape, dtypes[name]) for name, shape in shapes})
    return {value.name: array.shape for value, array in zip(session.get_outputs(), made, strict=True)}
