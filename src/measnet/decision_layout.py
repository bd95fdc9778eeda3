"""Image-level decisions as one vector: its layout, and how the vectors of several pieces become one.

Their order is read off the network (``measnet/network/decisions.py``) and stored in its graphs. All are
linear in means over pixels, but for the affinities of channel attention, which are averaged as the products
that they are, over the norms that belong to them, and for the peaks in frequency blocks, of which the largest
counts.
Shapes: D numbers of all decisions, E of all norms, T pieces of a picture, h heads, c channels of a head,
C channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

DecisionKind = Literal["prompt", "attention", "filters", "experts", "mean", "peak"]
Vector = NDArray[np.float32]

INPUTS = ("window", "held", "hold")
"""Further inputs of a steerable graph, besides the image, by name: B 1 H W, B D, B D."""

OUTPUTS = ("decisions", "norms")
"""Outputs that only it has: B D, B E."""


KINDS = get_args(DecisionKind)
MOST_PARTS = 4096
MOST_NUMBERS = 1 << 24


@dataclass(frozen=True)
class DecisionPart:
    """One decision: ``prompt`` (T basic prompts), ``attention`` (h, c, c), ``filters`` (G, S*S), ``experts``
    (N,), of a gated or a frequency block's features ``mean`` (C,), and of the latter's ``peak`` (C,)."""

    name: str
    """Its place in the network."""

    kind: DecisionKind
    shape: tuple[int, ...]
    start: int
    """Place of its first number in D."""

    norms_start: int
    """Place of its first norm in E: h*c of the queries, then as many of the keys. Attention alone has any."""

    @property
    def numbers(self) -> slice:
        return slice(self.start, self.start + math.prod(self.shape))

    @property
    def norms(self) -> int:
        """Count of its norms."""
        return 2 * self.shape[0] * self.shape[1] if self.kind == "attention" else 0


class DecisionLayout:
    """The order of the D decisions and E norms: the name, kind and shape of each of ``points``."""

    def __init__(self, points: Iterable[tuple[str, DecisionKind, tuple[int, ...]]] = ()) -> None:
        parts: list[DecisionPart] = []
        self.size = self.norms_size = 0
        for name, kind, shape in points:
            parts.append(DecisionPart(name, kind, shape, self.size, self.norms_size))
            self.size += math.prod(shape)
            self.norms_size += parts[-1].norms
        self.parts = tuple(parts)

    def to_json(self) -> str:
        """The layout as graphs store it."""
        return json.dumps([[part.name, part.kind, *part.shape] for part in self.parts])

    @classmethod
    def from_json(cls, text: str) -> DecisionLayout:
        """Reads what ``to_json`` wrote. Raises ``ValueError`` on anything else."""
        stored = json.loads(text)
        if not isinstance(stored, list) or len(stored) > MOST_PARTS:
            raise ValueError("decisions that are no list")
        layout = cls(_point(point) for point in stored)
        if layout.size > MOST_NUMBERS:
            raise ValueError(f"{layout.size} decisions")
        return layout

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecisionLayout) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def hold(self, share: float) -> Vector:
        """D: ``share`` of every decision."""
        return np.full(self.size, share, np.float32)

    @property
    def prompt(self) -> slice:
        """Places of the prompt's scores in D; empty without TSPG."""
        return next((part.numbers for part in self.parts if part.kind == "prompt"), slice(0, 0))

    def combine(self, decisions: Sequence[Vector], norms: Sequence[Vector], pixels: Sequence[int]) -> Vector:
        """T times D and E, of pieces with so many pixels that counted -> D, as the whole picture has them."""
        share = np.asarray(pixels, np.float64) / sum(pixels)  # T
        each = np.stack(decisions).astype(np.float64)  # T D
        norm = np.stack(norms).astype(np.float64)  # T E
        whole = share @ each  # D
        whole_norm = share @ norm  # E
        for part in self.parts:
            if part.kind == "peak":
                whole[part.numbers] = each[:, part.numbers].max(axis=0)
            elif part.kind == "attention":
                products = each[:, part.numbers] * _lengths(part, norm)
                whole[part.numbers] = share @ products / np.maximum(_lengths(part, whole_norm), 1e-12)
        return whole.astype(np.float32)


def _lengths(part: DecisionPart, norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """... E -> ... h*c*c: the product of the lengths of each query's and each key's channel."""
    heads, channels, _ = part.shape
    count = heads * channels
    of_part = np.sqrt(norms[..., part.norms_start : part.norms_start + 2 * count])
    queries = of_part[..., :count].reshape(*norms.shape[:-1], heads, channels, 1)
    keys = of_part[..., count:].reshape(*norms.shape[:-1], heads, 1, channels)
    return np.asarray(queries * keys).reshape(*norms.shape[:-1], count * channels)


def _point(stored: object) -> tuple[str, DecisionKind, tuple[int, ...]]:
    if not isinstance(stored, list) or len(stored) < 3:
        raise ValueError("a decision that is no name, kind and shape")
    name, kind, *shape = stored
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= 65536 for side in shape)
    if not isinstance(name, str) or kind not in KINDS or not whole or len(shape) > 3:
        raise ValueError(f"the decision {str(stored)[:60]}")
    if kind == "attention" and len(shape) != 3:
        raise ValueError(f"the decision {str(stored)[:60]}")
    return name, cast(DecisionKind, kind), tuple(shape)
