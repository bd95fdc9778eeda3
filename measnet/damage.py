"""Kinds of damage, and which basic prompts stand for which (TSPG, eq. 1).

The paper leaves it open what a basic prompt means. Training that knows what it did to a picture can teach it:
each kind of damage has a group of prompts of its own, so that the prompt weights q of a picture say how much
of each it shows.
Shapes: B batch, T basic prompts, D kinds of damage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from measnet.config import PROMPT_BASIS

if TYPE_CHECKING:
    from torch import Tensor

DAMAGE = ("noise", "rain", "haze", "blur", "dark", "compression")
SOUND = "sound"
"""Of a picture that has nothing: the prompts that are left over."""

NAMES = (*DAMAGE, SOUND)
_EACH = PROMPT_BASIS // len(DAMAGE)

GROUPS = {
    **{name: slice(i * _EACH, (i + 1) * _EACH) for i, name in enumerate(DAMAGE)},
    SOUND: slice(len(DAMAGE) * _EACH, PROMPT_BASIS),
}
"""By name: the basic prompts that stand for it."""


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
