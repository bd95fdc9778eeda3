"""Backends: what computes the network. Each is three verbs on arrays, and a description.

To add one: write the class, and name it in ``choose_backend`` (``runtime/backends/choice.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from measnet.description import GraphDescription
from measnet.image import Image
from measnet.metrics import Choices


@dataclass(frozen=True)
class Inference:
    """What a backend returns for a batch."""

    restored: Image
    """B 3 H W, about 0 to 1, not clipped; of a graph that returns bytes, those over 255."""

    choices: Choices

    prompt_weights: NDArray[np.float32] | None
    """B T, or None where the network has no prompt."""


class Backend(Protocol):
    """Activate, infer as often as needed, deactivate."""

    @property
    def description(self) -> GraphDescription:
        """What it computes. Known once it is active."""

    @property
    def facts(self) -> dict[str, str]:
        """What it computes with: its name, its provider or device, versions. Known once it is active."""

    def activate(self) -> None:
        """Loads everything. Raises ``UsageError`` when the file is at fault, ``BackendError`` otherwise."""

    def infer(self, images: Image) -> Inference:
        """B 3 H W, padded to an allowed size, RGB, 0 to 1 -> the restored batch. Raises ``BackendError``."""

    def deactivate(self) -> None:
        """Lets go of everything; ``activate`` may follow."""
