"""Steadiness in training: what is asked of two frames of one picture, and that training brings it about."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from measnet.network import MEASNet
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.losses import TrainingStep
from measnet.train.recipe import Recipe
from measnet.train.steadiness import EVERY, looks_at, unsteadiness

NARROW = {"width": 8, "blocks": (0, 0, 1, 1), "image_experts": (0, 0, 3), "ffn_expansion": 1.0}
RECIPE = Recipe(variant="nano", network=NARROW, steps=4, batch=2, crop=160)


class Toned(nn.Module):
    """Changes a picture's brightness by ``tone`` of what it sees."""

    config = RECIPE.config

    def __init__(self, tone: str) -> None:
        super().__init__()
        self.tone = tone

    def forward_training(self, image: Tensor, noisy: NoisyRouting) -> TrainingPass:
        change = {
            "nothing": torch.zeros(len(image), 1, 1, 1),
            "the same": torch.full((len(image), 1, 1, 1), 0.2),
            "the pixel": 0.5 * image,
            "the frame": 5 * image.mean(dim=(1, 2, 3), keepdim=True),
        }[self.tone]
        nothing = image.new_zeros(())
        return TrainingPass(image + change, nothing, None, None, nothing, [])


def pictures(count: int = 6) -> Tensor:
    torch.manual_seed(0)
    return nn.functional.interpolate(torch.rand(count, 3, 5, 5), 160)


@pytest.mark.parametrize(
    ("tone", "least", "most"),
    [("nothing", 0, 1e-7), ("the same", 0, 1e-6), ("the pixel", 1e-5, 0.012), ("the frame", 0.02, 0.1)],
)
def test_only_what_hangs_on_the_frame_is_unsteady(tone: str, least: float, most: float) -> None:
    network = Toned(tone)
    found = unsteadiness(network, pictures(), looks_at(1, 0, 6)).item()  # type: ignore[arg-type]
    assert least <= found <= most


def test_a_sample_is_looked_at_the_same_way_whatever_batch_it_is_in() -> None:
    whole, halves = looks_at(7, 12, 6), [looks_at(7, 12, 3), looks_at(7, 15, 3)]
    assert [look.seed for half in halves for look in half] == [look.seed for look in whole]
    assert len(whole) == 6 // EVERY
    network, given = Toned("the frame"), pictures()
    parts = [
        unsteadiness(network, given[at : at + 3], half)  # type: ignore[arg-type]
        for at, half in zip((0, 3), halves, strict=True)
    ]
    together = unsteadiness(network, given, whole)  # type: ignore[arg-type]
    assert torch.stack(parts).mean() == pytest.approx(together.item())
    assert unsteadiness(network, given[:1], looks_at(7, 13, 1)) == 0  # type: ignore[arg-type]


def test_training_brings_two_frames_closer_and_leaves_the_norms_figures_alone() -> None:
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPE, steady_weight=50.0, balance_weight=0.0)
    step = TrainingStep(MEASNet(recipe.config).train(), recipe, None)
    given = pictures(3)
    looks = looks_at(0, 0, 3)
    optimizer = torch.optim.Adam(step.parameters(), 3e-3)
    norms = {name: seen.clone() for name, seen in step.named_buffers() if "num_batches" in name}
    seen = []
    for _ in range(10):
        losses = step(given, given * 0.5, NoisyRouting(draw=torch.zeros_like), False, looks)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append(losses["unsteady"].item())
    assert 0 < seen[-1] < 0.8 * seen[0]
    batches = {name: int(buffer - norms[name]) for name, buffer in step.named_buffers() if name in norms}
    assert batches and set(batches.values()) == {10}  # one a step, of the batch itself


def test_without_a_weight_nothing_is_looked_at_twice() -> None:
    step = TrainingStep(MEASNet(RECIPE.config), RECIPE, None)
    losses = step(pictures(3), pictures(3), NoisyRouting(draw=torch.zeros_like), False, looks_at(0, 0, 3))
    assert "unsteady" not in losses
