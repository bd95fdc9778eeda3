"""Muon for many matrices at once moves them as PyTorch's own does, one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from measnet.train.muon import BatchedMuon, orthogonalised

SHAPES = [(8, 8), (8, 24), (24, 8), (8, 8), (16, 9), (8, 24)]


def moved(kind: type[torch.optim.Muon], steps: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = kind(weights, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(steps):
        for number, weight in enumerate(weights):
            weight.grad = None if (step, number) == (1, 2) else torch.randn_like(weight)
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("steps", [1, 4])
def test_matrices_move_as_by_pytorchs_own(steps: int) -> None:
    for ours, theirs in zip(moved(BatchedMuon, steps), moved(torch.optim.Muon, steps), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-3), (ours - theirs).abs().max()
        assert not torch.allclose(ours, torch.zeros_like(ours), atol=0.1)


def test_every_direction_moves_alike() -> None:
    drawn = torch.randn(5, 12, 7, generator=torch.Generator().manual_seed(1))
    made = orthogonalised(drawn, (3.4445, -4.775, 2.0315), 5, 1e-7).float()
    sizes = torch.linalg.svdvals(made)
    assert made.shape == drawn.shape
    assert sizes.min() > 0.5 and sizes.max() < 1.5
