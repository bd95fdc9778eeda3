"""Muon for many small matrices: all of one shape at once.

PyTorch's own takes one after the other, some twenty small kernels each; on a GPU a network of a hundred
matrices then waits for its optimizer. Shapes: G matrices of M N.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class BatchedMuon(torch.optim.Muon):
    """``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` and Nesterov's momentum, whose state it
    shares; the results differ by rounding alone."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss
        for group in self.param_groups:
            of_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    of_shape[weight.shape].append(weight)
            for shape, weights in of_shape.items():
                self._move(group, weights, 0.2 * math.sqrt(max(shape)))

    def _move(self, group: dict[str, Any], weights: list[Tensor], size: float) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [self.state[weight] for weight in weights]
        for state, gradient in zip(momenta, gradients, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [state["momentum_buffer"] for state in momenta]
        rate, momentum = float(group["lr"]), group["momentum"]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        ways = orthogonalised(
            torch.stack(list(ahead)), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, list(ways.to(weights[0].dtype).unbind()), alpha=-rate * size)


def orthogonalised(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """G M N -> the same, all singular values brought near 1 by Newton-Schulz steps in 16 bits (Jordan et al.,
    2024)."""
    a, b, c = coefficients
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
