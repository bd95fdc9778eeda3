"""TensorRT's runtime on a machine without it: the real one's names, and its refusals.

A "plan" is an ONNX graph with the profiles it was "built" for. ``execute_async_v3`` puts the graph into a
stream of the fake CUDA; ONNX Runtime computes it there when somebody waits, from and to the addresses that
were set. Only what our runner uses is here; tests hold its names and parameters against the real listings.

    trt = FakeTensorRT(cuda)
    trt.install(monkeypatch)        # ``import tensorrt`` finds it
"""

from __future__ import annotations

import enum
import functools
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

from measnet.description import GraphDescription

from .fake_cuda import DeviceFault, FakeCuda, Violation, Work, cudaError_t, read_memory, write_memory

MAGIC = b"make-believe plan\n"
VERSION = "10.16.1.11"
NUMPY = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}


def fake_plan(graph: bytes, profiles: Sequence[Mapping[str, Any]], **quirks: Any) -> bytes:
    """``quirks``: ``capturable=False``; ``inputs`` and ``outputs`` rename tensors."""
    head = json.dumps({"profiles": profiles, **quirks}).encode()
    return MAGIC + len(head).to_bytes(4, "little") + head + graph


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: enum.IntEnum, msg: str) -> None:
        raise NotImplementedError


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8


DTYPES = {np.float32: DataType.FLOAT, np.uint8: DataType.UINT8, np.float16: DataType.HALF}


class FakeTensorRT(ModuleType):
    """The module. ``trt.engines`` lists the engines that are loaded and alive."""

    def __init__(self, cuda: FakeCuda, name: str = "tensorrt", version: str = VERSION) -> None:
        super().__init__(name)
        self.__version__ = version
        self.cuda = cuda
        self.contexts = 0
        self.fail_execution = 0
        self.fault_execution = False

        def runtime(logger: ILogger) -> Runtime:
            return Runtime(logger, self)

        self.Runtime = runtime
        for thing in (ILogger, ExecutionContextAllocationStrategy, TensorIOMode, DataType):
            setattr(self, thing.__name__, thing)

    def install(self, monkeypatch: Any) -> None:
        self.__spec__ = ModuleSpec(self.__name__, None)  # others look for TensorRT too: PyTorch does
        monkeypatch.setitem(sys.modules, self.__name__, self)


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: ILogger, _trt: FakeTensorRT) -> None:
        if not isinstance(logger, ILogger) or not getattr(logger, "made", False):
            raise TypeError("a logger is an ILogger whose __init__ was called")
        self._logger = logger
        self._trt = _trt

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: magicTag assertion failed")
            return None
        size = int.from_bytes(serialized_engine[len(MAGIC) : len(MAGIC) + 4], "little")
        start = len(MAGIC) + 4
        head = json.loads(serialized_engine[start : start + size])
        if head.get("needs_host_code") and not self.engine_host_code_allowed:
            self._logger.log(Severity.ERROR, "engine_host_code_allowed is not set")
            return None
        return ICudaEngine(head, serialized_engine[start + size :], self)


class ICudaEngine:
    def __init__(self, _head: dict[str, Any], _graph: bytes, _runtime: Runtime) -> None:
        self._head = _head
        self._runtime = _runtime
        self._trt = _runtime._trt
        self._session = _session(_graph)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: value for value in self._session.get_outputs()}
        self._names = [*self._inputs, *self._outputs]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._description = GraphDescription.from_metadata(metadata, "the make-believe plan")
        self._profiles = [
            {name: [tuple(shape) for shape in shapes] for name, shapes in profile.items()}
            for profile in _head["profiles"]
        ]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        return self._head.get("names", {}).get(self._names[index], self._names[index])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name in self._inputs:
            return TensorIOMode.INPUT
        return TensorIOMode.OUTPUT if name in self._outputs else TensorIOMode.NONE

    def get_tensor_dtype(self, name: str) -> DataType:
        return DTYPES[NUMPY[self._value(name).type]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return self._profiles[profile_index][name]

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        batch, _, height, width = self._profiles[profile_index]["image"][2]
        return batch * height * width * 4

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext | None:
        if not isinstance(strategy, ExecutionContextAllocationStrategy):
            raise TypeError("strategy is an ExecutionContextAllocationStrategy")
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            raise Violation("the context would take memory that nobody counted")
        if self._head.get("no_context"):
            self._error("createExecutionContext: out of memory")
            return None
        return IExecutionContext(self)

    def _value(self, name: str) -> Any:
        return self._inputs.get(name) or self._outputs[name]

    def _error(self, text: str) -> bool:
        self._runtime._logger.log(Severity.ERROR, text)
        return False


@functools.cache
def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class IExecutionContext:
    def __init__(self, _engine: ICudaEngine) -> None:
        self._engine = _engine
        self._trt = _engine._trt
        self._cuda = self._trt.cuda
        # As the real one: the first context begins with profile 0, later ones with none.
        self._profile = 0 if self._trt.contexts == 0 else -1
        self._trt.contexts += 1
        self._profile_change: Work | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        self._warm: Work | None = None
        self._busy = threading.Lock()

    def __del__(self) -> None:
        self._trt.contexts -= 1

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < len(self._engine._profiles):
            return self._engine._error(f"there is no profile {profile_index}")
        self._not_default(stream_handle)
        self._profile_change = self._cuda.enqueue(stream_handle, "profile change")
        self._profile, self._shapes, self._warm = profile_index, {}, None
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % 256:
            raise Violation("memory for activations must be aligned to 256 bytes")
        self._cuda.block((memory, size))
        self._memory = (memory, size)

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        if name not in self._engine._inputs:
            return self._engine._error(f"setInputShape: {name} is no input")
        if self._profile < 0:
            return self._engine._error("setInputShape: no optimisation profile is chosen")
        smallest, _, largest = self._engine._profiles[self._profile][name]
        if len(shape) != len(largest) or not all(
            low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)
        ):
            return self._engine._error(f"setInputShape: {tuple(shape)} is outside profile {self._profile}")
        if tuple(shape) != self._shapes.get(name):
            self._shapes[name], self._warm = tuple(shape), None
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not isinstance(memory, int):
            raise TypeError("an address is an int")
        if name not in self._engine._names:
            return self._engine._error(f"setTensorAddress: there is no tensor {name}")
        if memory % 256:
            return self._engine._error(f"setTensorAddress: {memory:#x} is not aligned to 256 bytes")
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine._inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.infer_shapes():
            return tuple(side if isinstance(side, int) else -1 for side in self._engine._value(name).shape)
        sides = self._sides()
        description = self._engine._description
        rows, columns = description.size_rule.fit(sides["height"], sides["width"])  # padded, perhaps inside
        scale = description.config.stem_scale
        sides |= {"stem_height": rows // scale, "stem_width": columns // scale}
        return tuple(
            side if isinstance(side, int) else sides[side] for side in self._engine._value(name).shape
        )

    def _sides(self) -> dict[str | int, int]:
        """The free dimensions by name: one name is one size in all inputs, or a GPU reads past their ends."""
        sides: dict[str | int, int] = {}
        for name, value in self._engine._inputs.items():
            for side, given in zip(value.shape, self._shapes[name], strict=True):
                if sides.setdefault(side, given) != given:
                    raise Violation(f"{side} is {sides[side]} in one input and {given} in {name}")
        return sides

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._busy.acquire(blocking=False):
            raise Violation("two threads run one context at once")
        try:
            return self._execute(stream_handle)
        finally:
            self._busy.release()

    def _execute(self, stream_handle: int) -> bool:
        engine, cuda = self._engine, self._cuda
        self._not_default(stream_handle)
        stream = cuda.stream(stream_handle)
        if self.infer_shapes():
            return engine._error("enqueueV3: an input has no shape")
        missing = [name for name in engine._names if name not in self._addresses]
        if missing:
            return engine._error(f"enqueueV3: {missing[0]} has no address")
        if self._memory[1] < engine.get_device_memory_size_for_profile_v2(self._profile):
            return engine._error("enqueueV3: the memory for activations is too small or absent")
        if self._profile_change and not cuda.is_ordered(self._profile_change, stream_handle):
            raise Violation("a profile change is not ordered before the network")
        if stream.nodes is not None:
            if not engine._head.get("capturable", True):
                stream.broken = True
                return engine._error("enqueueV3: operation not permitted when stream is capturing")
            if self._warm is None or not self._warm.done:
                stream.broken = True
                return engine._error("enqueueV3: a new shape must run once before it is captured")
        if self._trt.fail_execution:
            self._trt.fail_execution -= 1
            return engine._error("enqueueV3: make-believe failure of a kernel")
        work = self._enqueue(stream_handle)
        if stream.nodes is None:
            self._warm = work
        return True

    def _enqueue(self, stream_handle: int) -> Work:
        engine = self._engine
        reads = [(self._addresses[name], self._nbytes(name)) for name in engine._inputs]
        writes = [(self._addresses[name], self._nbytes(name)) for name in engine._outputs]
        return self._cuda.enqueue(stream_handle, "network", self._network(), reads, [*writes, self._memory])

    def _network(self) -> Callable[[], None]:
        """The network with the shapes and addresses of now, as a CUDA graph would keep them."""
        engine, memory = self._engine, self._memory
        addresses = dict(self._addresses)
        shapes = {name: (self._shapes[name], self._nbytes(name)) for name in engine._inputs}
        dtypes = {name: NUMPY[value.type] for name, value in engine._inputs.items()}
        trt = self._trt

        def run() -> None:
            if trt.fault_execution:
                trt.fault_execution = False
                raise DeviceFault(cudaError_t.cudaErrorIllegalAddress)
            given = {
                name: np.frombuffer(read_memory(addresses[name], nbytes), dtypes[name]).reshape(shape)
                for name, (shape, nbytes) in shapes.items()
            }
            write_memory(memory[0], b"\xaa" * memory[1])
            values = engine._session.run(None, given)
            for name, value in zip(engine._outputs, values, strict=True):
                write_memory(addresses[name], np.ascontiguousarray(value).tobytes())

        return run

    def _nbytes(self, name: str) -> int:
        itemsize = np.dtype(NUMPY[self._engine._value(name).type]).itemsize
        return int(np.prod(self.get_tensor_shape(name))) * itemsize

    def _not_default(self, stream_handle: int) -> None:
        if not isinstance(stream_handle, int) or stream_handle == 0:
            raise Violation("TensorRT adds synchronisation to the default stream; a handle is an int")
