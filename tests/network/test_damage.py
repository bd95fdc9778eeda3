"""Kinds of damage: every basic prompt stands for one, and shares of them are shares."""

from __future__ import annotations

import pytest
import torch

from measnet.config import PROMPT_BASIS
from measnet.damage import DAMAGE, GROUPS, NAMES, SOUND, shares_of, wanted_shares


def damage(**strengths: float) -> torch.Tensor:
    """1 D: how strong each kind is, 0 where not told."""
    return torch.tensor([[strengths.get(name, 0.0) for name in DAMAGE]])


def named(shares: torch.Tensor) -> dict[str, float]:
    """Finds the entries of one row that are above zero."""
    return {name: share for name, share in zip(NAMES, shares[0].tolist(), strict=True) if share > 1e-6}


def test_every_basic_prompt_stands_for_one_kind() -> None:
    assert tuple(GROUPS) == NAMES
    prompts = [prompt for group in GROUPS.values() for prompt in range(PROMPT_BASIS)[group]]
    assert prompts == list(range(PROMPT_BASIS))
    assert all(len(range(PROMPT_BASIS)[group]) > 0 for group in GROUPS.values())


def test_shares_of_prompt_weights_sum_to_one_and_go_to_whom_the_prompts_belong() -> None:
    weights = torch.randn(5, PROMPT_BASIS).softmax(dim=1)
    assert torch.allclose(shares_of(weights).sum(dim=1), torch.ones(5))
    for name, group in GROUPS.items():
        alone = torch.zeros(1, PROMPT_BASIS)
        alone[:, group] = 1 / len(range(PROMPT_BASIS)[group])
        assert named(shares_of(alone)) == {name: pytest.approx(1)}


@pytest.mark.parametrize(
    ("strengths", "wanted"),
    [
        ({}, {SOUND: 1.0}),
        ({"haze": 1.0}, {"haze": 1.0}),
        ({"noise": 0.25}, {"noise": 0.25, SOUND: 0.75}),
        ({"noise": 0.5, "rain": 0.5}, {"noise": 0.5, "rain": 0.5}),
        ({"noise": 1.0, "dark": 1.0}, {"noise": 0.5, "dark": 0.5}),
        ({"blur": 1.0, "compression": 0.5}, {"blur": 2 / 3, "compression": 1 / 3}),
    ],
)
def test_wanted_shares_follow_the_damage_and_what_is_left_is_sound(
    strengths: dict[str, float], wanted: dict[str, float]
) -> None:
    assert named(wanted_shares(damage(**strengths))) == pytest.approx(wanted)


def test_teaching_pulls_the_prompt_to_the_damage() -> None:
    """As the training loop does it: the loss is least where the shares are those that are wanted."""
    wanted = wanted_shares(damage(noise=0.6, haze=0.2))
    scores = torch.zeros(1, PROMPT_BASIS, requires_grad=True)
    optimizer = torch.optim.Adam([scores], 0.1)
    for _ in range(200):
        said = shares_of(scores.softmax(dim=1)).clamp(min=1e-6)
        loss = (wanted * (wanted.clamp(min=1e-6).log() - said.log())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(shares_of(scores.softmax(dim=1)), wanted, atol=0.02)
