"""A wider and deeper network that begins as the function a smaller one has learnt.

After Chen, Goodfellow, Shlens, "Net2Net" (ICLR 2016). Every channel is copied as often as the network gets
wider (one and a half times wider: once and twice, in turn), and what reads it reads each copy with a share of
its weight; the shares are drawn, so that copies learn different things. Blocks that the smaller network lacks
begin by adding nothing.

A *space* tells of every channel of the larger network which channel of the smaller one it copies. Copies
stand side by side, so they stay within a head and within a group of filters. Norms and attention count every
channel the same, so transformer blocks become a whole number of times wider; products do not mind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from measnet.config import MEASNetConfig
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.blocks import Blocks
from measnet.network.fd_mee import FDMEE
from measnet.network.gated import GatedBlock
from measnet.network.image_experts import ImageExpert, ImageExpertBlock
from measnet.network.measnet import DoublingConv, Downsample, HalvingConv, Upsample
from measnet.network.pixel_experts import PixelExpert, PixelExperts
from measnet.network.transformer import TransformerBlock

LEAST_SHARE = 0.5  # of a copy's weight before the shares are made to sum to 1; the rest of it is drawn

Space = Tensor
"""Whole numbers, one per channel of the larger network."""

# The two networks may differ in these.
_GROWS = ("width", "ffn_expansion", "blocks", "refinement_blocks")


def grow(network: MEASNet, config: MEASNetConfig, seed: int = 0) -> MEASNet:
    """A network of ``config`` that computes what ``network`` does, and can learn more.

    ``config`` may be wider, with transformer blocks a whole number of times, and have more blocks; blocks
    that it lacks are left out, and what they did is lost. Where a gated network is not a whole number of
    times as wide, the norms of FD-MEE make it compute nearly the same. Raises ``UsageError`` for any other
    difference.
    """
    _check(network.config, config)
    torch.manual_seed(seed)
    larger = MEASNet(config)
    with torch.no_grad():
        _Growth().network(network, larger)
    return larger.train(network.training)


def _check(small: MEASNetConfig, large: MEASNetConfig) -> None:
    """Raises ``UsageError`` when one cannot grow into the other."""
    others = [
        name for name, value in vars(small).items() if name not in _GROWS and value != vars(large)[name]
    ]
    if others:
        raise UsageError(
            f"weights cannot grow into a network with other {', '.join(others)}; only "
            f"{', '.join(_GROWS)} may differ"
        )
    hidden, wider = small.hidden(small.width), large.hidden(large.width)
    if small.block == "gated" and (large.width < small.width or wider < hidden):
        raise UsageError(
            f"weights of width {small.width}, pixel experts of {hidden}, cannot grow to width {large.width}, "
            f"pixel experts of {wider}: neither may become less"
        )
    if small.block == "transformer" and (
        large.width % small.width or wider * small.width != hidden * large.width
    ):
        raise UsageError(
            f"weights of width {small.width} cannot grow to width {large.width}: every width, those of "
            f"feed-forward layers too, must become the same whole number of times larger"
        )
    if small.frequency_blocks or not (small.tspg and small.mese and small.fd and small.mee):
        raise UsageError("weights can grow with all four parts of the network and without frequency blocks")


class _Growth:
    """Fills the larger network's tensors, module by module."""

    def network(self, small: MEASNet, large: MEASNet) -> None:
        assert small.prompt is not None and large.prompt is not None
        large.prompt.load_state_dict(small.prompt.state_dict())
        level1 = self.convolution(small.stem, large.stem, None)
        level2 = self.down(small.down1, large.down1, level1)
        level3 = self.down(small.down2, large.down2, level2)
        level4 = self.down(small.down3, large.down3, level3)
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
        if small.tone is not None and large.tone is not None:
            large.tone.load_state_dict(small.tone.state_dict())

        decoded = self.up(small.up3, large.up3, level4)
        if small.reduce3 is not None and large.reduce3 is not None:
            decoded = self.convolution(small.reduce3, large.reduce3, joined(decoded, level3))
        self.fd_mee(small.fd_mee3, large.fd_mee3, decoded)
        self.blocks(small.decoder3, large.decoder3, decoded)

        decoded = self.up(small.up2, large.up2, decoded)
        if small.reduce2 is not None and large.reduce2 is not None:
            decoded = self.convolution(small.reduce2, large.reduce2, joined(decoded, level2))
        self.fd_mee(small.fd_mee2, large.fd_mee2, decoded)
        self.blocks(small.decoder2, large.decoder2, decoded)

        decoded = self.up(small.up1, large.up1, decoded)
        if small.config.block == "transformer":
            decoded = joined(decoded, level1)
        self.fd_mee(small.fd_mee1, large.fd_mee1, decoded)
        self.blocks(small.decoder1, large.decoder1, decoded)
        self.blocks(small.refinement, large.refinement, decoded)
        self.dense(small.output, large.output, None, decoded)

    def convolution(self, small: nn.Conv2d, large: nn.Conv2d, reads: Space | None) -> Space:
        """The space behind a convolution that widens."""
        space = spread_channels(small.out_channels, large.out_channels)
        self.dense(small, large, space, reads)
        return space

    def down(self, small: nn.Module, large: nn.Module, reads: Space) -> Space:
        """The space behind what halves the resolution."""
        if isinstance(small, Downsample) and isinstance(large, Downsample):
            return unshuffled(self.convolution(small.narrow, large.narrow, reads))
        assert isinstance(small, HalvingConv) and isinstance(large, HalvingConv)
        return self.convolution(small, large, reads)

    def up(self, small: Upsample | DoublingConv, large: Upsample | DoublingConv, reads: Space) -> Space:
        """The space behind what doubles height and width."""
        if isinstance(small, DoublingConv) and isinstance(large, DoublingConv):
            return self.convolution(small.narrow, large.narrow, reads)
        assert isinstance(small, Upsample) and isinstance(large, Upsample)
        space = spread_channels(small.widen.out_channels // 4, large.widen.out_channels // 4)
        self.dense(small.widen, large.widen, unshuffled(space), reads)
        return space

    def blocks(self, small: Blocks, large: Blocks, x: Space) -> None:
        for block in list(large)[len(small) :]:
            for last in _last_layers(block):
                nn.init.zeros_(last.weight)
                if last.bias is not None:
                    nn.init.zeros_(last.bias)
        for ours, theirs in zip(small, large, strict=False):
            if isinstance(ours, GatedBlock) and isinstance(theirs, GatedBlock):
                self.gated_block(ours, theirs, x)
            else:
                assert isinstance(ours, TransformerBlock) and isinstance(theirs, TransformerBlock)
                self.transformer_block(ours, theirs, x)

    def gated_block(self, small: GatedBlock, large: GatedBlock, x: Space) -> None:
        for name in ("value", "gate", "scale", "project", "mix_value", "mix_gate", "mix_project"):
            self.dense(getattr(small, name), getattr(large, name), x, x)
        for name in ("value_depthwise", "gate_depthwise"):
            self.depthwise(getattr(small, name), getattr(large, name), x)
        if small.prompt_to_scale is not None and large.prompt_to_scale is not None:
            self.dense(small.prompt_to_scale, large.prompt_to_scale, x, None)

    def transformer_block(self, small: TransformerBlock, large: TransformerBlock, x: Space) -> None:
        self.norm(small.attention_norm, large.attention_norm, x)
        self.norm(small.feed_forward_norm, large.feed_forward_norm, x)
        ours, theirs = small.attention, large.attention
        inner = spread_channels(ours.project.in_channels, theirs.project.in_channels)
        qkv = joined(inner, inner, inner)
        theirs.temperature.copy_(ours.temperature)
        self.dense(ours.qkv, theirs.qkv, qkv, x)
        self.depthwise(ours.qkv_depthwise, theirs.qkv_depthwise, qkv)
        self.dense(ours.project, theirs.project, x, inner)
        forward, wider = small.feed_forward, large.feed_forward
        hidden = spread_channels(forward.project.in_channels, wider.project.in_channels)
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
            hidden = spread_channels(expert.expand.out_features, wider.expand.out_features)
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
        inner = spread_channels(small.project.in_channels, large.project.in_channels)
        self.norm(small.norm, large.norm, x)
        light = small.light
        self.dense(small.expand[0], large.expand[0], inner, None if light else x)  # light: of each channel
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


def spread_channels(channels: int, wider: int) -> Space:
    """Every channel copied as often as its neighbours, to one time: 0 0 1 1 2 2, or 0 0 1 2 2 3."""
    return torch.arange(wider) * channels // wider


def _last_layers(block: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The layers of a block without which it adds nothing."""
    if isinstance(block, GatedBlock):
        return block.project, block.mix_project
    assert isinstance(block, TransformerBlock)
    return block.attention.project, block.feed_forward.project


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
