"""Blocks in a row, as every level has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from measnet.config import MEASNetConfig
from measnet.network.gated import GatedBlock
from measnet.network.transformer import TransformerBlock


class Blocks(nn.Sequential):
    """Blocks in a row. While training, ``recompute`` gives up what happens inside each for less memory."""

    recompute = False

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """B C H W, and the prompt (B M) where the blocks want it -> B C H W."""
        for block in self:
            if self.recompute and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, prompt, use_reentrant=False)
            else:
                x = block(x, prompt)
        return x


def make_blocks(config: MEASNetConfig, *, level: int, count: int, channels: int | None = None) -> Blocks:
    """``count`` blocks of ``level``, on its own number of channels unless told otherwise."""
    channels = channels or config.channels(level)
    if config.block == "gated":
        return Blocks(*(GatedBlock(channels, prompted=config.tspg) for _ in range(count)))
    heads, hidden = config.heads[level - 1], config.hidden(channels)
    return Blocks(*(TransformerBlock(channels, heads, hidden) for _ in range(count)))
