"""Channel attention and gated feed-forward: the transformer block of every level.

The block is Restormer's (Zamir et al., CVPR 2022), as the paper uses it.
Shapes: B batch, C channels, H W size, P = H*W pixels, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.network.decisions import Decision


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with gain and bias."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1)  # B H W C
        rows = F.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)  # B C H W


def depthwise(channels: int, kernel: int | tuple[int, int], bias: bool = False) -> nn.Conv2d:
    """A size-keeping convolution that filters each channel by itself."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = (sides[0] // 2, sides[1] // 2)
    return nn.Conv2d(channels, channels, sides, padding=padding, groups=channels, bias=bias)


def attend(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, decision: Decision) -> Tensor:
    """Attention between channels: q, k, v are B C H W, temperature is h 1 1; returns B C H W."""
    batch, channels, height, width = q.shape
    heads = temperature.shape[0]
    split = (batch, heads, channels // heads, height * width)
    affinities = decision.affinities(q.reshape(split), k.reshape(split), (height, width))
    scores = affinities * temperature  # B h C/h C/h
    mixed = scores.softmax(dim=-1) @ v.reshape(split)  # B h C/h P
    return mixed.reshape(batch, channels, height, width)


class ChannelAttention(nn.Module):
    """Self-attention between channels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.affinities = Decision("attention", heads, channels // heads, channels // heads)
        self.qkv = nn.Conv2d(channels, channels * 3, 1, bias=False)
        self.qkv_depthwise = depthwise(channels * 3, 3)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_depthwise(self.qkv(x)).chunk(3, dim=1)  # each B C H W
        return self.project(attend(q, k, v, self.temperature, self.affinities))


class CrossChannelAttention(nn.Module):
    """Attention between channels: the query comes from one feature map, key and value from another."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.affinities = Decision("attention", heads, channels // heads, channels // heads)
        self.q = nn.Conv2d(channels, channels, 1, bias=False)
        self.q_depthwise = depthwise(channels, 3)
        self.kv = nn.Conv2d(channels, channels * 2, 1, bias=False)
        self.kv_depthwise = depthwise(channels * 2, 3)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, asking: Tensor, answering: Tensor) -> Tensor:
        q = self.q_depthwise(self.q(asking))  # B C H W
        k, v = self.kv_depthwise(self.kv(answering)).chunk(2, dim=1)  # each B C H W
        return self.project(attend(q, k, v, self.temperature, self.affinities))


class GatedFeedForward(nn.Module):
    """Feed-forward whose one half, through a gelu, gates the other."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden * 2, 1, bias=False)
        self.depthwise = depthwise(hidden * 2, 3)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depthwise(self.expand(x)).chunk(2, dim=1)  # each B hidden H W
        return self.project(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each on normalised features and added to what came in."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(channels)
        self.attention = ChannelAttention(channels, heads)
        self.feed_forward_norm = ChannelNorm(channels)
        self.feed_forward = GatedFeedForward(channels, hidden)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """B C H W -> B C H W; the prompt acts on blocks that know how (``GatedBlock``), not on these."""
        x = x + self.attention(self.attention_norm(x))
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x
