"""ONNX Runtime's providers: the one asked for, or an error; never another one in silence.

No GPU provider runs here. ONNX Runtime's own answers are stood in for where it says that a machine has one;
sessions and results are real, on the CPU.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnxruntime as ort
import pytest

from measnet import BackendError, Restorer, UsageError
from measnet.errors import GraphError
from measnet.runtime.backends.onnxruntime import BoundSession, OnnxRuntimeBackend
from measnet.weights import bundled

CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
CPU: Final = "CPUExecutionProvider"
GRAPH = bundled("nano", ".onnx")
REAL = ort.InferenceSession


def machine(monkeypatch: pytest.MonkeyPatch, *, loads: bool) -> list[list[Any]]:
    """An ONNX Runtime for GPUs on a machine where CUDA cannot be loaded: silently, or with an error."""
    asked: list[list[Any]] = []

    def session(path: str, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        asked.append(providers)
        assert enable_fallback == 0  # or it prints and falls back by itself
        if not loads and providers[0][0] != CPU:
            raise RuntimeError("libcublas.so.13: cannot open shared object file")
        return REAL(path, options, providers=[CPU])

    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", session)
    return asked


@pytest.mark.parametrize(
    ("backend", "provider", "command"),
    [
        ("onnxruntime-cuda", CUDA, r"pip install 'onnxruntime-gpu\[cuda,cudnn\]'"),
        ("onnxruntime-tensorrt", TENSORRT, r"'tensorrt>=10.12,<11'"),
    ],
)
def test_a_provider_that_this_onnxruntime_has_not_is_refused_with_its_command(
    backend: str, provider: str, command: str
) -> None:
    if provider in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(UsageError, match=f"has no {provider}, only .*{CPU}; install .*{command}"):
        Restorer("nano", backend=backend)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_onnxruntime_silently_left_out_is_an_error(
    provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = machine(monkeypatch, loads=True)
    backend = OnnxRuntimeBackend(GRAPH, provider=provider)
    with pytest.raises(BackendError, match=rf"{provider} is not active: .* took {CPU}; .*pip install"):
        backend.activate()
    assert asked[0][0][0] == provider and asked[0][-1][0] == CPU
    with pytest.raises(BackendError, match="not active"):
        _ = backend.facts


def test_a_provider_that_fails_to_load_is_an_error_when_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, loads=False)
    with pytest.raises(BackendError, match=r"with CUDAExecutionProvider: libcublas\.so\.13"):
        OnnxRuntimeBackend(GRAPH, provider=CUDA).activate()


@pytest.mark.parametrize("loads", [True, False], ids=["silently", "with an error"])
def test_without_a_wish_the_cpu_takes_over_and_it_is_said(
    loads: bool, monkeypatch: pytest.MonkeyPatch, noisy_picture: np.ndarray
) -> None:
    machine(monkeypatch, loads=loads)
    with Restorer("nano", backend="onnxruntime") as restorer:
        assert restorer.description["provider"] == CPU
        assert restorer.description["fallback"] == f"{CUDA} could not be loaded"
        assert restorer(noisy_picture).shape == noisy_picture.shape


def test_nothing_is_said_of_a_fallback_where_there_was_none() -> None:
    with Restorer("nano") as restorer:
        assert "fallback" not in restorer.description


def test_tf32_is_off_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch, loads=True)
    OnnxRuntimeBackend(GRAPH).activate()
    assert dict(asked[0])[CUDA] == {"use_tf32": "0"}


def test_a_damaged_graph_is_not_blamed_on_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    machine(monkeypatch, loads=True)
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError, match="not a sound ONNX file"):
        OnnxRuntimeBackend(tmp_path / "x.onnx").activate()


def test_bound_memory_gives_what_an_ordinary_run_gives() -> None:
    session = REAL(str(GRAPH), providers=[CPU])
    bound = BoundSession(session, "cpu")
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    kept: list[tuple[dict[str, Any], list[Any]]] = []
    for shape in ((128, 128), (128, 128), (144, 160), (128, 128), (128, 128)):
        images = rng.random((1, 3, *shape), np.float32)
        kept.append((bound.run(images), session.run(None, {"image": images})))
    for ours, theirs in kept:  # the first ones too, after later frames went through the same memory
        for name, value in zip(names, theirs, strict=True):
            assert np.abs(ours[name].astype(float) - value.astype(float)).max() < 1e-5


def test_a_failed_frame_does_not_spoil_the_bound_memory() -> None:
    session = REAL(str(GRAPH), providers=[CPU])
    bound = BoundSession(session, "cpu")
    image = np.full((1, 3, 128, 128), 0.5, np.float32)
    right = bound.run(image)["restored"]
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT|expected|[Ii]nvalid"):
        bound.run(np.zeros((1, 4, 128, 128), np.float32))
    assert (bound.run(image)["restored"] == right).all()
