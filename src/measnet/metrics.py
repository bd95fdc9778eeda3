"""Measures of likeness of two results: PSNR, and the three figures of parity.

Shapes: B batch, K chosen experts, H W size, h w size at the stem's scale, S image-level choices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def psnr(a: Array, b: Array, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of one shape; infinite when they are equal."""
    error = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def largest_difference(a: Array, b: Array) -> float:
    """The largest absolute difference of two arrays of one shape."""
    return float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64))))


@dataclass(frozen=True)
class Choices:
    """The experts that every router chose for an image; ``None`` where the network has no such router."""

    pixel_experts: NDArray[np.uint8] | None
    """B K h w, the experts of each pixel."""

    image_experts: NDArray[np.uint8] | None
    """B S K, the experts of each image in each FD-MEE branch."""


@dataclass(frozen=True)
class Parity:
    """The figures by which an engine is compared with the network."""

    psnr_db: float
    """PSNR of the restored images, with a peak of 1."""

    largest_difference: float
    """Largest difference of any value of the restored images."""

    experts_agree: float
    """Share of pixels, 0 to 1, whose experts (their own and their image's) are the same on both sides."""

    def breaches(self, tolerance: Tolerance) -> list[str]:
        """Lists what lies outside ``tolerance``, in words; empty when all is well."""
        found = []
        if not self.psnr_db >= tolerance.psnr_db:
            found.append(f"PSNR {self.psnr_db:.1f} dB is below {tolerance.psnr_db:g} dB")
        if not self.largest_difference <= tolerance.largest_difference:
            found.append(
                f"largest difference {self.largest_difference:.3g} is above {tolerance.largest_difference:g}"
            )
        if not self.experts_agree >= tolerance.experts_agree:
            found.append(
                f"experts agree on {self.experts_agree:.4%} of pixels, below {tolerance.experts_agree:.4%}"
            )
        return found


@dataclass(frozen=True)
class Tolerance:
    """The largest differences from the network that an engine may have."""

    psnr_db: float
    largest_difference: float
    experts_agree: float

    def scaled(self, span: float) -> Tolerance:
        """The same relative to results that span more than 0 to 1, as an untrained network's do."""
        wide = max(1.0, span)
        return Tolerance(
            self.psnr_db - 20 * math.log10(wide), self.largest_difference * wide, self.experts_agree
        )


FP32_TOLERANCE = Tolerance(psnr_db=60.0, largest_difference=0.05, experts_agree=0.999)
"""A float32 engine differs in rounding alone (98 dB and more were seen), except where two experts tie to
within that rounding: there a pixel may go to the other one, and an untrained network, whose experts tie
often, was seen at 69 dB. 60 dB is still less harm than rounding to 8 bits does (58.9 dB)."""

FP16_TOLERANCE = Tolerance(psnr_db=55.0, largest_difference=0.05, experts_agree=0.99)
"""An FP16 graph keeps its routers in float32, so experts change only where they tie: none did for the
bundled weights, at 78 dB (docs/precision.md). 55 dB, little more than what rounding to 8 bits does, is the
least that a graph may reach."""

BF16_TOLERANCE = Tolerance(psnr_db=45.0, largest_difference=0.1, experts_agree=0.99)
"""BF16 has 8 bits of precision, three fewer than FP16: 18 dB less, and 60 dB for the bundled weights."""

INT8_TOLERANCE = Tolerance(psnr_db=35.0, largest_difference=0.25, experts_agree=0.5)
"""INT8 differs visibly from float32 at worst, and an image's experts may change where two of them are close:
the bundled weights were seen at 45 dB and more, one picture in four with other experts
(docs/calibrating.md). Below 35 dB something is wrong: frames of another kind than were calibrated on, or a
network that INT8 does not suit."""

TOLERANCES = {
    "fp32": FP32_TOLERANCE,
    "fp16": FP16_TOLERANCE,
    "bf16": BF16_TOLERANCE,
    "int8": INT8_TOLERANCE,
}
"""The tolerance for each precision that a graph may state."""


def compare(engine: Array, network: Array, engine_choices: Choices, network_choices: Choices) -> Parity:
    """Parity of two restorations of one batch, each B 3 H W with values of about 0 to 1."""
    return Parity(
        psnr_db=psnr(engine, network),
        largest_difference=largest_difference(engine, network),
        experts_agree=experts_agree(engine_choices, network_choices),
    )


def experts_agree(a: Choices, b: Choices) -> float:
    """Share of pixels whose experts are the same set on both sides, at either level."""
    images = _same_sets(a.image_experts, b.image_experts, axis=2)  # B S
    pixels = _same_sets(a.pixel_experts, b.pixel_experts, axis=1)  # B h w
    if pixels is None:
        return 1.0 if images is None else float(images.all(axis=1).mean())
    if images is None:
        return float(pixels.mean())
    whole = np.asarray(images.all(axis=1))  # B
    return float((pixels & whole[:, None, None]).mean())


def _same_sets(
    a: NDArray[np.uint8] | None, b: NDArray[np.uint8] | None, axis: int
) -> NDArray[np.bool_] | None:
    if a is None or b is None:
        return None
    same: NDArray[np.bool_] = (np.sort(a, axis=axis) == np.sort(b, axis=axis)).all(axis=axis)
    return same
