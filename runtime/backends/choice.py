"""Choice of a backend for a model: names, .onnx files, .engine files and checkpoints."""

from __future__ import annotations

from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.backends import Backend, SteerableBackend
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, Provider
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.torch import TorchBackend
from measnet.runtime.backends.triton import SCHEME, ServedModel, TritonBackend
from measnet.weights import NAMES, at_hand, bundled

BACKENDS = (
    "auto",
    "onnxruntime",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "tensorrt",
    "torch",
)

ENGINE_SUFFIXES = (".engine", ".plan")

_PROVIDERS: dict[str, Provider | None] = {
    "onnxruntime": None,
    "onnxruntime-cpu": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}


def choose_backend(
    model: str, backend: str = "auto", threads: int | None = None, *, steered: bool = False
) -> Backend:
    """The backend for ``model``: a bundled name, an .onnx or .engine file, or a checkpoint.

    ``auto`` takes ONNX Runtime for names and graphs, TensorRT for engines, PyTorch for checkpoints. The
    address of a Triton server (``triton://HOST:PORT/MODEL``) is a backend too; without MODEL, ``model`` is
    its name there. For ONNX Runtime a name is its plain graph or, to be ``steered``, the one that takes
    image-level decisions, which gives the same where nobody steers.
    Raises ``UsageError`` for a pair that cannot work.
    """
    if backend.startswith(SCHEME):
        return TritonBackend(ServedModel.parse(backend), model)
    if backend not in BACKENDS:
        raise UsageError(
            f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)} or triton://HOST:PORT/MODEL"
        )
    graph = model.lower().endswith(".onnx")
    engine = model.lower().endswith(ENGINE_SUFFIXES)
    named = model in NAMES
    if backend == "auto":
        backend = "tensorrt" if engine else "onnxruntime" if named or graph else "torch"
    if backend == "tensorrt":
        if not engine:
            raise UsageError(f"the tensorrt backend runs engines; build one with: {_export(model, named)}")
        return TensorRTBackend(_file(model), threads)
    if engine:
        raise UsageError(f"{model} is an engine, which the tensorrt backend runs, not {backend}")
    if backend == "torch":
        if graph:
            raise UsageError(f"the torch backend runs checkpoints, not graphs like {model}")
        return TorchBackend(bundled(model, ".safetensors") if named else _file(model), threads)
    if not named and not graph:
        raise UsageError(f"the onnxruntime backend runs graphs; export one with: measnet-export {model}")
    ending = ".steerable.onnx" if steered and model in at_hand(".steerable.onnx") else ".onnx"
    path = bundled(model, ending) if named else _file(model)
    return OnnxRuntimeBackend(path, threads, _PROVIDERS[backend])


def steerable_twin(backend: Backend, model: str, threads: int | None) -> SteerableBackend | None:
    """The bundled graph that computes what ``backend``'s does and takes image-level decisions; None where
    there is none, or where ``backend`` is not ONNX Runtime."""
    if model not in at_hand(".steerable.onnx") or not isinstance(backend, OnnxRuntimeBackend):
        return None
    return OnnxRuntimeBackend(bundled(model, ".steerable.onnx"), threads, backend.provider)


def _export(model: str, named: bool) -> str:
    if named or model.lower().endswith(".onnx"):
        return f"measnet-export engine {model}"
    return f"measnet-export {model}, and measnet-export engine GRAPH of what that writes"


def _file(model: str) -> Path:
    path = Path(model)
    if not path.is_file():
        raise UsageError(
            f"the model {model!r} is neither one of {', '.join(at_hand('.onnx'))} nor a file that exists"
        )
    return path


def checkpoint_of(model: str, checkpoint: str | None = None) -> Path:
    """The checkpoint that ``model`` was made from, to verify against.

    Raises ``UsageError`` for a graph or an engine when none is given: these do not hold their checkpoint.
    """
    if checkpoint is not None:
        return _file(checkpoint)
    if model in NAMES:
        return bundled(model, ".safetensors")
    if model.lower().endswith((".onnx", *ENGINE_SUFFIXES)):
        raise UsageError(
            f"verifying {model} needs the checkpoint it was exported from: add --checkpoint FILE"
        )
    return _file(model)
