"""MEASNet: all-in-one image restoration, from training to real video.

    from measnet import Restorer
    restored = Restorer("nano")(pixels)          # uint8, H W 3

Names load what they need when they are first used: importing the package imports neither torch nor
ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from measnet.config import VARIANTS, MEASNetConfig
from measnet.errors import (
    BackendError,
    CheckpointError,
    GraphError,
    InputError,
    MEASNetError,
    MissingPackageError,
    OutputError,
    ParityError,
    UsageError,
)

if TYPE_CHECKING:
    from measnet.checkpoint import load_checkpoint, save_checkpoint
    from measnet.network import MEASNet
    from measnet.runtime.restorer import Restorer

__all__ = [
    "VARIANTS",
    "BackendError",
    "CheckpointError",
    "GraphError",
    "InputError",
    "MEASNet",
    "MEASNetConfig",
    "MEASNetError",
    "MissingPackageError",
    "OutputError",
    "ParityError",
    "Restorer",
    "UsageError",
    "load_checkpoint",
    "save_checkpoint",
]

_LAZY = {
    "MEASNet": "measnet.network",
    "Restorer": "measnet.runtime.restorer",
    "load_checkpoint": "measnet.checkpoint",
    "save_checkpoint": "measnet.checkpoint",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'measnet' has no attribute {name!r}")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingPackageError(f"measnet.{name}", error.name, "train") from None


def __dir__() -> list[str]:
    return sorted(__all__)
