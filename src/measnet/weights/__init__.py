"""The weights that come with the package: ``NAME.safetensors``, and graphs to run that keep theirs in it.

``NAME.onnx`` is the plain graph, ``NAME.steerable.onnx`` takes image-level decisions too. All three are
written by ``python -m measnet.export.bundle CHECKPOINT NAME``, and belong together.

README.md in this folder says what each was trained on and what it reaches.
"""

from __future__ import annotations

from pathlib import Path

from measnet.config import VARIANTS
from measnet.errors import UsageError

FOLDER = Path(__file__).parent

NAMES = tuple(VARIANTS)
"""Names of weights: those of their variants."""


def bundled(name: str, suffix: str) -> Path:
    """The bundled file of a name in ``NAMES``; ``suffix`` is ``.onnx``, ``.safetensors`` or
    ``.steerable.onnx``.

    Raises ``UsageError`` when this version has no such weights.
    """
    path = FOLDER / (name + suffix)
    if name not in NAMES or not path.is_file():
        have = ", ".join(at_hand(suffix)) or "none"
        raise UsageError(
            f"there are no bundled weights called {name!r} (there are: {have}); "
            "give the path of an .onnx file or of a checkpoint"
        )
    return path.resolve()  # an installer may have linked it, and what lies beside it lies there


def at_hand(suffix: str) -> list[str]:
    """The names whose bundled file with this ending is in this version."""
    return sorted(name for name in NAMES if (FOLDER / (name + suffix)).is_file())
