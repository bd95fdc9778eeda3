"""Experts per pixel: the two balance losses, held against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from measnet.config import PROMPT_LENGTH
from measnet.network.pixel_experts import (
    NoisyRouting,
    PixelExperts,
    PixelRouting,
    balance_loss,
    balance_loss_of_the_paper,
)


def routing_of(experts: list[list[int]]) -> PixelRouting:
    """One image of one row, a list of chosen experts per pixel, equal gates."""
    chosen = torch.tensor(experts).t()[None, :, None, :]  # 1 K 1 W
    return PixelRouting(chosen, torch.full(chosen.shape, 0.5).log())


def test_equation_6_is_a_deviation_over_a_squared_mean_per_image() -> None:
    demand = torch.tensor([[[0.5, 0.7]], [[0.3, 0.2]], [[0.2, 0.1]]])[None]  # 1 N 1 W
    routing = routing_of([[0, 1], [0, 1]])
    importance, load = torch.tensor([1.2, 0.5, 0.3]), torch.tensor([2.0, 2.0, 0.0])
    by_hand = sum((s.std() / s.mean() ** 2 for s in (importance, load)), torch.tensor(0.0))
    assert balance_loss_of_the_paper(demand, routing).item() == pytest.approx(by_hand.item(), rel=1e-5)
    twice = balance_loss_of_the_paper(
        demand.repeat(2, 1, 1, 1), PixelRouting(*(r.repeat(2, 1, 1, 1) for r in routing))
    )
    assert twice.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_released_loss_sums_over_all_who_share_a_batch() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 5, 6, 6)
    scale = torch.rand(4, 5, 6, 6) + 0.1
    noisy = scores + torch.randn_like(scores) * scale
    best, experts = noisy.topk(2, dim=1)
    routing = PixelRouting(experts, best.log_softmax(dim=1))
    whole = balance_loss(scores, noisy, scale, routing)

    # The other half of the batch lies with somebody else, who adds its amounts.
    seen: list[torch.Tensor] = []
    halves = [slice(0, 2), slice(2, 4)]

    def kept(amounts: Tensor) -> Tensor:
        seen.append(amounts)
        return amounts

    for half in halves:
        part = PixelRouting(routing.experts[half], routing.log_gates[half])
        balance_loss(scores[half], noisy[half], scale[half], part, kept)
    others = iter(seen[2:])
    part = PixelRouting(routing.experts[:2], routing.log_gates[:2])
    shared = balance_loss(scores[:2], noisy[:2], scale[:2], part, lambda amounts: amounts + next(others))
    assert shared.item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize("balance", ["released", "paper"])
def test_either_balance_loss_evens_out_a_router_that_prefers_one_expert(balance: str) -> None:
    torch.manual_seed(0)
    module = PixelExperts(4, 8, experts=4, top_k=2, prompted=False)
    with torch.no_grad():
        module.router.scores[:, 0] += 3.0
    x = torch.rand(2, 4, 16, 16)
    noisy = NoisyRouting(balance=balance)  # type: ignore[arg-type]  # a string of two
    optimizer = torch.optim.Adam([module.router.scores], 0.05)
    seen = []
    for _ in range(40):
        _, loss, demand, _ = module.forward_training(x, None, noisy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(demand.mean(dim=(0, 2, 3)).max().item())
    assert seen[-1] < seen[0] - 0.2


def test_the_activation_sees_one_shape_however_many_pixels_each_expert_gets() -> None:
    """On a CPU PyTorch compiles GELU for every shape and keeps it: a long run would grow with every frame."""
    torch.manual_seed(0)
    shapes = []

    def gelu(x: torch.Tensor) -> torch.Tensor:
        shapes.append(x.shape)
        return functional.gelu(x)

    module = PixelExperts(6, 8, experts=4, top_k=2, activation=gelu)
    for _ in range(3):
        x, prompt = torch.randn(1, 6, 16, 16) * 3, torch.randn(1, PROMPT_LENGTH)
        module(x, prompt)
    assert len(shapes) == 3 and set(shapes) == {(2 * 16 * 16, 8)}
