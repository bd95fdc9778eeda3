"""Frames of other libraries: read as NumPy arrays without a copy, and results given back in their kind.

Kinds of memory are told by DLPack's numbers (dmlc.github.io/dlpack).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from measnet.errors import UsageError, first_line
from measnet.image import Pixels

if TYPE_CHECKING:
    from torch import Tensor

_HOST = (1, 3)  # kDLCPU, kDLCUDAHost


class SupportsDLPack(Protocol):
    """Anything that lends its memory, as NumPy's arrays do."""

    def __dlpack__(self, *arguments: Any, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...


AnyFrame = TypeVar("AnyFrame", Pixels, NDArray[Any], "Tensor", SupportsDLPack)


def to_host(frame: Any) -> Any:
    """The array that ``frame`` is, or lends by DLPack; what lends nothing comes back as it is.

    Raises ``UsageError`` for memory of a GPU, and for what NumPy cannot read.
    """
    if isinstance(frame, np.ndarray):
        return frame
    lends = hasattr(frame, "__dlpack__") and hasattr(frame, "__dlpack_device__")
    on_host = int(frame.__dlpack_device__()[0]) in _HOST if lends else True
    if not on_host or hasattr(frame, "__cuda_array_interface__"):
        raise UsageError(
            f"this {type(frame).__name__} is on a GPU, and Restorer takes frames in the host's memory: hand "
            "over a copy (frame.cpu() in PyTorch, frame.get() in CuPy), or give it to a TensorRT engine "
            "where it is (docs/embedding.md)"
        )
    if not lends:
        return frame
    try:
        return np.from_dlpack(frame)
    except (BufferError, RuntimeError, TypeError) as error:
        raise UsageError(f"NumPy cannot read this {type(frame).__name__}: {first_line(error)}") from None


def in_kind_of(frame: Any, restored: Pixels) -> Any:
    """``restored`` as a tensor if ``frame`` is one, otherwise as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(frame, torch.Tensor):
        return torch.from_numpy(restored)
    return restored
