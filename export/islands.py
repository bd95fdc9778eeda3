"""Islands: the operators of a MEASNet that stay float32 in a 16-bit graph, with the reasons.

Node names carry the network's modules (``encoder1.0.attention/Softmax``), so an island is a pattern of
names. docs/precision.md measures what each of them is worth: ``python bench/precision.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True)
class Island:
    """A part of the network that computes in float32."""

    name: str
    pattern: re.Pattern[str]
    """Matches the whole name of every node of the island: ``module/Operator`` or ``module/Operator_2``."""

    reason: str

    def holds(self, node: NodeProto) -> bool:
        return self.pattern.fullmatch(node.name) is not None


def _island(name: str, reason: str, *patterns: str) -> Island:
    return Island(name, re.compile("|".join(f"(?:{pattern})" for pattern in patterns)), reason)


ISLANDS: tuple[Island, ...] = (
    _island(
        "pixel router",
        "a pixel changes experts when its scores move by less than a 16-bit step; all that leads to them, "
        "from the image on, is stem, prompt and router",
        r"(?:stem|prompt)[./].*",
        r"pixel_experts1\.router[./].*",
        r"pixel_experts1/TopK.*",
    ),
    _island(
        "pixel ensemble",
        "the gates, which are exponentials, and a log-sum-exp, where gates of -1e30 are infinite in 16 bits; "
        "not a plain sum (``pixel_experts1.sum``)",
        r"pixel_experts1/.*",
    ),
    _island(
        "image router",
        "the mean over all pixels, the scores and the choice of each image's experts",
        r"fd_mee\d\.\w+\.experts\.scores/.*",
        r"fd_mee\d\.\w+\.experts/(?:ReduceMean|Softmax|TopK).*",
    ),
    _island(
        "filter prediction",
        "the mean over all pixels, and a softmax",
        r"fd_mee\d\.decompose\.(?:predict|norm)/.*",
        r"fd_mee\d\.decompose/(?:ReduceMean|Softmax).*",
    ),
    _island(
        "frequency mask",
        "which frequencies pass is a choice too; the products sum over all pixels",
        r"frequency\d\.(?:lift|cutoff|split)[./].*",
        r"frequency\d/(?:Resize|ReduceMean|Sigmoid).*",
    ),
    _island(
        "norms",
        "mean and variance; TensorRT 11 computes a norm in its input's type",
        r".*/(?:LayerNormalization|BatchNormalization).*",
    ),
    _island(
        "L2 norms",
        "a sum of squares over all pixels overflows 65504; the floor of 1e-12 is 0 in FP16",
        r".*attention/(?:ReduceL2|Clip|Div).*",
    ),
    _island("softmax", "exponentials of scores and their sum", r".*attention/(?:Softmax|Mul).*"),
    _island("means", "sums over all pixels", r".*/ReduceMean.*"),
    _island(
        "last sum",
        "the image itself is worth more than 11 bits",
        r"measnet/(?:Add|Clip|Mul).*",
        r"tone[./].*",
    ),
)


def island_of(node: NodeProto) -> Island | None:
    """The first island that holds ``node``; None where 16 bits are enough."""
    return next((island for island in ISLANDS if island.holds(node)), None)
