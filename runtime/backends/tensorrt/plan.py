"""A plan, loaded: the engine that all threads share, what goes in and out, and TensorRT's complaints."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from measnet.decision_layout import INPUTS, OUTPUTS
from measnet.engine_file import Range
from measnet.errors import BackendError, EngineError, first_line
from measnet.runtime.backends.tensorrt.cuda import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

IMAGE = "image"
RESTORED = "restored"


class LoadedPlan:
    """A deserialised plan. ``trt`` is the module of TensorRT or of TensorRT-RTX.

    ``host_code`` lets the plan bring a runtime of its own, as version-compatible ones do; a ``steerable`` one
    takes and returns image-level decisions too. Raises ``BackendError`` when TensorRT does not load it,
    ``EngineError`` when it is not a MEASNet's.
    """

    def __init__(self, trt: Any, plan: bytes, *, host_code: bool, steerable: bool = False) -> None:
        self._trt = trt
        self._complaints: deque[str] = deque(maxlen=8)
        self._logger = _logger(trt, self._complaints)
        self._runtime: trt.Runtime | None = None
        self._engine: trt.ICudaEngine | None = None
        self._load(trt, plan, host_code)
        try:
            self._examine(trt, steerable)
        except BaseException:
            self.close()
            raise

    def _load(self, trt: Any, plan: bytes, host_code: bool) -> None:
        try:
            runtime = trt.Runtime(self._logger)
            if host_code:
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(plan)
        except (RuntimeError, TypeError) as error:  # its bindings raise these without CUDA
            raise BackendError(f"TensorRT cannot be started: {first_line(error)}{self.complaint()}") from None
        if engine is None:
            raise BackendError(f"TensorRT does not load the engine{self.complaint()}")
        self._runtime, self._engine = runtime, engine

    def _examine(self, trt: Any, steerable: bool) -> None:
        engine: trt.ICudaEngine = self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.inputs = tuple(inputs)
        self.outputs = tuple(name for name in names if name not in inputs)
        takes, returns = [IMAGE], [RESTORED]
        if steerable:
            takes, returns = [*takes, *INPUTS], [*returns, *OUTPUTS]
        if set(takes) != set(inputs) or not set(returns) <= set(self.outputs):
            kind = "steerable MEASNet engine" if steerable else "MEASNet engine"
            raise EngineError(
                f"the engine takes {inputs} and returns {list(self.outputs)}; a {kind} takes {_named(takes)} "
                f"and returns {_named(returns)}; build it again"
            )
        dtypes = {
            trt.DataType.FLOAT: np.float32,
            trt.DataType.HALF: np.float16,
            trt.DataType.UINT8: np.uint8,
            trt.DataType.INT8: np.int8,
            trt.DataType.INT32: np.int32,
            trt.DataType.INT64: np.int64,
            trt.DataType.BOOL: np.bool_,
        }
        self.dtypes: dict[str, np.dtype[Any]] = {}
        for name in names:
            kind = engine.get_tensor_dtype(name)
            if kind not in dtypes:
                raise EngineError(f"the engine's {name} is of type {kind}, which NumPy has not")
            self.dtypes[name] = np.dtype(dtypes[kind])
        self.profiles: list[Range] = []
        for profile in range(engine.num_optimization_profiles):
            smallest, usual, largest = (
                tuple(shape) for shape in engine.get_tensor_profile_shape(IMAGE, profile)
            )
            self.profiles.append((smallest, usual, largest))

    @property
    def engine(self) -> trt.ICudaEngine:
        if self._engine is None:
            raise BackendError("the engine is closed")
        return self._engine

    def new_context(self) -> trt.IExecutionContext:
        """A context whose memory the caller brings. Raises ``BackendError``."""
        context = _context(self._trt, self.engine)
        if context is None:
            raise BackendError(f"TensorRT made no execution context{self.complaint()}")
        return context

    def output_specs(self, context: trt.IExecutionContext) -> list[TensorSpec]:
        """The outputs for the shape that ``context`` has been given. Raises ``BackendError``."""
        missing = context.infer_shapes()
        if missing:
            raise BackendError(f"TensorRT lacks the shapes of {', '.join(missing)}{self.complaint()}")
        specs = []
        for name in self.outputs:
            shape = tuple(context.get_tensor_shape(name))
            if any(side < 0 for side in shape):
                raise BackendError(f"the engine does not say how large its output {name} is")
            specs.append(TensorSpec(name, shape, self.dtypes[name]))
        return specs

    def complaint(self) -> str:
        """TensorRT's errors since the last time, as the end of a sentence."""
        said = [self._complaints.popleft() for _ in range(len(self._complaints))]
        return f": {said[0][:300]}" if said else ""

    def close(self) -> None:
        """Lets go of the engine, then of the runtime; contexts must be gone."""
        self._engine = None
        self._runtime = None


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _context(trt: Any, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
    return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)


def _logger(trt: Any, complaints: deque[str]) -> trt.ILogger:
    """Keeps TensorRT's errors for our own messages; everything less is dropped."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                complaints.append(" ".join(msg.split()))

    return Logger()
