"""TensorRT's timing caches: how long its kernels took on one GPU, kept in sealed files between builds."""

from __future__ import annotations

from pathlib import Path

from measnet.errors import EngineError
from measnet.export.target import Target
from measnet.sealed_file import MAGIC, read_sealed, write_sealed

KIND = "timing cache"


def read_timing_cache(path: Path, target: Target, *, replace_any: bool = False) -> tuple[bytes, str]:
    """The timings in ``path`` for ``target``, and a note when they cannot be used; b"" begins new ones.

    Raises ``EngineError`` for a file that is none of ours, so that it is not overwritten, unless it is in
    a place of ours where any file may be (``replace_any``).
    """
    if not path.exists():
        return b"", ""
    try:
        sealed = read_sealed(path, KIND)
    except EngineError as error:
        if not (replace_any or _is_sealed(path)):
            raise
        return b"", f"{error}; timings begin anew"
    if sealed.facts != _facts(target):
        return b"", f"{path} has timings of another GPU, driver or TensorRT; timings begin anew"
    return sealed.payload, ""


def write_timing_cache(path: Path, target: Target, timings: bytes) -> None:
    """Raises ``OutputError``."""
    write_sealed(path, KIND, _facts(target), timings)


def _facts(target: Target) -> dict[str, str]:
    return {name: str(value) for name, value in vars(target).items()}


def _is_sealed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
