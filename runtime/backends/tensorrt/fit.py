"""Which of an engine's optimisation profiles takes a frame, and how large the frame must be made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from measnet.engine_file import Range, Shape
from measnet.errors import UsageError


@dataclass(frozen=True)
class Fit:
    """A profile, and the shape to feed it: the frame's own, or a larger one to pad it to."""

    profile: int
    shape: Shape


def fit(shape: Shape, profiles: Sequence[Range]) -> Fit:
    """The profile for B 3 H W that needs the least padding, at the bottom and the right.

    Raises ``UsageError`` naming the sizes that the engine takes when all are too small.
    """
    found = [
        Fit(index, (*shape[:2], max(shape[2], smallest[2]), max(shape[3], smallest[3])))
        for index, (smallest, _, largest) in enumerate(profiles)
        if smallest[0] <= shape[0] <= largest[0]
        and shape[1] == largest[1]
        and all(side <= most for side, most in zip(shape[2:], largest[2:], strict=True))
    ]
    if found:
        return min(found, key=lambda f: f.shape[2] * f.shape[3])
    raise UsageError(f"{_refusal(shape, profiles)}, or add --tile {_tile(profiles)}")


def exact_profile(shape: Shape, profiles: Sequence[Range]) -> int:
    """The first profile that takes ``shape`` as it is. Raises ``UsageError`` as ``fit``."""
    for index, (smallest, _, largest) in enumerate(profiles):
        if len(shape) == len(largest) and all(
            low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)
        ):
            return index
    raise UsageError(_refusal(shape, profiles))


def _refusal(shape: Shape, profiles: Sequence[Range]) -> str:
    ranges = [f"{_text(low)} to {_text(high)}" if low != high else _text(low) for low, _, high in profiles]
    return (
        f"this engine takes frames of {' or '.join(dict.fromkeys(ranges))}, this is one of {_text(shape)} "
        "(a batch's dimensions); build one for it with measnet-export engine"
    )


def _tile(profiles: Sequence[Range]) -> int:
    return max(min(largest[2:]) for _, _, largest in profiles)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
