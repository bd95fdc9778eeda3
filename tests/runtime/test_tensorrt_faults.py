"""TensorRT where it goes wrong: calls that fail, a lost GPU, engines from elsewhere.

By the fakes of test_tensorrt_backend.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet import BackendError, Restorer, UsageError
from measnet.engine_file import EngineFacts, write_engine
from measnet.errors import EngineError, MissingPackageError
from measnet.gpu import GPU
from measnet.image import to_image
from measnet.runtime.backends import Inference
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.tensorrt.fit import misfit
from measnet.runtime.backends.tensorrt.lane import STEADY
from measnet.runtime.backends.tensorrt.plan import LoadedPlan

from .engine_bench import LARGE, SMALL, Bench, bench, exact, frames, same, small
from .fake_cuda import cudaError_t

__all__ = ["bench", "exact", "frames", "small"]


def test_out_of_memory_says_what_is_there_and_leaves_it_usable(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend(bench.engine([SMALL, LARGE]))
    small = to_image(frames[0][:128, :128])
    same(backend.infer(small), exact(small))
    bench.cuda.memory = 1 << 20
    with pytest.raises(
        BackendError, match=r"out of memory: \d+ MiB on the GPU cannot be had \(\d+ MiB of 1 "
    ):
        backend.infer(np.zeros((2, 3, 256, 288), np.float32))
    same(backend.infer(small), exact(small))


def test_too_little_memory_to_begin_with_leaves_nothing_behind(bench: Bench) -> None:
    bench.cuda.memory = 10_000
    with pytest.raises(BackendError, match="out of memory"):
        bench.backend()
    assert bench.cuda.alive() == {} and bench.trt.contexts == 0


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("cudaMalloc", 0), ("cudaMalloc", 2), ("cudaMallocHost", 0), ("cudaFree", 0), ("cudaFreeHost", 0),
        ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 2), ("cudaStreamSynchronize", 0), ("cudaGraphLaunch", 0),
        ("cudaStreamBeginCapture", 0), ("cudaStreamEndCapture", 0), ("cudaGraphInstantiate", 0),
        ("cudaGraphDestroy", 0), ("cudaGraphExecDestroy", 0),
    ],
)  # fmt: skip
def test_any_call_may_fail_at_any_frame(
    call: str, after: int, bench: Bench, frames: list[np.ndarray], small: tuple[np.ndarray, Inference]
) -> None:
    """One BackendError at most, nothing used after it was freed, and the next frame is right."""
    backend = bench.backend()
    image, right = small
    bench.leaks = {
        "cudaFree": {"device"},
        "cudaFreeHost": {"pinned"},
        "cudaGraphDestroy": {"captured"},
        "cudaGraphExecDestroy": {"graph"},
    }.get(call, set())
    failed = 0
    for steady in (0, STEADY, STEADY + 2):
        for frame in (to_image(frames[0][:144, :160]), image):  # larger buffers; another shape, or the same
            bench.cuda.fail(call, cudaError_t.cudaErrorInvalidValue, after)
            with contextlib.suppress(BackendError):
                backend.infer(frame)
            failed += not bench.cuda.faults[call]
            bench.cuda.faults.clear()
            for _ in range(steady):
                same(backend.infer(image), right)
    assert failed or call in ("cudaFree", "cudaFreeHost")  # memory only grows, and once was enough


def test_a_failed_execution_says_what_tensorrt_said(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    bench.trt.fail_execution = 1
    with pytest.raises(
        BackendError, match=r"TensorRT failed on frames of \(1, 3, 128, 128\): enqueueV3: make-believe"
    ):
        backend.infer(image)
    same(backend.infer(image), exact(image))


def test_a_lost_gpu_is_said_and_everything_ends_tidily(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    bench.trt.fault_execution = True
    with pytest.raises(BackendError, match=r"cudaErrorIllegalAddress.*; the GPU is lost to this process"):
        backend.infer(image)
    with pytest.raises(BackendError, match="the GPU is lost"):
        backend.infer(image)
    backend.deactivate()


def test_deactivating_frees_everything(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :160])
    for _ in range(STEADY + 2):
        backend.infer(image)
    assert set(bench.cuda.alive()) == {"stream", "event", "graph", "device", "pinned", "context"}
    backend.deactivate()
    assert bench.cuda.alive() == {} and bench.trt.contexts == 0
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
    assert str(refusal.value) == (
        f"{path} does not run here: the engine was built for TensorRT 10.16.1.11 on NVIDIA Elsewhere 5090, "
        "compute capability 12.0, driver 580.1, CUDA 13.0; this machine has TensorRT 10.16.1.11 on NVIDIA "
        "Make-believe 9000, compute capability 8.9; build it here with: measnet-export engine GRAPH "
        "--with tensorrt"
    )


def test_a_machine_without_a_gpu_says_so(bench: Bench) -> None:
    bench.cuda.devices = 0
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
    built = EngineFacts(
        graph_sha256="",
        graph={},
        calibration_sha256="",
        profiles=(),
        settings={},
        measnet_version="",
        flavour="tensorrt",
        flavour_version="10.16.1.11",
        compute_capability="8.9",
        gpu="NVIDIA A",
        driver="580.1",
        cuda="13.0",
    )
    assert (misfit(replace(built, **facts), HERE, version) is None) == fits


def test_a_version_compatible_plan_may_bring_its_runtime_and_no_other(bench: Bench) -> None:
    bench.backend(bench.engine(settings={"version_compatible": True}, needs_host_code=True))
    with pytest.raises(BackendError, match="engine_host_code_allowed is not set"):
        bench.backend(bench.engine(needs_host_code=True))


def test_a_plan_that_tensorrt_refuses_leads_to_its_own_words(bench: Bench) -> None:
    path = bench.engine()
    write_engine(path, TensorRTBackend(path)._read()[0], b"nonsense")
    with pytest.raises(BackendError, match=r"TensorRT does not load the engine: IRuntime::.*magicTag"):
        bench.backend(path)


def test_an_engine_of_something_else_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineError, match="takes 'image' and returns 'restored'"):
        bench.backend(bench.engine(names={"image": "pixels"}))
    with pytest.raises(BackendError, match="no execution context: createExecutionContext: out of memory"):
        bench.backend(bench.engine(no_context=True))


def test_missing_packages_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = bench.engine()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'measnet\[tensorrt\]'"):
        bench.backend(path)
    bench.trt.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingPackageError, match="cuda-python"):
        bench.backend(path)
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


def test_tensorrt_rtx_itself_refuses_in_a_sentence_of_ours() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    import tensorrt_rtx as trt

    with pytest.raises(BackendError, match=r"TensorRT does not load the engine: IRuntime::deserialize.*"):
        LoadedPlan(trt, b"no plan at all" * 10, host_code=False)
