"""FD-MEE: the image's experts, for low and high frequencies apart (section III-C, fig. 2).

Either half can be off (Table VI): without MEE the bands are only joined again, without FD one branch
of experts sees the features whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from measnet.network.decomposition import FeatureDecomposition
from measnet.network.image_experts import ImageExpertBlock, ImageRouting


class FDMEE(nn.Module):
    """B C H W -> B C H W, and the choice of experts of each branch (high first)."""

    def __init__(
        self, channels: int, experts: int, top_k: int, *, fd: bool, mee: bool, light: bool = False
    ) -> None:
        super().__init__()
        self.decompose = FeatureDecomposition(channels) if fd else None
        self.high = ImageExpertBlock(channels, experts, top_k, light=light) if fd and mee else None
        self.low = ImageExpertBlock(channels, experts, top_k, light=light) if fd and mee else None
        self.whole = ImageExpertBlock(channels, experts, top_k, light=light) if mee and not fd else None
        self.project = nn.Conv2d(channels * 2, channels, 1) if fd else None
        if light and self.project is not None:
            _begin_as_sum(self.project)

    def forward(self, x: Tensor) -> tuple[Tensor, list[ImageRouting]]:
        if self.decompose is None or self.project is None:
            assert self.whole is not None
            x, routing = self.whole(x)
            return x, [routing]
        low, high = self.decompose(x)  # each B C H W
        routings = []
        if self.high is not None and self.low is not None:
            high, high_routing = self.high(high)
            low, low_routing = self.low(low)
            routings = [high_routing, low_routing]
        return self.project(torch.cat([high, low], dim=1)), routings


def _begin_as_sum(project: nn.Conv2d) -> None:
    """Sets a product of two bands (B 2C H W -> B C H W) to their sum, which is what came in: features pass
    from the first step on, and not through a product drawn by chance."""
    with torch.no_grad():
        project.weight.zero_()
        for band in project.weight[:, :, 0, 0].chunk(2, dim=1):
            band.diagonal().fill_(1)
    assert project.bias is not None
    nn.init.zeros_(project.bias)
