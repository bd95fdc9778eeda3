"""A wider and deeper network that begins as the function a smaller one has learnt.

After Chen, Goodfellow, Shlens, "Net2Net" (ICLR 2016). Every channel is copied as often as the network gets
wider, and what reads it reads each copy with a share of its weight; the shares are drawn, so that copies
learn different things. Blocks that the smaller network lacks begin by adding nothing.

A *space* tells of every channel of the larger network which channel of the smaller one it copies. Copies
stand side by side, so they stay within a head and within a group of filters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from measnet.config import MEASNetConfig
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.blocks import Blocks
from measnet.network.fd_mee import FDMEE
from measnet.network.image_experts import ImageExpert, ImageExpertBlock
from measnet.network.pixel_experts import PixelExpert, PixelExperts
from measnet.network.transformer import TransformerBlock

LEAST_SHARE = 0.5  # of a copy's weight before the shares are made to sum to 1; the rest of it is drawn

Space = Tensor
"""Whole numbers, one per channel of the larger network."""

# What the two networks may differ in.
_GROWS = ("width", "blocks", "refinement_blocks")


def grow(network: MEASNet, config: MEASNetConfig, seed: int = 0) -> MEASNet:
    """A network of ``config`` that computes what ``network`` does, and can learn more.

    ``config`` may be a whole number of times wider and have more blocks; blocks that it lacks are left out,
    and what they did is lost. Raises ``UsageError`` for any other difference.
    """
    times = _times(network.config, config)
    torch.manual_seed(seed)
    larger = MEASNet(config)
    with torch.no_grad():
        _Growth(times).network(network, larger)
    return larger.train(network.training)


def _times(small: MEASNetConfig, large: MEASNetConfig) -> int:
    """How many times wider. Raises ``UsageError`` when one cannot grow into the other."""
    others = [
        name for name, value in vars(small).items() if name not in _GROWS and value != vars(large)[name]
    ]
    if others:
        raise UsageError(
            f"weights cannot grow into a network with other {', '.join(others)}; only "
            f"{', '.join(_GROWS)} may differ"
        )
    if (
        large.width % small.width
        or large.hidden(large.width) * small.width != small.hidden(small.width) * large.width
    ):
        raise UsageError(
            f"weights of width {small.width} cannot grow to width {large.width}: every width, those of "
            f"feed-forward layers too, must become the same whole number of times larger"
        )
    if small.frequency_blocks or not (small.tspg and small.mese and small.fd and small.mee):
        raise UsageError("weights can grow with all four parts of the network and without frequency blocks")
    return large.width // small.width


class _Growth:
    """Fills the larger network's tensors, module by module."""

    def __init__(self, times: int) -> None:
        self.times = times

    def network(self, small: MEASNet, large: MEASNet) -> None:
        assert small.prompt is not None and large.prompt is not None
        large.prompt.load_state_dict(small.prompt.state_dict())
        c1, c2, c3, c4 = (small.config.channels(level) for level in (1, 2, 3, 4))
        image = torch.arange(small.stem.in_channels)
        level1 = self.spread(c1)
        self.dense(small.stem, large.stem, level1, image)
        level2 = self.down(small.down1.narrow, large.down1.narrow, level1)
        level3 = self.down(small.down2.narrow, large.down2.narrow, level2)
        level4 = self.down(small.down3.narrow, large.down3.narrow, level3)
        for ours, theirs, space in (
            (small.pixel_experts1, large.pixel_experts1, level1),
            (small.pixel_experts2, large.pixel_experts2, level2),
            (small.pixel_experts3, large.pixel_experts3, level3),
        ):
            if ours is not None and theirs is not None:
                self.pixel_experts(ours, theirs, space)
        self.blocks(small.encoder1, large.encoder1, level1)
        self.blocks(small.encoder2, large.encoder2, level2)
        self.blocks(small.encoder3, large.encoder3, level3)
        self.blocks(small.latent, large.latent, level4)

        up3 = self.up(small.up3.widen, large.up3.widen, level4, c4 // 2)
        decoded = self.spread(c3)
        self.dense(small.reduce3, large.reduce3, decoded, joined(up3, level3))
        self.fd_mee(small.fd_mee3, large.fd_mee3, decoded)
        self.blocks(small.decoder3, large.decoder3, decoded)

        up2 = self.up(small.up2.widen, large.up2.widen, decoded, c3 // 2)
        decoded = self.spread(c2)
        self.dense(small.reduce2, large.reduce2, decoded, joined(up2, level2))
        self.fd_mee(small.fd_mee2, large.fd_mee2, decoded)
        self.blocks(small.decoder2, large.decoder2, decoded)

        up1 = self.up(small.up1.widen, large.up1.widen, decoded, c2 // 2)
        decoded = joined(up1, level1)
        self.fd_mee(small.fd_mee1, large.fd_mee1, decoded)
        self.blocks(small.decoder1, large.decoder1, decoded)
        self.blocks(small.refinement, large.refinement, decoded)
        self.dense(small.output, large.output, image, decoded)

    def spread(self, channels: int) -> Space:
        """0 0 1 1 2 2 ..."""
        return torch.arange(channels).repeat_interleave(self.times)

    def down(self, small: nn.Conv2d, large: nn.Conv2d, reads: Space) -> Space:
        """The space behind a convolution and a pixel unshuffle by 2."""
        narrow = self.spread(small.out_channels)
        self.dense(small, large, narrow, reads)
        return unshuffled(narrow)

    def up(self, small: nn.Conv2d, large: nn.Conv2d, reads: Space, channels: int) -> Space:
        """The space behind a convolution and a pixel shuffle by 2, to ``channels`` of the smaller network."""
        space = self.spread(channels)
        self.dense(small, large, unshuffled(space), reads)
        return space

    def blocks(self, small: Blocks, large: Blocks, x: Space) -> None:
        for block in list(large)[len(small) :]:
            assert isinstance(block, TransformerBlock)
            block.attention.project.weight.zero_()
            block.feed_forward.project.weight.zero_()
        for ours, theirs in zip(small, large, strict=False):
            assert isinstance(ours, TransformerBlock) and isinstance(theirs, TransformerBlock)
            self.block(ours, theirs, x)

    def block(self, small: TransformerBlock, large: TransformerBlock, x: Space) -> None:
        self.norm(small.attention_norm, large.attention_norm, x)
        self.norm(small.feed_forward_norm, large.feed_forward_norm, x)
        ours, theirs = small.attention, large.attention
        inner = self.spread(ours.project.in_channels)
        qkv = joined(inner, inner, inner)
        theirs.temperature.copy_(ours.temperature)
        self.dense(ours.qkv, theirs.qkv, qkv, x)
        self.depthwise(ours.qkv_depthwise, theirs.qkv_depthwise, qkv)
        self.dense(ours.project, theirs.project, x, inner)
        forward, wider = small.feed_forward, large.feed_forward
        hidden = self.spread(forward.project.in_channels)
        self.dense(forward.expand, wider.expand, joined(hidden, hidden), x)
        self.depthwise(forward.depthwise, wider.depthwise, joined(hidden, hidden))
        self.dense(forward.project, wider.project, x, hidden)

    def pixel_experts(self, small: PixelExperts, large: PixelExperts, x: Space) -> None:
        ours, theirs = small.router, large.router
        assert ours.prompt_to_channels is not None and theirs.prompt_to_channels is not None
        prompt = torch.arange(ours.prompt_to_channels.in_features)
        self.dense(ours.prompt_to_channels, theirs.prompt_to_channels, x, prompt)
        theirs.scores.copy_(shared(ours.scores.t(), joined(x, x)).t())
        theirs.noise.copy_(shared(ours.noise.t(), joined(x, x)).t())
        for expert, wider in zip(small.experts, large.experts, strict=True):
            assert isinstance(expert, PixelExpert) and isinstance(wider, PixelExpert)
            hidden = self.spread(expert.expand.out_features)
            self.dense(expert.expand, wider.expand, hidden, x)
            self.dense(expert.project, wider.project, x, hidden)

    def fd_mee(self, small: FDMEE | None, large: FDMEE | None, x: Space) -> None:
        if small is None or large is None:
            return
        assert small.decompose is not None and large.decompose is not None
        self.dense(small.decompose.predict, large.decompose.predict, None, x)
        large.decompose.norm.load_state_dict(small.decompose.norm.state_dict())
        assert small.high is not None and small.low is not None and small.project is not None
        assert large.high is not None and large.low is not None and large.project is not None
        self.image_experts(small.high, large.high, x)
        self.image_experts(small.low, large.low, x)
        self.dense(small.project, large.project, x, joined(x, x))

    def image_experts(self, small: ImageExpertBlock, large: ImageExpertBlock, x: Space) -> None:
        inner = self.spread(small.project.in_channels)
        self.norm(small.norm, large.norm, x)
        self.dense(small.expand[0], large.expand[0], inner, x)
        self.dense(small.expand[2], large.expand[2], joined(inner, inner), inner)
        for name in ("across", "down", "aggregate", "context_depthwise"):
            self.depthwise(getattr(small, name), getattr(large, name), inner)
        self.dense(small.context_project, large.context_project, inner, inner)
        self.dense(small.experts.scores, large.experts.scores, None, inner)
        for ours, theirs in zip(small.experts.experts, large.experts.experts, strict=True):
            assert isinstance(ours, ImageExpert) and isinstance(theirs, ImageExpert)
            self.dense(ours.narrow_features, theirs.narrow_features, None, inner)
            self.dense(ours.narrow_context, theirs.narrow_context, None, inner)
            self.dense(ours.widen, theirs.widen, inner, None)
        self.dense(small.project, large.project, x, inner)

    def dense(self, small: nn.Module, large: nn.Module, writes: Space | None, reads: Space | None) -> None:
        """A convolution or linear layer; a space of None is as wide as before."""
        weight, bias = small.weight, small.bias
        assert isinstance(weight, Tensor) and isinstance(large.weight, Tensor)
        rows = weight if writes is None else weight[writes]
        large.weight.copy_(rows if reads is None else shared(rows, reads))
        if isinstance(bias, Tensor) and isinstance(large.bias, Tensor):
            large.bias.copy_(bias if writes is None else bias[writes])

    def depthwise(self, small: nn.Conv2d, large: nn.Conv2d, space: Space) -> None:
        self.dense(small, large, space, None)

    def norm(self, small: nn.Module, large: nn.Module, space: Space) -> None:
        self.dense(small, large, space, None)


def joined(*spaces: Space) -> Space:
    """The space of feature maps that are concatenated."""
    parts, offset = [], 0
    for space in spaces:
        parts.append(space + offset)
        offset += int(space.max()) + 1
    return torch.cat(parts)


def unshuffled(space: Space) -> Space:
    """The space behind a pixel unshuffle by 2: every channel becomes four."""
    return (space[:, None] * 4 + torch.arange(4)).flatten()


def shared(weight: Tensor, reads: Space) -> Tensor:
    """``weight`` (O I ...) for inputs of the space ``reads``: each copy gets a share of what it copies."""
    rows, columns = weight.shape[:2]
    draws = LEAST_SHARE + (1 - LEAST_SHARE) * torch.rand(rows, len(reads))
    sums = torch.zeros(rows, columns).index_add(1, reads, draws)
    shares = draws / sums[:, reads]
    return weight[:, reads] * shares.reshape(*shares.shape, *(1,) * (weight.ndim - 2))
