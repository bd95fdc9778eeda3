"""The GPU of this machine, in the words that decide which engines it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from measnet.errors import MissingPackageError

KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class GPU:
    name: str
    compute_capability: str
    """Such as ``8.9``."""

    driver: str
    """The driver's own version; "" where it does not say."""

    cuda: str
    """The newest CUDA version that the driver supports, such as ``13.0``."""


def first_gpu() -> GPU | None:
    """The first GPU that CUDA shows (``CUDA_VISIBLE_DEVICES`` counts), or None without one or its driver.

    Raises ``MissingPackageError`` without cuda-python.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingPackageError("looking for a GPU", "cuda-python", "tensorrt") from None
    try:
        error, count = runtime.cudaGetDeviceCount()
        if error != runtime.cudaError_t.cudaSuccess or not count:
            return None
        error, properties = runtime.cudaGetDeviceProperties(0)
        if error != runtime.cudaError_t.cudaSuccess:
            return None
        _, version = runtime.cudaDriverGetVersion()
    except RuntimeError:  # cuda-python's own word for a library that is not there
        return None
    name = properties.name.decode(errors="replace").rstrip("\0").strip()
    return GPU(name, f"{properties.major}.{properties.minor}", _driver(), _readable(version))


def free_memory() -> int | None:
    """Bytes that are free on the first GPU, or None without one, its driver or cuda-python."""
    try:
        from cuda.bindings import runtime

        error, free, _ = runtime.cudaMemGetInfo()
        return int(free) if error == runtime.cudaError_t.cudaSuccess else None
    except (ImportError, RuntimeError):
        return None


def _driver() -> str:
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", KERNEL_MODULE.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _readable(version: int) -> str:
    """13000 -> 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"
