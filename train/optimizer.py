"""What moves the weights: AdamW, or Muon for the matrices and AdamW for the rest.

Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. A matrix moves along
the orthogonalised momentum of its gradient, so that all of its directions move alike. PyTorch's own takes
matrices only: here a convolution O I h w is one of O rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from measnet.train.recipe import Recipe

SMALLEST_SIDE = 8
"""Weights of fewer rows or columns (the thin experts, the router's) are left to AdamW."""


class WeightUpdates:
    """Moves the weights of ``network`` by their gradients, as ``recipe`` says."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        muon = recipe.optimizer == "muon"
        matrices = [weight for weight in network.parameters() if muon and _is_matrix(weight)]
        others = [weight for weight in network.parameters() if not (muon and _is_matrix(weight))]
        self._weights = list(network.parameters())
        self._matrices = [(weight, nn.Parameter(_as_matrix(weight.data))) for weight in matrices]
        rates = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
        self._optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, **rates)]
        if matrices:
            views = [view for _, view in self._matrices]
            # Updates as large as AdamW's usually are: one learning rate is for both.
            self._optimizers.append(torch.optim.Muon(views, **rates, adjust_lr_fn="match_rms_adamw"))

    def forget_gradients(self) -> None:
        for weight in self._weights:
            weight.grad = None

    def step(self, rate: float) -> None:
        """One update with learning rate ``rate``."""
        for weight, view in self._matrices:
            view.grad = None if weight.grad is None else _as_matrix(weight.grad, like=weight)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for optimizer, own in zip(self._optimizers, state, strict=True):
            optimizer.load_state_dict(own)


def _is_matrix(weight: Tensor) -> bool:
    """Whether ``weight`` (O I, or O I h w) is one for Muon."""
    return weight.ndim in (2, 4) and min(weight.shape[0], weight[0].numel()) >= SMALLEST_SIDE


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """O I h w -> O rows; a view of a weight, in whichever order it lies in memory (the order of columns is
    all one)."""
    like = tensor if like is None else like
    if like.ndim == 4 and not like.is_contiguous():
        return tensor.permute(0, 2, 3, 1).flatten(1)
    return tensor.flatten(1)
