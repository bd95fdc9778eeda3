"""Backends: what computes the network. Each is three verbs on arrays, and a description.

To add one: write the class, and name it in ``choose_backend`` (``runtime/backends/choice.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from measnet.decision_layout import INPUTS, Vector
from measnet.description import GraphDescription
from measnet.image import Image, batch_to_images
from measnet.metrics import Choices


@dataclass(frozen=True)
class Inference:
    """Result of a backend for a batch."""

    restored: Image
    """B 3 H W, about 0 to 1, not clipped; of a graph that returns bytes, those over 255."""

    choices: Choices

    prompt_weights: NDArray[np.float32] | None
    """B T, or None where the network has no prompt."""

    decisions: NDArray[np.float32] | None = None
    """B D: the images' own image-level decisions (``measnet/decision_layout.py``), whatever held; None
    without steering."""

    norms: NDArray[np.float32] | None = None
    """B E: norms by which the decisions of tiles are combined; None without steering."""


@dataclass(frozen=True)
class Steering:
    """Image-level decisions to take from outside."""

    held: Vector
    """D."""

    hold: Vector
    """D, 0 to 1: how much of each is taken from ``held``."""

    window: NDArray[np.float32] | None = None
    """H W of the given images, 1 for pixels that count in the means from which decisions are taken; None is
    all, those included with which a backend pads the images."""


def inference_from(outputs: Mapping[str, NDArray[Any]], description: GraphDescription) -> Inference:
    """Reads the outputs of a graph that is described so, by their names."""
    restored, order = outputs["restored"], description.channel_order
    return Inference(
        restored=batch_to_images(restored, order) if description.takes_bytes else restored,
        choices=Choices(outputs.get("pixel_experts"), outputs.get("image_experts")),
        prompt_weights=outputs.get("prompt_weights"),
        decisions=outputs.get("decisions"),
        norms=outputs.get("norms"),
    )


class Backend(Protocol):
    """Activate, infer as often as needed, deactivate."""

    @property
    def description(self) -> GraphDescription:
        """The graph that it computes. Known once it is active."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts of what computes: its name, its provider or device, versions. Known once it is active."""

    def activate(self) -> None:
        """Loads everything. Raises ``UsageError`` when the file is at fault, ``BackendError`` otherwise."""

    def infer(self, images: Image) -> Inference:
        """B 3 H W, padded to an allowed size, RGB, 0 to 1 -> the restored batch. Raises ``BackendError``."""

    def deactivate(self) -> None:
        """Lets go of everything; ``activate`` may follow."""


class SteerableBackend(Backend, Protocol):
    """A backend whose description says that it is steerable."""

    def infer(self, images: Image, steering: Steering | None = None) -> Inference:
        """See Backend.infer; with decisions from outside it also tells which held."""


def unsteered(description: GraphDescription) -> Steering | None:
    """Gives what a steerable graph takes when nobody steers; None for others."""
    if not description.steerable:
        return None
    nothing = description.decisions.hold(0)
    return Steering(held=nothing, hold=nothing)


def steering_inputs(steering: Steering, images: Image) -> dict[str, NDArray[np.float32]]:
    """``window`` B 1 H W, ``held`` and ``hold`` B D, as graphs take them, for ``images`` (B 3 H W), which may
    have been padded further than the steering's window."""
    batch, _, height, width = images.shape
    if steering.window is None:
        window = np.ones((batch, 1, height, width), np.float32)
    else:
        rows, columns = steering.window.shape
        window = np.zeros((batch, 1, height, width), np.float32)
        window[:, :, :rows, :columns] = steering.window
    values = (window, np.tile(steering.held, (batch, 1)), np.tile(steering.hold, (batch, 1)))
    return dict(zip(INPUTS, values, strict=True))
