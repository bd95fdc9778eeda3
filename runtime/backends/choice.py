"""Which backend runs which model: names, .onnx files and checkpoints."""

from __future__ import annotations

from pathlib import Path

from measnet.config import VARIANTS
from measnet.errors import UsageError
from measnet.runtime.backends import Backend
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.torch import TorchBackend
from measnet.weights import bundled

BACKENDS = ("auto", "onnxruntime", "torch")


def choose_backend(model: str, backend: str = "auto", threads: int | None = None) -> Backend:
    """The backend for ``model``: a variant's name, an .onnx file, or a checkpoint.

    ``auto`` takes ONNX Runtime for names and graphs, PyTorch for checkpoints.
    Raises ``UsageError`` for a pair that cannot work.
    """
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    graph = model.lower().endswith(".onnx")
    named = model in VARIANTS
    if backend == "auto":
        backend = "onnxruntime" if named or graph else "torch"
    if backend == "torch":
        if graph:
            raise UsageError(f"the torch backend runs checkpoints, not graphs like {model}")
        return TorchBackend(bundled(model, ".safetensors") if named else _file(model), threads)
    if not named and not graph:
        raise UsageError(
            "the onnxruntime backend runs graphs; "
            f"export one with: measnet-export --checkpoint {model} --dynamic"
        )
    return OnnxRuntimeBackend(bundled(model, ".onnx") if named else _file(model), threads)


def _file(model: str) -> Path:
    path = Path(model)
    if not path.is_file():
        raise UsageError(
            f"the model {model!r} is neither one of {', '.join(VARIANTS)} nor a file that exists"
        )
    return path


def checkpoint_of(model: str, checkpoint: str | None = None) -> Path:
    """The checkpoint that ``model`` was made from, to verify against.

    Raises ``UsageError`` for an .onnx file when none is given: a graph does not hold its checkpoint.
    """
    if checkpoint is not None:
        return _file(checkpoint)
    if model in VARIANTS:
        return bundled(model, ".safetensors")
    if model.lower().endswith(".onnx"):
        raise UsageError(
            f"verifying {model} needs the checkpoint it was exported from: add --checkpoint FILE"
        )
    return _file(model)
