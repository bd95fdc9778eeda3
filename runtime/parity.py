"""Parity while it runs: restores frames with the reference too, and holds the two against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from measnet.errors import MissingPackageError, UsageError
from measnet.image import Pixels
from measnet.metrics import (
    FP32_TOLERANCE,
    TOLERANCES,
    Parity,
    Tolerance,
    experts_agree,
    largest_difference,
    psnr,
)
from measnet.runtime.backends.choice import checkpoint_of
from measnet.runtime.guard import bundled_name, safer_than
from measnet.runtime.restorer import RestoredFrame, Restorer


@dataclass
class ParityFigures:
    """Parity over all frames that were verified: the worst of each figure, routing as a mean."""

    tolerance: Tolerance
    frames: int = 0
    psnr_db: float = float("inf")
    largest_difference: float = 0.0
    experts_agree_sum: float = 0.0

    def add(self, parity: Parity) -> None:
        self.frames += 1
        self.psnr_db = min(self.psnr_db, parity.psnr_db)
        self.largest_difference = max(self.largest_difference, parity.largest_difference)
        self.experts_agree_sum += parity.experts_agree

    @property
    def worst(self) -> Parity:
        agree = self.experts_agree_sum / self.frames if self.frames else 1.0
        return Parity(self.psnr_db, self.largest_difference, agree)

    @property
    def breaches(self) -> list[str]:
        return self.worst.breaches(self.tolerance)


class Verifier:
    """Holds a restorer's frames against the reference's, on the same input and the same tiles.

    The reference is PyTorch. Without torch it is the float32 graph of the same weights on the CPU, where that
    is bundled and is not what restores anyway.

    ``checkpoint`` is the checkpoint the restorer's model was made from, or its float32 graph; bundled models
    know theirs. ``tolerance`` is by default that of the model's precision.
    Raises ``MissingPackageError`` without torch and such a graph, ``UsageError`` when the checkpoint has
    other weights.
    """

    def __init__(
        self,
        restorer: Restorer,
        checkpoint: str | None = None,
        tolerance: Tolerance | None = None,
    ) -> None:
        self._restorer = restorer
        self._network = _reference(restorer, checkpoint)
        ours = restorer.description["weights_sha256"]
        theirs = self._network.description["weights_sha256"]
        if ours != theirs:
            raise UsageError(
                f"{restorer.model} was not made from {self._network.model}: its weights are {ours[:12]}…, "
                f"the checkpoint's {theirs[:12]}…"
            )
        precision = restorer.description["precision"]
        self._figures = ParityFigures(tolerance or TOLERANCES.get(precision, FP32_TOLERANCE))

    def check(self, pixels: Pixels, restored: RestoredFrame) -> Parity:
        """Restores ``pixels`` with PyTorch and adds how far ``restored`` is from it."""
        self._network.follow(self._restorer, *pixels.shape[:2])
        steering = restored.steering
        expected = self._network.restore(pixels, steering, apart=steering is None)
        agree = [
            experts_agree(ours, theirs)
            for ours, theirs in zip(restored.choices, expected.choices, strict=True)
        ]
        parity = Parity(
            psnr_db=psnr(restored.image, expected.image),
            largest_difference=largest_difference(restored.image, expected.image),
            experts_agree=float(np.mean(agree)),
        )
        self._figures.add(parity)
        return parity

    @property
    def figures(self) -> dict[str, Any]:
        """Ready for JSON: the reference, the frames verified, three figures, the tolerance, the verdict."""
        worst = self._figures.worst
        return {
            "reference": self._network.description["backend"],
            "frames": self._figures.frames,
            "psnr_db": worst.psnr_db if np.isfinite(worst.psnr_db) else None,
            "largest_difference": worst.largest_difference,
            "experts_agree": worst.experts_agree,
            "tolerance": vars(self._figures.tolerance),
            "passed": not self._figures.breaches,
            "breaches": self._figures.breaches,
        }

    def close(self) -> None:
        self._network.close()


def _reference(restorer: Restorer, checkpoint: str | None) -> Restorer:
    """What computes the same weights in float32; a checkpoint's are yet to be held against the restorer's."""
    if checkpoint is not None and checkpoint.lower().endswith(".onnx"):
        return Restorer(checkpoint, "onnxruntime-cpu", restorer.channel_order, tile=restorer.tile)
    known = bundled_name(restorer.description["weights_sha256"]) if checkpoint is None else None
    path = checkpoint_of(known or restorer.model, checkpoint)
    try:
        return Restorer(str(path), "torch", restorer.channel_order, tile=restorer.tile)
    except MissingPackageError:
        graph = safer_than(restorer, None)
        if graph is None:
            raise
        return graph
