"""The fake GPU and the fake TensorRT are no easier than what they stand for, and have the same names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from measnet import BackendError
from measnet.runtime.backends.tensorrt.cuda import Cuda

from . import fake_cuda, fake_tensorrt
from .fake_cuda import FakeCuda, Violation

ROOT = Path(__file__).parents[2]


def test_the_fake_gpu_notices_what_it_should() -> None:
    cuda = FakeCuda()
    runtime: Any = cuda.runtime
    (_, one), (_, two) = (runtime.cudaStreamCreateWithFlags(1) for _ in range(2))
    (_, device), (_, pinned) = runtime.cudaMalloc(256), runtime.cudaMallocHost(256)
    up = fake_cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    down = fake_cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
    runtime.cudaMemcpyAsync(device, pinned, 256, up, one)
    wrongs: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: runtime.cudaMemcpyAsync(device, pinned, 256, up, two), "nothing orders them"),
        (lambda: runtime.cudaMemcpyAsync(pinned, device, 256, down, two), "nothing orders them"),
        (lambda: runtime.cudaMemcpyAsync(device, pinned, 256, down, one), "direction"),
        (lambda: runtime.cudaMemcpyAsync(device, pinned, 257, up, one), "past the end"),
        (lambda: runtime.cudaMemcpyAsync(device, pinned, 256, up, 0), "default stream"),
        (lambda: runtime.cudaFree(device), "still uses"),
    )
    for wrong, said in wrongs:
        with pytest.raises(Violation, match=said):
            wrong()
    (_, event) = runtime.cudaEventCreateWithFlags(2)
    runtime.cudaEventRecord(event, one)
    runtime.cudaStreamWaitEvent(two, event, 0)
    runtime.cudaMemcpyAsync(pinned, device, 256, down, two)  # ordered now
    fake_cuda.write_memory(pinned, b"\0" * 256)
    with pytest.raises(Violation, match="changed before it was copied"):
        runtime.cudaStreamSynchronize(two)
    runtime.cudaStreamSynchronize(two)
    runtime.cudaFree(device)
    with pytest.raises(Violation, match="after it was freed"):
        runtime.cudaMemcpyAsync(device, pinned, 256, up, one)
    runtime.cudaStreamDestroy(one)
    with pytest.raises(Violation, match="no stream that is open"):
        runtime.cudaStreamSynchronize(one)


def test_the_fake_gpu_has_cuda_pythons_functions() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    from cuda.bindings import driver as real_driver

    for functions, module in ((fake_cuda._RUNTIME, real), (fake_cuda._DRIVER, real_driver)):
        assert len(functions) > 4
        for name, ours in functions.items():
            theirs = list(inspect.signature(getattr(module, name)).parameters)
            assert list(inspect.signature(ours).parameters)[1:] == theirs, name
    for name, value in fake_cuda._CONSTANTS.items():
        if isinstance(value, int):
            assert getattr(real, name) == value
        else:
            for member in value:
                assert getattr(getattr(real, name), member.name).value == member.value
    for member in fake_cuda.CUpointer_attribute:
        assert getattr(real_driver.CUpointer_attribute, member.name).value == member.value


def test_cuda_python_takes_our_arguments_as_far_as_a_machine_without_a_gpu_shows() -> None:
    """Every call reaches CUDA and is refused there, in a sentence; none is refused for its arguments."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a GPU")
    cuda = Cuda()
    stream, event = real.cudaStream_t(0), real.cudaEvent_t(0)
    for call in (
        cuda.use_primary_context,
        cuda.stream,
        cuda.event,
        lambda: cuda.record(event, stream),
        lambda: cuda.record(event, 77),
        lambda: cuda.wait(stream, event),
        lambda: cuda.wait(77, event),
        lambda: cuda.synchronize(stream),
        lambda: cuda.allocate(4096),
        lambda: cuda.allocate_pinned(4096),
        lambda: cuda.free(1 << 40),
        lambda: cuda.free_pinned(1 << 40),
        lambda: cuda.upload(1 << 40, 1 << 41, 16, stream),
        lambda: cuda.download(1 << 41, 1 << 40, 16, stream),
        lambda: cuda.begin_capture(stream),
        lambda: cuda.end_capture(stream),
        lambda: cuda.instantiate(real.cudaGraph_t(0)),
        lambda: cuda.launch(real.cudaGraphExec_t(0), stream),
        lambda: cuda.destroy_captured(real.cudaGraph_t(0)),
        lambda: cuda.destroy_graph(real.cudaGraphExec_t(0)),
        lambda: cuda.destroy_stream(stream),
        lambda: cuda.destroy_event(event),
    ):
        with pytest.raises(BackendError, match=r"^CUDA (failed at|is not there)"):
            call()
    cuda.release_primary_context()


def members(made: type) -> dict[str, Any]:
    return {name: value for name, value in vars(made).items() if not name.startswith("_")}


@pytest.mark.parametrize("version", ["10.16", "11.4", "rtx-1.7"])
def test_the_fake_tensorrt_has_the_names_and_parameters_of_the_listings(version: str) -> None:
    api = json.loads((ROOT / "tests" / "data" / "tensorrt_api.json").read_text())[version]
    for made in (fake_tensorrt.Runtime, fake_tensorrt.ICudaEngine, fake_tensorrt.IExecutionContext):
        listed = api[made.__name__]["members"]
        for name, value in members(made).items():
            assert name in listed, f"{made.__name__}.{name}"
            if inspect.isfunction(value):
                ours = list(inspect.signature(value).parameters)[1:]
                theirs = [[parameter[0] for parameter in overload[0]] for overload in listed[name]]
                assert ours in theirs, f"{made.__name__}.{name}{ours}"
            else:
                assert isinstance(listed[name], str), f"{made.__name__}.{name} is no property"
    for kind in ("ExecutionContextAllocationStrategy", "TensorIOMode", "DataType"):
        for member in getattr(fake_tensorrt, kind):
            assert member.name in api[kind]["members"]


def test_the_fake_tensorrt_has_the_signatures_of_the_bindings_here() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    import tensorrt_rtx as trt

    for made in (fake_tensorrt.Runtime, fake_tensorrt.ICudaEngine, fake_tensorrt.IExecutionContext):
        for name, value in members(made).items():
            theirs = getattr(getattr(trt, made.__name__), name)
            if inspect.isfunction(value):
                text = theirs.__doc__.split("\n    ")[0]
                for parameter in list(inspect.signature(value).parameters)[1:]:
                    assert f" {parameter}: " in theirs.__doc__, text
    for kind in ("ExecutionContextAllocationStrategy", "TensorIOMode", "DataType"):
        for member in getattr(fake_tensorrt, kind):
            assert hasattr(getattr(trt, kind), member.name)
