"""Losses of training: eqs. 11 and 12, and those by which a larger network teaches a smaller one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.network import MEASNet
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.recipe import Recipe
from measnet.train.steadiness import Look, unsteadiness

NEAR = 5 / 255  # mean error under which a picture is not much worth improving: its logarithm flattens here
RELATED_SIDE = 16  # pixel routing is compared on a grid of this many pixels a side


class TrainingStep(nn.Module):
    """A batch in, its losses out. One module, so that PyTorch's distributed engine sees one forward pass."""

    def __init__(self, network: MEASNet, recipe: Recipe, teacher: MEASNet | None) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        # In a list, so that the teacher is no part of what is trained or saved.
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def forward(
        self, degraded: Tensor, clean: Tensor, noisy: NoisyRouting, bf16: bool, looks: Sequence[Look] = ()
    ) -> dict[str, Tensor]:
        """Two batches, each B 3 H W, 0 to 1; ``looks`` are taken where the recipe has a ``steady_weight``.

        Returns scalars: ``loss``, ``l1`` and ``balance``, with a teacher ``output`` and ``routing``, with a
        ``steady_weight`` ``unsteady``; also ``restored`` (B 3 H W, without gradient) and ``demand`` (N: each
        expert's share of the pixels at level 1).
        """
        with torch.autocast(degraded.device.type, torch.bfloat16, enabled=bf16):
            done = self.network.forward_training(degraded, noisy)
        restored = done.restored.float()
        l1_of_picture = (restored - clean).abs().mean(dim=(1, 2, 3))  # B
        l1 = l1_of_picture.mean()  # eq. 11
        losses = {"l1": l1, "balance": done.balance.float()}
        distance = (l1_of_picture + NEAR).log().mean() if self.recipe.loss == "log_l1" else l1
        loss = distance + self.recipe.balance_weight * losses["balance"]  # eq. 12
        for teacher in self._teacher:
            with torch.no_grad(), torch.autocast(degraded.device.type, torch.bfloat16, enabled=bf16):
                taught = teacher.forward_training(degraded, NoisyRouting(draw=torch.zeros_like))
            losses["output"] = (restored - taught.restored.float()).abs().mean()
            losses["routing"] = routing_distance(done, taught)
            loss = loss + self.recipe.distill_output * losses["output"]
            loss = loss + self.recipe.distill_routing * losses["routing"]
        if self.recipe.steady_weight:
            with torch.autocast(degraded.device.type, torch.bfloat16, enabled=bf16):
                losses["unsteady"] = unsteadiness(self.network, degraded, looks)
            loss = loss + self.recipe.steady_weight * losses["unsteady"]
        losses["loss"] = loss
        losses["restored"] = restored.detach()
        if done.pixel_demand is not None:
            losses["demand"] = done.pixel_demand.detach().float().mean(dim=(0, 2, 3))
        return losses


def routing_distance(student: TrainingPass, teacher: TrainingPass) -> Tensor:
    """The distance between two networks' routing of one batch (a scalar; 0 where either has no router).

    The experts of two networks have no order in common, and need not be as many. So it is their relations
    that are compared (after Park et al., "Relational Knowledge Distillation", 2019): how alike the demand of
    any two pixels is on either side, and of any two images.
    """
    distance = student.restored.new_zeros((), dtype=torch.float32)
    if student.pixel_demand is not None and teacher.pixel_demand is not None:
        ours, theirs = (_pixel_relations(d.float()) for d in (student.pixel_demand, teacher.pixel_demand))
        distance = distance + (ours - theirs).abs().mean()
    if student.image_demands and teacher.image_demands:
        ours, theirs = (_image_relations(side.image_demands) for side in (student, teacher))
        distance = distance + (ours - theirs).abs().mean()
    return distance


def _pixel_relations(demand: Tensor) -> Tensor:
    """B N h w -> B P P: how alike the demands of the P pixels of a grid are."""
    rows = F.adaptive_avg_pool2d(demand, RELATED_SIDE).flatten(2)  # B N P
    return rows.transpose(1, 2) @ rows


def _image_relations(demands: list[Tensor]) -> Tensor:
    """B N per branch -> B B: how alike the demands of two images are, a mean over the branches."""
    return torch.stack([demand.float() @ demand.float().t() for demand in demands]).mean(dim=0)
