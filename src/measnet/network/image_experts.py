"""MEE, experts chosen for the whole image (section III-C, eqs. 9-10).

Shapes: B batch, C channels, H W size, N experts, K chosen, R inner width of an expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import NARROWEST_EXPERT
from measnet.network.decisions import Decision
from measnet.network.gated import QUIET, begin_lively, bounded
from measnet.network.transformer import ChannelNorm, depthwise

Bound = Callable[[Tensor], Tensor]
"""Limits the factors of a product, or leaves them as they are."""


LIGHT_EPS = 1e-2
"""Under the variance of a light block's norm. With 1e-6, pixels of nearly equal channels made gradients of
1e6 after 2,000 steps: clipped, these left nothing of all others, and prompt and routers died."""


def unbounded(x: Tensor) -> Tensor:
    return x


class ImageRouting(NamedTuple):
    """The router's choice of experts, and their weights."""

    experts: Tensor
    """B K, int64: the chosen experts of each image, the strongest first."""

    gates: Tensor
    """B K: their weights, taken from a softmax over all N experts and not renormalised."""

    demand: Tensor
    """B N: that softmax."""

    asked: Tensor
    """B N: the same, through which no gradient reaches the features: for losses on the router alone."""


class ImageExpert(nn.Module):
    """One expert: features and context, each narrowed to R channels, multiplied and widened again."""

    def __init__(self, channels: int, inner: int, bound: Bound) -> None:
        super().__init__()
        self.bound = bound
        self.narrow_features = nn.Conv2d(channels, inner, 1)
        self.narrow_context = nn.Conv2d(channels, inner, 1)
        self.widen = nn.Conv2d(inner, channels, 1)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        return self.widen(
            self.bound(self.narrow_features(features)) * self.bound(self.narrow_context(context))
        )


class ImageExpertLayer(nn.Module):
    """Scores the experts for each image and adds the K best ones' answers to the features (eq. 10)."""

    def __init__(self, channels: int, experts: int, top_k: int, bound: Bound = unbounded) -> None:
        super().__init__()
        self.bound = bound
        self.experts = nn.ModuleList(
            ImageExpert(channels, NARROWEST_EXPERT + i, bound) for i in range(experts)
        )
        self.scores = nn.Linear(channels, experts, bias=False)
        self.demand = Decision("experts", experts)
        self.top_k = top_k
        self.ask_all = False

    def forward(self, features: Tensor, context: Tensor) -> tuple[Tensor, ImageRouting]:
        """Two feature maps, each B C H W -> B C H W."""
        routing = choose_experts(features, self.scores, self.top_k, self.demand)
        if self.ask_all:
            return features + self._answer_of_all(features, context, routing), routing
        out = features
        for index, expert in enumerate(self.experts):
            images, rank = (routing.experts == index).nonzero(as_tuple=True)  # each: as many as chose it
            if len(images):
                answer = expert(features[images], context[images])
                gates = routing.gates[images, rank][:, None, None, None]
                out = out.index_add(0, images, answer * gates)
        return out, routing

    def _answer_of_all(self, features: Tensor, context: Tensor, routing: ImageRouting) -> Tensor:
        experts = list(cast(Iterable[ImageExpert], self.experts))
        gates = torch.zeros_like(routing.demand).scatter(1, routing.experts, routing.gates)  # B N
        inner = self.bound(_side_by_side(features, [expert.narrow_features for expert in experts]))
        inner = inner * self.bound(_side_by_side(context, [expert.narrow_context for expert in experts]))
        widths = [expert.narrow_features.out_channels for expert in experts]
        wide = torch.cat([gates[:, i : i + 1].expand(-1, r) for i, r in enumerate(widths)], dim=1)
        weight = torch.cat([expert.widen.weight for expert in experts], dim=1)  # C all-R 1 1
        bias = torch.stack([_bias(expert.widen) for expert in experts])  # N C
        return F.conv2d(inner * wide[:, :, None, None], weight) + (gates @ bias)[:, :, None, None]


def _side_by_side(x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
    weight = torch.cat([convolution.weight for convolution in convolutions])
    return F.conv2d(x, weight, torch.cat([_bias(convolution) for convolution in convolutions]))


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias


def choose_experts(features: Tensor, scores: nn.Module, top_k: int, decision: Decision) -> ImageRouting:
    """The K best experts of each image, from the mean of its features (B C H W)."""
    mean = decision.mean(features)  # B C
    demand = decision.settle(scores(mean)).softmax(dim=1)  # B N
    gates, experts = demand.topk(top_k, dim=1)  # B K
    asked = scores(mean.detach()).softmax(dim=1) if torch.is_grad_enabled() else demand
    return ImageRouting(experts, gates, demand, asked)


class ImageExpertBlock(nn.Module):
    """x + block(norm(x)): spatial features, their wide context, and the experts that join them.

    ``light`` is the form of ``nano`` and ``small``: bounded products, ReLU for GELU, and a
    first convolution that filters each channel by itself.
    """

    def __init__(self, channels: int, experts: int, top_k: int, *, light: bool = False) -> None:
        super().__init__()
        self.light = light
        self.norm = ChannelNorm(channels, eps=LIGHT_EPS if light else 1e-6)
        self.activation: Callable[[Tensor], Tensor] = F.relu if light else F.gelu
        self.expand = nn.Sequential(
            depthwise(channels, 3, bias=True) if light else nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU() if light else nn.GELU(),
            nn.Conv2d(channels, channels * 2, 1),
        )
        self.across = depthwise(channels, (1, 3), bias=True)
        self.down = depthwise(channels, (3, 1), bias=True)
        self.aggregate = nn.Conv2d(channels, channels, 4, stride=4, groups=channels)
        self.context_depthwise = depthwise(channels, 3, bias=True)
        self.context_project = nn.Conv2d(channels, channels, 1)
        self.experts = ImageExpertLayer(channels, experts, top_k, bounded if light else unbounded)
        self.project = nn.Conv2d(channels, channels, 1)
        if light:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    begin_lively(layer)
            with torch.no_grad():
                self.project.weight.mul_(QUIET)

    def forward(self, x: Tensor) -> tuple[Tensor, ImageRouting]:
        """B C H W -> the same shape, and who did it."""
        features, context = self.expand(self.norm(x)).chunk(2, dim=1)  # each B C H W
        features = self.activation(self.down(self.across(features)))  # B C H W
        context = context + self._wide_context(context)  # B C H W
        features, routing = self.experts(features, context)
        return x + self.project(features), routing

    def _wide_context(self, context: Tensor) -> Tensor:
        pooled = self.activation(self.aggregate(context))  # B C H/4 W/4
        pooled = self.activation(self.aggregate(pooled))  # B C H/16 W/16, the same weights again
        pooled = self.context_project(self.context_depthwise(pooled))
        return F.interpolate(pooled, size=context.shape[2:], mode="bilinear", align_corners=False)
