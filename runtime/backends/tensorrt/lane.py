"""A lane, with which one thread runs an engine: a context, a stream and buffers of its own.

    pinned memory ── upload ── network ── download ── pinned memory

Threads overlap: while one frame is computed, the next one of another thread is copied.

The launch of the whole network is one call where that is possible, a CUDA graph. Capturing it costs about as
much as a frame, so a shape must have come a few times in a row; tiles of changing sizes are launched the
ordinary way. An engine that cannot be captured (streamed weights, shapes that depend on data, plugins that
allocate) is launched the ordinary way for good, and ``graph_refusal`` says why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from measnet.errors import BackendError, UsageError
from measnet.runtime.backends.tensorrt.cuda import Cuda, CudaError, Memory, TensorBuffers, TensorSpec
from measnet.runtime.backends.tensorrt.device_array import DeviceArray
from measnet.runtime.backends.tensorrt.plan import IMAGE, RESTORED, LoadedPlan

if TYPE_CHECKING:
    import tensorrt as trt

STEADY = 3
"""Frames of one shape in a row before it is worth a graph."""


class LaunchGraph:
    """The graph of a lane's buffers, or none yet."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._graph: Any = None
        self._key: Hashable = None

    def holds(self, key: Hashable) -> bool:
        """Says whether there is a graph for exactly these shapes and addresses."""
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


InputShapes = dict[str, tuple[int, ...]]
"""The shape of every input, by name."""


class Lane:
    """Raises ``BackendError`` when its context, stream or memory cannot be had."""

    def __init__(self, plan: LoadedPlan, cuda: Cuda) -> None:
        self._plan = plan
        self._cuda = cuda
        self.graph_refusal: str | None = None
        """The reason why CUDA graphs are not used, if they are not."""

        self.graphs = 0
        """Graphs captured so far."""

        self._context: trt.IExecutionContext | None = None
        self._profile: int | None = None
        self._shapes: InputShapes | None = None
        self._steady = 0
        with contextlib.ExitStack() as resources:
            self._stream = cuda.stream()
            resources.callback(quietly, cuda.destroy_stream, self._stream)
            self._handed, self._returned = (new_event(cuda, resources) for _ in range(2))
            self._activations = Memory(cuda.allocate, cuda.free)
            self._buffers = {name: TensorBuffers(cuda) for name in (*plan.inputs, *plan.outputs)}
            self._graph = LaunchGraph(cuda)
            resources.callback(quietly, self._activations.close)
            for buffers in self._buffers.values():
                resources.callback(quietly, buffers.close)
            resources.callback(quietly, self._graph.close)
            self._context = plan.new_context()
            self._resources = resources.pop_all()

    def infer(self, inputs: dict[str, NDArray[Any]], profile: int) -> dict[str, NDArray[Any]]:
        """Runs a batch of allowed shapes, all inputs by name; the outputs by name.

        Raises ``BackendError``; the lane is usable then, unless the GPU is lost.
        """
        try:
            outputs = self._prepare(profile, {name: array.shape for name, array in inputs.items()})
            given = [TensorSpec(name, array.shape, self._plan.dtypes[name]) for name, array in inputs.items()]
            for spec in (*given, *outputs):
                self._buffers[spec.name].fit(spec)
            for name, array in inputs.items():
                np.copyto(self._buffers[name].host, array, casting="same_kind")
                self._buffers[name].upload(self._stream)
            self._launch({spec.name: self._buffers[spec.name].device for spec in (*given, *outputs)})
            for spec in outputs:
                self._buffers[spec.name].download(self._stream)
            self._cuda.synchronize(self._stream)
        except BaseException:
            self._settle()
            raise
        return {spec.name: self._buffers[spec.name].host.copy() for spec in outputs}

    def infer_device(self, image: DeviceArray, out: DeviceArray, profile: int, stream: int) -> None:
        """Restores ``image``, the plan's only input, into ``out`` between what is in ``stream`` now and what
        comes later.

        Raises ``UsageError`` when ``out`` has another shape or type than the engine's output.
        """
        try:
            outputs = self._prepare(profile, {IMAGE: image.shape})
            self._check_out(out, outputs)
            addresses = {IMAGE: image.pointer, RESTORED: out.pointer}
            for spec in outputs:
                if spec.name != RESTORED:
                    self._buffers[spec.name].fit(spec)
                    addresses[spec.name] = self._buffers[spec.name].device
            for before in dict.fromkeys((stream, image.stream, out.stream)):
                if before is not None:
                    self._cuda.record(self._handed, before)
                    self._cuda.wait(self._stream, self._handed)
            self._bind(addresses)
            self._enqueue()
            self._cuda.record(self._returned, self._stream)
            self._cuda.wait(stream, self._returned)
        except BaseException:
            self._settle()
            raise

    def close(self) -> None:
        """Waits for what is under way, then frees everything; never fails."""
        self._settle()
        self._context = None
        self._resources.close()

    def _prepare(self, profile: int, shapes: InputShapes) -> list[TensorSpec]:
        """Sets the context to a profile and shapes; a graph of other shapes is forgotten."""
        plan, cuda = self._plan, self._cuda
        context: trt.IExecutionContext = self._context
        if (profile, shapes) != (self._profile, self._shapes):
            cuda.synchronize(self._stream)
            self._graph.close()
            self._shapes = None
            self._steady = 0
            if profile != self._profile:
                self._profile = None
                self._set_profile(profile)
                self._profile = profile
            for name, shape in shapes.items():
                if not context.set_input_shape(name, shape):
                    what = "frames" if name == IMAGE else f"a {name}"
                    raise BackendError(f"TensorRT refuses {what} of {shape}{plan.complaint()}")
            self._shapes = shapes
        return plan.output_specs(context)

    def _set_profile(self, profile: int) -> None:
        plan = self._plan
        engine: trt.ICudaEngine = plan.engine
        context: trt.IExecutionContext = self._context
        if context.active_optimization_profile != profile:
            if not context.set_optimization_profile_async(profile, int(self._stream)):
                raise BackendError(f"TensorRT refuses its profile {profile}{plan.complaint()}")
            self._cuda.synchronize(self._stream)
        self._activations.reserve(engine.get_device_memory_size_for_profile_v2(profile))
        context.set_device_memory(self._activations.pointer, self._activations.nbytes)

    def _launch(self, addresses: dict[str, int]) -> None:
        """The network into the stream: as a graph where there is one or it is time for one."""
        key = (self._profile, self._frame_shape, self._activations.pointer, *addresses.values())
        if not self._graph.holds(key):
            self._bind(addresses)
            if self._steady < STEADY or self.graph_refusal is not None or not self._captured(key):
                self._enqueue()
                self._steady += 1
                return
        self._graph.launch(self._stream)

    def _captured(self, key: tuple[Any, ...]) -> bool:
        self._cuda.synchronize(self._stream)
        try:
            self._graph.capture(key, self._stream, self._enqueue)
        except BackendError as error:
            if isinstance(error, CudaError) and error.lost:
                raise
            self.graph_refusal = str(error)
            return False
        self.graphs += 1
        return True

    def _bind(self, addresses: dict[str, int]) -> None:
        context: trt.IExecutionContext = self._context
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT refuses the memory for {name}{self._plan.complaint()}")

    def _enqueue(self) -> None:
        context: trt.IExecutionContext = self._context
        if not context.execute_async_v3(int(self._stream)):
            raise BackendError(f"TensorRT failed on frames of {self._frame_shape}{self._plan.complaint()}")

    @property
    def _frame_shape(self) -> tuple[int, ...] | None:
        """The shape of the image; every other input's follows from it."""
        return None if self._shapes is None else self._shapes[IMAGE]

    def _check_out(self, out: DeviceArray, outputs: list[TensorSpec]) -> None:
        spec = next(spec for spec in outputs if spec.name == RESTORED)
        if out.read_only or (out.shape, out.dtype) != (spec.shape, spec.dtype):
            raise UsageError(
                f"the result is {spec.dtype} {spec.shape}; the array for it is {out.dtype} {out.shape}"
                f"{' and read-only' if out.read_only else ''}"
            )

    def _settle(self) -> None:
        """After a failure: waits for what is under way and starts from nothing with the next frame."""
        quietly(self._cuda.synchronize, self._stream)
        quietly(self._graph.close)
        self._profile = self._shapes = None


def quietly(step: Callable[..., None], *arguments: Any) -> None:
    """Tidying up goes on when a step of it fails: on a GPU that is lost, every step does."""
    with contextlib.suppress(CudaError):
        step(*arguments)


def new_event(cuda: Cuda, resources: contextlib.ExitStack) -> Any:
    event = cuda.event()
    resources.callback(quietly, cuda.destroy_event, event)
    return event
