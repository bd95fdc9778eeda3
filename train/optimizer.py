"""Optimizers: AdamW, or Muon for the matrices and AdamW for the rest.

Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. A matrix moves along
the orthogonalised momentum of its gradient, so that all of its directions move alike. PyTorch's own takes
matrices only: here a convolution O I h w is one of O rows.

Prompt and routers are AdamW's in either case. Muon drives them into the ends of their softmax, where no
gradient reaches them any more: every image then has the same prompt, and every pixel the same experts. The
tone is AdamW's too: by Muon all of its units fell silent together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from measnet.train.muon import BatchedMuon
from measnet.train.recipe import Recipe

SMALLEST_SIDE = 8
"""Weights of fewer rows or columns (the thin experts, the router's) are left to AdamW."""


class WeightUpdates:
    """Moves the weights of ``network`` by their gradients, as ``recipe`` says."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        named = dict(network.named_parameters())
        routing = [weight for name, weight in named.items() if _routes(name)]
        matrices = [
            weight
            for name, weight in named.items()
            if recipe.optimizer == "muon" and _is_matrix(weight) and not _routes(name)
        ]
        elsewhere = {id(weight) for weight in (*routing, *matrices)}
        others = [weight for weight in named.values() if id(weight) not in elsewhere]
        self._weights = list(named.values())
        self._matrices = [(weight, nn.Parameter(_as_matrix(weight.data))) for weight in matrices]
        rate, decay = recipe.learning_rate, recipe.weight_decay
        groups = [{"params": others, "share": 1.0}, {"params": routing, "share": recipe.routing_rate}]
        fused = all(weight.is_cuda for weight in self._weights)  # elsewhere as it always was, to the bit
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=fused or None)
        ]
        if matrices:
            views = [view for _, view in self._matrices]
            # Updates as large as AdamW's usually are: one learning rate is for both.
            self._optimizers.append(
                BatchedMuon(views, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            )

    def forget_gradients(self) -> None:
        for weight in self._weights:
            weight.grad = None

    def step(self, rate: float) -> None:
        """One update with learning rate ``rate``."""
        for weight, view in self._matrices:
            view.grad = None if weight.grad is None else _as_matrix(weight.grad, like=weight)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for optimizer, own in zip(self._optimizers, state, strict=True):
            optimizer.load_state_dict(own)


def _routes(name: str) -> bool:
    """Tells whether the weight of this name belongs to the prompt, to a router or to the tone."""
    return bool({"prompt", "router", "scores", "tone"} & set(name.split(".")))


def _is_matrix(weight: Tensor) -> bool:
    """Tells whether Muon moves ``weight`` (O I, or O I h w)."""
    return weight.ndim in (2, 4) and min(weight.shape[0], weight[0].numel()) >= SMALLEST_SIDE


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """O I h w -> O rows; a view of a weight, in whichever order it lies in memory (the order of columns is
    all one)."""
    like = tensor if like is None else like
    if like.ndim == 4 and not like.is_contiguous():
        return tensor.permute(0, 2, 3, 1).flatten(1)
    return tensor.flatten(1)
