"""MEASNet: encoder, latent, decoder (fig. 2).

Shapes: B batch, C = config.width, H W size of the image, h w = H W over the stem's scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import MEASNetConfig
from measnet.metrics import Choices
from measnet.network.blocks import Blocks, make_blocks
from measnet.network.fd_mee import FDMEE
from measnet.network.frequency_block import FrequencyBlock
from measnet.network.gated import QUIET, Tone, bounded
from measnet.network.image_experts import ImageExpertLayer, ImageRouting
from measnet.network.pixel_experts import NoisyRouting, PixelExperts, PixelRouting
from measnet.network.prompt import PromptFusion, PromptGenerator
from measnet.task_prompts import TaskPrompts

NO_EXPERT = 255


class MEASNetOutput(NamedTuple):
    """A restored batch and every choice that led to it."""

    restored: Tensor
    """B 3 H W, about 0 to 1, not clipped."""

    prompt_weights: Tensor | None
    """B T: how much of each basic prompt the images called for (q of eq. 1); None without TSPG."""

    pixel_routing: PixelRouting | None
    """The experts of each pixel at level 1; None without MESE."""

    image_routings: list[ImageRouting]
    """The experts of each image per FD-MEE branch: level 3 high, low, then levels 2 and 1."""

    def pixel_experts(self) -> Tensor | None:
        """B K h w, uint8: the experts of each pixel, the strongest first; None without MESE."""
        return None if self.pixel_routing is None else self.pixel_routing.experts.to(torch.uint8)

    def image_experts(self) -> Tensor | None:
        """B S K, uint8: the experts of each image in each of S FD-MEE branches; None without MEE.

        ``NO_EXPERT`` fills up branches that choose fewer than others.
        """
        if not self.image_routings:
            return None
        most = max(routing.experts.shape[1] for routing in self.image_routings)
        rows = [
            F.pad(routing.experts, (0, most - routing.experts.shape[1]), value=NO_EXPERT)
            for routing in self.image_routings
        ]
        return torch.stack(rows, dim=1).to(torch.uint8)

    def choices(self) -> Choices:
        """Every choice as arrays, to compare with an engine's."""
        pixel, image = self.pixel_experts(), self.image_experts()
        return Choices(
            None if pixel is None else pixel.cpu().numpy(),
            None if image is None else image.cpu().numpy(),
        )


class TrainingPass(NamedTuple):
    """The results of one pass, for a training step."""

    restored: Tensor
    """B 3 H W, about 0 to 1, not clipped."""

    balance: Tensor
    """The balance loss, summed over MESE modules (a scalar)."""

    pixel_demand: Tensor | None
    """B N h w: how much each pixel calls for each expert at level 1; sums to 1. None without MESE."""

    prompt_weights: Tensor | None
    """B T: q of eq. 1; None without TSPG."""

    router_size: Tensor
    """The size of the pixel router's scores at level 1: the mean square of their log-sum-exp (a scalar)."""

    image_demands: list[Tensor]
    """B N each: how much each image calls for each expert, per FD-MEE branch; sums to 1."""


class MEASNet(nn.Module):
    """The network of ``config``; ``forward`` restores, ``restore`` also tells who did it."""

    def __init__(self, config: MEASNetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MEASNetConfig()
        self.task_prompts: TaskPrompts = {}
        """Scores of the prompt for each task; empty where none were learned. Stored with the weights."""
        self.taught = False
        """True where its prompt weights tell the kinds of damage (``measnet/damage.py``). Stored too."""

        scale = c.stem_scale
        c1, c2, c3, c4 = (c.channels(level) for level in (1, 2, 3, 4))

        self.prompt = PromptGenerator() if c.tspg else None
        gated = c.block == "gated"
        self.tone = Tone() if gated else None
        self.stem = _stem(c)
        self.pixel_experts1 = _pixel_experts(c, level=1)
        self.pixel_experts2 = _pixel_experts(c, level=2)
        self.pixel_experts3 = _pixel_experts(c, level=3)
        self.prompt_fusion = PromptFusion(c1) if c.tspg and not c.mese else None

        self.encoder1 = make_blocks(c, level=1, count=c.blocks[0])
        downsample, upsample = (HalvingConv, DoublingConv) if gated else (Downsample, Upsample)
        self.down1 = downsample(c1)
        self.encoder2 = make_blocks(c, level=2, count=c.blocks[1])
        self.down2 = downsample(c2)
        self.encoder3 = make_blocks(c, level=3, count=c.blocks[2])
        self.down3 = downsample(c3)
        self.latent = make_blocks(c, level=4, count=c.blocks[3])
        self.frequency4 = FrequencyBlock(c4) if c.frequency_blocks else None

        self.up3 = upsample(c4)
        self.reduce3 = None if gated else nn.Conv2d(c3 * 2, c3, 1, bias=False)
        self.fd_mee3 = _fd_mee(c, level=3)
        self.decoder3 = make_blocks(c, level=3, count=c.blocks[2])
        self.frequency3 = FrequencyBlock(c3) if c.frequency_blocks else None

        self.up2 = upsample(c3)
        self.reduce2 = None if gated else nn.Conv2d(c2 * 2, c2, 1, bias=False)
        self.fd_mee2 = _fd_mee(c, level=2)
        self.decoder2 = make_blocks(c, level=2, count=c.blocks[1])
        self.frequency2 = FrequencyBlock(c2) if c.frequency_blocks else None

        self.up1 = upsample(c2)
        self.fd_mee1 = _fd_mee(c, level=1)
        wide = c.decoder_channels(1)
        self.decoder1 = make_blocks(c, level=1, count=c.blocks[0], channels=wide)
        self.refinement = make_blocks(c, level=1, count=c.refinement_blocks, channels=wide)
        self.output = nn.Conv2d(wide, 3 * scale**2 + (3 if gated else 0), 3, padding=1, bias=False)
        if gated:
            with torch.no_grad():
                self.output.weight.mul_(QUIET)

    def forward(self, image: Tensor) -> Tensor:
        """B 3 H W in [0, 1] -> restored, the same shape, not clipped.

        H and W follow ``config.size_rule``; ``measnet.image`` pads any other size.
        """
        return self.restore(image).restored

    def restore(self, image: Tensor) -> MEASNetOutput:
        """As ``forward``, with the choices of every router."""
        q, prompt = self._prompt(image)
        if self.tone is not None:
            image = self.tone(image, q)
        x = self.embed(image)  # B C h w
        routing = None
        if self.pixel_experts1 is not None:
            x, routing = self.pixel_experts1(x, prompt)
        elif self.prompt_fusion is not None:
            x = self.prompt_fusion(x, prompt)
        e1 = self.encoder1(x, prompt)
        e2 = self.encoder2(self.down1(e1), prompt)
        e3 = self.encoder3(self.down2(e2), prompt)
        restored, image_routings = self._decode(image, e1, e2, e3, prompt)
        return MEASNetOutput(restored, q, routing, image_routings)

    def forward_training(
        self,
        image: Tensor,
        noisy: NoisyRouting = NoisyRouting(),  # noqa: B008 - immutable
        seen: Tensor | None = None,
    ) -> TrainingPass:
        """As ``forward`` with noisy routing, and what the losses need. ``seen``, B S: means of the tone's
        statistics of the pictures that the crops were cut from.

        The MESE modules of levels 2 and 3 act here only: nothing but the balance loss uses them.
        """
        q, prompt = self._prompt(image)
        if self.tone is not None:
            image = self.tone(image, None if q is None else q.detach(), seen)
        x = self.embed(image)  # B C h w
        balance, demand, size = x.new_zeros(()), None, x.new_zeros(())
        if self.pixel_experts1 is not None:
            x, balance, demand, size = self.pixel_experts1.forward_training(x, prompt, noisy)
        elif self.prompt_fusion is not None:
            x = self.prompt_fusion(x, prompt)
        e1 = self.encoder1(x, prompt)
        x2 = self.down1(e1)
        if self.pixel_experts2 is not None:
            balance = balance + self.pixel_experts2.forward_training(x2, prompt, noisy)[1]
        e2 = self.encoder2(x2, prompt)
        x3 = self.down2(e2)
        if self.pixel_experts3 is not None:
            balance = balance + self.pixel_experts3.forward_training(x3, prompt, noisy)[1]
        e3 = self.encoder3(x3, prompt)
        restored, routings = self._decode(image, e1, e2, e3, prompt)
        return TrainingPass(restored, balance, demand, q, size, [routing.asked for routing in routings])

    def ask_all_experts(self, ask_all: bool = True) -> None:
        """Computes every expert for every pixel and image, and sets the gates of those not chosen to 0:
        then no shape depends on data, which GPUs and compilers prefer. The results differ by rounding alone.
        Takes effect where pixel experts join by ``weighted_sum``."""
        for experts in self.modules():
            if isinstance(experts, PixelExperts | ImageExpertLayer):
                experts.ask_all = ask_all

    def recompute_blocks(self, recompute: bool = True) -> None:
        """Makes training compute the values inside blocks again in the backward pass, and not keep them.

        That takes less memory and more time; the gradients are the same.
        """
        for blocks in self.modules():
            if isinstance(blocks, Blocks):
                blocks.recompute = recompute

    def _prompt(self, image: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if self.prompt is None:
            return None, None
        q, prompt = self.prompt(image)
        return q, prompt

    def embed(self, image: Tensor) -> Tensor:
        """B 3 H W -> what the routers of level 1 see, B C h w."""
        scale = self.config.stem_scale
        apart = scale > 1 and self.config.block == "transformer"
        return self.stem(F.pixel_unshuffle(image, scale) if apart else image)

    def _decode(
        self,
        image: Tensor,
        e1: Tensor,
        e2: Tensor,
        e3: Tensor,
        prompt: Tensor | None,
    ) -> tuple[Tensor, list[ImageRouting]]:
        routings: list[ImageRouting] = []
        z = self.latent(self.down3(e3), prompt)  # B 8C h/8 w/8
        if self.frequency4 is not None:
            z = self.frequency4(image, z)

        x = _joined(self.up3, z, e3, self.reduce3)  # B 4C h/4 w/4
        d3 = self.decoder3(self._experts(self.fd_mee3, x, routings), prompt)
        if self.frequency3 is not None:
            d3 = self.frequency3(image, d3)

        x = _joined(self.up2, d3, e2, self.reduce2)  # B 2C h/2 w/2
        d2 = self.decoder2(self._experts(self.fd_mee2, x, routings), prompt)
        if self.frequency2 is not None:
            d2 = self.frequency2(image, d2)

        x = _joined(self.up1, d2, e1, None)  # B 2C h w; with gated blocks B C h w
        d1 = self.decoder1(self._experts(self.fd_mee1, x, routings), prompt)
        output, gain = self.output(self.refinement(d1, prompt)), None
        scale = self.config.stem_scale
        if self.config.block == "gated":
            output, gain = output.split([3 * scale**2, 3], dim=1)
        residual = F.pixel_shuffle(output, scale) if scale > 1 else output  # B 3 H W
        if gain is None:
            return image + residual, routings
        gain = bounded(gain)  # B 3 h w: as smooth as light and haze are
        if scale > 1:
            gain = F.interpolate(gain, scale_factor=scale, mode="bilinear")
        return image + image * gain + residual, routings

    @staticmethod
    def _experts(fd_mee: FDMEE | None, x: Tensor, routings: list[ImageRouting]) -> Tensor:
        if fd_mee is None:
            return x
        x, chosen = fd_mee(x)
        routings.extend(chosen)
        return x


class Downsample(nn.Module):
    """B C H W -> B 2C H/2 W/2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.narrow(x), 2)


class Upsample(nn.Module):
    """B C H W -> B C/2 2H 2W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, channels * 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.widen(x), 2)


class HalvingConv(nn.Conv2d):
    """B C H W -> B 2C H/2 W/2, each output pixel from its own 2 x 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels * 2, 2, stride=2)


class DoublingConv(nn.Module):
    """B C H W -> B C/2 2H 2W, each pixel four times over, added to the encoder's features there, which know
    the detail. (Features that are shuffled into detail take CPUs a tenth of the network's time.)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return F.interpolate(self.narrow(x), scale_factor=2, mode="nearest") + skipped


def _stem(config: MEASNetConfig) -> nn.Conv2d:
    scale, width = config.stem_scale, config.width
    if config.block == "gated" and scale > 1:
        return nn.Conv2d(3, width, 2 * scale, stride=scale, padding=scale // 2)
    return nn.Conv2d(3 * scale**2, width, 3, padding=1, bias=False)


def _joined(up: Upsample | DoublingConv, x: Tensor, skipped: Tensor, reduce: nn.Conv2d | None) -> Tensor:
    """The decoder's features from below (B 2C H/2 W/2) with the encoder's of the level (B C H W): B C H W,
    or both side by side, B 2C H W, where transformer blocks have nothing that reduces them."""
    if isinstance(up, DoublingConv):
        return up(x, skipped)
    both = torch.cat([up(x), skipped], dim=1)
    return both if reduce is None else reduce(both)


def _pixel_experts(config: MEASNetConfig, level: int) -> PixelExperts | None:
    experts = config.pixel_experts[level - 1]
    if not (config.mese and experts):
        return None
    gated = config.block == "gated"
    channels = config.channels(level)
    module = PixelExperts(
        channels,
        config.hidden(channels),
        experts,
        config.pixel_top_k[level - 1],
        prompted=config.tspg,
        ensemble=config.ensemble,
        activation=F.relu if gated else F.gelu,
    )
    if gated:
        module.begin_quietly(QUIET)
    return module


def _fd_mee(config: MEASNetConfig, level: int) -> FDMEE | None:
    if level not in config.fd_mee_levels:
        return None
    return FDMEE(
        config.fd_mee_channels(level),
        config.image_experts[level - 1],
        config.image_top_k[level - 1],
        fd=config.fd,
        mee=config.mee,
        light=config.block == "gated",
    )
