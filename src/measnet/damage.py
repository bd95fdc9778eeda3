"""Kinds of damage, and which basic prompts stand for which (TSPG, eq. 1).

The paper leaves it open what a basic prompt means. Training that knows what it did to a picture can teach it:
each kind of damage has a group of prompts of its own, so that the prompt weights q of a picture say how much
of each it shows. Weights that were taught so say it; the q of others has no such meaning.
Shapes: B batch, T basic prompts, D kinds of damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from measnet.config import PROMPT_BASIS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

DAMAGE = ("noise", "rain", "haze", "blur", "dark", "compression")
SOUND = "sound"  # undamaged: weights and reports store this word
"""The name of the remaining prompts, which stand for a picture without damage."""

NAMES = (*DAMAGE, SOUND)
_EACH = PROMPT_BASIS // len(DAMAGE)

GROUPS = {
    **{name: slice(i * _EACH, (i + 1) * _EACH) for i, name in enumerate(DAMAGE)},
    SOUND: slice(len(DAMAGE) * _EACH, PROMPT_BASIS),
}
"""The basic prompts that stand for each name."""

OF_TASK = {
    "denoise": "noise",
    "derain": "rain",
    "dehaze": "haze",
    "deblur": "blur",
    "lowlight": "dark",
    "compression": "compression",
}
"""The damage that each task undoes."""

_KEY = "measnet.damage"
_Names = Annotated[list[str], msgspec.Meta(max_length=64)]


def to_metadata(taught: bool) -> dict[str, str]:
    """The entry of a checkpoint's or a graph's metadata; none for weights that were not taught."""
    return {_KEY: json.dumps(NAMES)} if taught else {}


def from_metadata(metadata: Mapping[str, str]) -> bool:
    """Tells whether the weights were taught these kinds of damage, and not those of another version.

    Raises ``ValueError`` for what is no list of names.
    """
    if _KEY not in metadata:
        return False
    try:
        names = msgspec.json.decode(metadata[_KEY], type=_Names)
    except RecursionError:
        raise ValueError("kinds of damage nested too deep") from None
    return tuple(names) == NAMES


def shares_by_name(prompt_weights: NDArray[Any]) -> dict[str, float]:
    """T, the prompt weights of one picture -> as ``shares_of``, by name."""
    return {name: float(prompt_weights[group].sum()) for name, group in GROUPS.items()}


def shares_of(prompt_weights: Tensor) -> Tensor:
    """B T, prompt weights of networks that were taught so -> B D+1: how much of the picture's trouble is of
    each kind in ``NAMES``; they sum to 1."""
    import torch

    return torch.stack([prompt_weights[:, group].sum(dim=1) for group in GROUPS.values()], dim=1)


def wanted_shares(damage: Tensor) -> Tensor:
    """B D, how strong each kind of damage is (0 to 1) -> B D+1, summing to 1, as ``shares_of`` should say."""
    import torch

    sound = (1 - damage.sum(dim=1, keepdim=True)).clamp(min=0)
    both = torch.cat([damage, sound], dim=1)
    return both / both.sum(dim=1, keepdim=True)
