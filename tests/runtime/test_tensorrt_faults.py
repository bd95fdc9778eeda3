"""TensorRT where it goes wrong: calls that fail, a lost GPU, engines from elsewhere.

On a fake GPU (``fake_gpu.py``), and as far as the real packages show without one.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet import BackendError, Restorer, UsageError
from measnet.engine_file import write_engine
from measnet.errors import EngineError, MissingPackageError
from measnet.gpu import GPU
from measnet.image import to_image
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.tensorrt.cuda import Cuda, CudaError
from measnet.runtime.backends.tensorrt.fit import misfit
from measnet.runtime.backends.tensorrt.lane import STEADY
from measnet.runtime.backends.tensorrt.plan import LoadedPlan

from .engine_bench import FACTS, LARGE, SMALL, Bench, Exact, bench, exact, frames, same, small

__all__ = ["bench", "exact", "frames", "small"]


def test_out_of_memory_says_what_is_there_and_leaves_it_usable(
    bench: Bench, small: tuple[np.ndarray, np.ndarray]
) -> None:
    backend = bench.backend(bench.engine([SMALL, LARGE]))
    same(backend.infer(small[0]), small[1])
    bench.gpu.fail("cudaMalloc", "cudaErrorMemoryAllocation", after=1)
    with pytest.raises(
        BackendError, match=r"out of memory: \d+ MiB on the GPU cannot be had \(512 MiB of 1024 MiB are free"
    ):
        backend.infer(np.zeros((2, 3, 256, 288), np.float32))
    same(backend.infer(small[0]), small[1])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("cuInit", "CUDA_ERROR_NOT_INITIALIZED"),
        ("cuCtxGetCurrent", "CUDA_ERROR_DEINITIALIZED"),
        ("cudaStreamCreateWithFlags", "cudaErrorInvalidValue"),
        ("cudaEventCreateWithFlags", "cudaErrorInvalidValue"),
        ("cudaMalloc", "cudaErrorMemoryAllocation"),
        ("create_execution_context", "out of memory"),
        ("set_input_shape", "the shape is too large"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing_behind(call: str, error: str, bench: Bench) -> None:
    bench.gpu.fail(call, error)
    with pytest.raises(BackendError, match=error.replace("cudaErrorMemoryAllocation", "out of memory")):
        bench.backend()
    assert bench.gpu.alive() == {} and not bench.gpu.contexts


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("cudaMalloc", 0), ("cudaMalloc", 1), ("cudaMallocHost", 0), ("cudaFree", 0), ("cudaFreeHost", 0),
        ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 1), ("cudaStreamSynchronize", 0), ("cudaGraphLaunch", 0),
        ("cudaStreamBeginCapture", 0), ("cudaStreamEndCapture", 0), ("cudaGraphInstantiate", 0),
        ("cudaGraphDestroy", 0), ("cudaGraphExecDestroy", 0),
        ("set_input_shape", 0), ("set_tensor_address", 1), ("execute_async_v3", 0),
    ],
)  # fmt: skip
def test_any_call_may_fail_at_any_frame(
    call: str,
    after: int,
    bench: Bench,
    frames: list[np.ndarray],
    small: tuple[np.ndarray, np.ndarray],
    exact: Exact,
) -> None:
    """One BackendError at most, nothing used after it was freed, and the next frame is right."""
    backend = bench.backend()
    image, right = small
    larger = to_image(frames[0][:144, :160])
    bench.leaks = {
        "cudaFree": {"device"},
        "cudaFreeHost": {"pinned"},
        "cudaGraphDestroy": {"captured"},
        "cudaGraphExecDestroy": {"graph"},
    }.get(call, set())
    failed = 0
    for steady in (0, STEADY, STEADY + 2):
        for frame in (larger, image):  # larger buffers; another shape, or the same
            bench.gpu.fail(call, "cudaErrorInvalidValue", after)
            with contextlib.suppress(BackendError):
                same(backend.infer(frame), exact(frame) if frame is larger else right)
            failed += not bench.gpu.faults[call]
            bench.gpu.faults.clear()
            for _ in range(steady):
                same(backend.infer(image), right)
    assert failed or call in ("cudaFree", "cudaFreeHost")  # memory only grows, and once was enough


def test_a_failed_execution_says_what_tensorrt_said(
    bench: Bench, small: tuple[np.ndarray, np.ndarray]
) -> None:
    backend = bench.backend()
    bench.gpu.fail("execute_async_v3", "a kernel failed")
    with pytest.raises(BackendError, match=r"of \(1, 3, 128, 128\): execute_async_v3: a kernel failed"):
        backend.infer(small[0])


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaStreamSynchronize", "cudaGraphInstantiate"])
@pytest.mark.parametrize("error", ["cudaErrorIllegalAddress", "cudaErrorLaunchFailure"])
def test_a_lost_gpu_is_said_and_everything_ends_tidily(
    call: str, error: str, bench: Bench, small: tuple[np.ndarray, np.ndarray]
) -> None:
    backend = bench.backend()
    bench.gpu.fail(call, error)
    with pytest.raises(CudaError, match=f"{error}.*; the GPU is lost to this process"):
        for _ in range(STEADY + 1):
            backend.infer(small[0])
    with pytest.raises(CudaError, match="the GPU is lost"):
        backend.infer(small[0])
    backend.deactivate()


def test_deactivating_frees_everything(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :160])
    for _ in range(STEADY + 2):
        backend.infer(image)
    assert set(bench.gpu.alive()) == {"stream", "event", "graph", "device", "pinned", "context"}
    backend.deactivate()
    assert bench.gpu.alive() == {} and not bench.gpu.contexts and not bench.gpu.engines
    backend.deactivate()
    for attempt in (lambda: backend.infer(image), lambda: backend.facts):
        with pytest.raises(BackendError, match="not active"):
            attempt()
    backend.activate()
    backend.infer(image)


# Engines from elsewhere


def test_a_plan_that_is_not_ours_is_refused_with_what_builds_one(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "raw.engine").write_bytes(b"ftrt" + bytes(1000))
    with pytest.raises(
        EngineError, match=r"no engine file of ours.*build one with: measnet-export engine GRAPH"
    ):
        Restorer(str(tmp_path / "raw.engine"))


def test_a_damaged_engine_never_reaches_tensorrt(bench: Bench) -> None:
    path = bench.engine()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is damaged"):
        bench.backend(path)


def test_an_engine_for_another_machine_says_for_which_and_what_is_here(bench: Bench) -> None:
    path = bench.engine(compute_capability="12.0", gpu="NVIDIA Elsewhere 5090")
    with pytest.raises(EngineError) as refusal:
        bench.backend(path)
    for said in (
        "built for TensorRT 10.16.1.11 on NVIDIA Elsewhere 5090, compute capability 12.0",
        f"this machine has TensorRT 10.16.1.11 on {FACTS.gpu}, compute capability 8.9",
        "build it here with: measnet-export engine GRAPH --with tensorrt",
    ):
        assert said in str(refusal.value)


def test_a_machine_without_a_gpu_says_so(bench: Bench) -> None:
    bench.gpu.fail("cudaGetDeviceCount", "cudaErrorNoDevice")
    with pytest.raises(EngineError, match=r"built for TensorRT 10.16.* this machine shows no GPU"):
        bench.backend()


HERE = GPU("NVIDIA A", "8.9", "580.1", "13.0")
PORTABLE = {"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}


@pytest.mark.parametrize(
    ("facts", "version", "fits"),
    [
        ({}, "10.16.1.11", True),
        ({}, "10.16.2.0", False),
        ({"settings": {"version_compatible": True}}, "10.17.0.1", True),
        ({"settings": {"version_compatible": True}}, "11.4.1.9", True),
        ({"settings": {"version_compatible": True}}, "10.12.0.3", False),
        ({"settings": {"version_compatible": True}, "flavour_version": "11.1.0.1"}, "12.0.0.0", False),
        ({"gpu": "NVIDIA B"}, "10.16.1.11", False),
        (
            {"gpu": "NVIDIA B", "settings": {"hardware_compatible": "same-compute-capability"}},
            "10.16.1.11",
            True,
        ),
        (
            {"compute_capability": "8.0", "settings": {"hardware_compatible": "ampere-plus"}},
            "10.16.1.11",
            True,
        ),
        ({"compute_capability": "8.6"}, "10.16.1.11", False),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}, "1.7.1", True),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": "NVIDIA B"}, "1.7.1", True),
        ({**PORTABLE, "compute_capability": "8.0 8.6 8.9 12.0"}, "1.7.1", True),
        ({**PORTABLE, "compute_capability": "8.6 12.0"}, "1.7.1", False),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}, "1.8.0", False),
        ({"driver": "570.0", "cuda": "12.8"}, "10.16.1.11", True),
    ],
)
def test_which_engines_run_where(facts: dict[str, Any], version: str, fits: bool) -> None:
    built = replace(FACTS, gpu="NVIDIA A")
    assert (misfit(replace(built, **facts), HERE, version) is None) == fits


@pytest.mark.parametrize("compatible", [True, False])
def test_a_version_compatible_plan_may_bring_its_runtime_and_no_other(compatible: bool, bench: Bench) -> None:
    backend = bench.backend(bench.engine(settings={"version_compatible": compatible}))
    assert backend._plan._runtime.engine_host_code_allowed is compatible


def test_a_plan_that_tensorrt_refuses_leads_to_its_own_words(bench: Bench) -> None:
    path = bench.engine()
    write_engine(path, TensorRTBackend(path)._read()[0], b"nonsense")
    with pytest.raises(BackendError, match="TensorRT does not load the engine: deserialize_cuda_engine"):
        bench.backend(path)


def test_missing_packages_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, said in (
        ("tensorrt", r"pip install 'measnet\[tensorrt\]'"),
        ("cuda.bindings", "cuda-python"),
    ):
        with monkeypatch.context() as patch, pytest.raises(MissingPackageError, match=said):
            patch.setitem(sys.modules, module, None)
            bench.backend()


def test_an_engine_of_a_flavour_that_is_not_known_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineError, match="for 'abacus'"):
        bench.backend(bench.engine(flavour="abacus"))


# Which backend runs what


def test_engines_select_tensorrt_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    path.touch()
    assert isinstance(choose_backend(str(path)), TensorRTBackend)
    assert isinstance(choose_backend(str(path), "tensorrt"), TensorRTBackend)
    for backend in ("torch", "onnxruntime", "onnxruntime-cuda"):
        with pytest.raises(UsageError, match="an engine, which the tensorrt backend runs"):
            choose_backend(str(path), backend)
    with pytest.raises(UsageError, match=r"runs engines.*measnet-export engine nano"):
        choose_backend("nano", "tensorrt")
    with pytest.raises(UsageError, match="nor a file that exists"):
        choose_backend("missing.engine")


# The real packages


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


def test_tensorrt_rtx_itself_refuses_in_a_sentence_of_ours() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    import tensorrt_rtx as trt

    with pytest.raises(BackendError, match=r"TensorRT does not load the engine: IRuntime::deserialize.*"):
        LoadedPlan(trt, b"no plan at all" * 10, host_code=False)
