"""The loss by INT8, on frames that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from measnet.errors import ParityError
from measnet.export.emulation import emulated
from measnet.export.parity import network_answer
from measnet.export.session import GraphSession
from measnet.image import Image
from measnet.metrics import TOLERANCES, Choices, Parity, Tolerance, compare, psnr
from measnet.network import MEASNet

WAYS = {
    "rounded": "INT8 and FP16, rounded",
    "onnxruntime": "in ONNX Runtime on this CPU",
    "without_int8": "FP16 alone, rounded",
}


@dataclass(frozen=True)
class Loss:
    """Graphs held against the network in float32, PyTorch's."""

    frames: tuple[str, ...]
    """Names of the frames."""

    size: tuple[int, int]
    """Their (height, width)."""

    parity: dict[str, Parity]
    """By how a graph was run, over all frames together: ``rounded``, every 16-bit tensor rounded;
    ``onnxruntime``, as it is; ``without_int8``, the 16-bit graph that INT8 was put into, rounded."""

    effect_db: float
    """PSNR of what the network was given against what it made of it: how much it changes at all."""

    tolerance: Tolerance
    """The loss beyond which a graph with INT8 is warned of."""

    @property
    def breaches(self) -> list[str]:
        """Lists what lies outside the tolerance, in words, of either way INT8 was run."""
        found = [
            breach
            for way, parity in self.parity.items()
            if way != "without_int8"
            for breach in parity.breaches(self.tolerance)
        ]
        return list(dict.fromkeys(found))


def measure_loss(
    int8: onnx.ModelProto,
    fp16: onnx.ModelProto,
    network: MEASNet,
    frames: Sequence[tuple[str, Image]],
    progress: Callable[[], None] = lambda: None,
) -> Loss:
    """Runs both graphs and ``network`` on each of ``frames`` (name, 1 3 H W), one after the other.

    ``progress`` is called after each frame. Raises ``ParityError`` when a result is not finite, and
    ``GraphError`` when ONNX Runtime does not run a graph.
    """
    sessions = {
        "rounded": GraphSession(emulated(int8).SerializeToString()),
        "onnxruntime": GraphSession(int8.SerializeToString()),
        "without_int8": GraphSession(emulated(fp16).SerializeToString()),
    }
    expected: list[Image] = []
    expected_choices: list[Choices] = []
    restored: dict[str, list[Image]] = {way: [] for way in sessions}
    choices: dict[str, list[Choices]] = {way: [] for way in sessions}
    for name, image in frames:
        answer = network_answer(network, image)
        expected.append(answer.restored.numpy())
        expected_choices.append(answer.choices())
        for way, session in sessions.items():
            outputs: dict[str, Any] = session.run(image)
            if not np.isfinite(outputs["restored"]).all():
                raise ParityError(f"the graph's result for {name} is not finite ({WAYS[way]})")
            restored[way].append(outputs["restored"])
            choices[way].append(Choices(outputs.get("pixel_experts"), outputs.get("image_experts")))
        progress()
    theirs = np.concatenate(expected)
    span = float(np.ptp(theirs))
    tolerance = TOLERANCES["int8"]
    return Loss(
        frames=tuple(name for name, _ in frames),
        size=(theirs.shape[2], theirs.shape[3]),
        parity={
            way: compare(
                np.concatenate(restored[way]), theirs, _joined(choices[way]), _joined(expected_choices)
            )
            for way in sessions
        },
        effect_db=psnr(np.concatenate([image for _, image in frames]), theirs),
        # As for 16-bit graphs: relative for a network that was not trained.
        tolerance=tolerance.scaled(span) if span > 2 else tolerance,
    )


def _joined(choices: Sequence[Choices]) -> Choices:
    """The choices for a batch of images, from those for each."""
    pixels = [chosen.pixel_experts for chosen in choices if chosen.pixel_experts is not None]
    images = [chosen.image_experts for chosen in choices if chosen.image_experts is not None]
    return Choices(np.concatenate(pixels) if pixels else None, np.concatenate(images) if images else None)
