"""The block of ``nano`` and ``small``: convolutions and products alone.

It has neither norm nor softmax, so that every runtime keeps its features in one memory layout. After NAFNet
(Chen et al., "Simple Baselines for Image Restoration", ECCV 2022): a product of two branches stands for the
activation, and the channels' means say how much each channel counts. New here: so does the prompt.
Shapes: B batch, C channels, H W size, M prompt length.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import PROMPT_LENGTH
from measnet.network.decisions import OWN, Decisions
from measnet.network.transformer import depthwise

QUIET = 0.1
"""Share of their usual weights with which residual branches begin: a deep network is nearly none at first."""


LIMIT = 4.0
"""The bound on factors of a product, either way; in trained networks they stay within 2. Without a bound
features grow with the fourth power of the input, and one step too large, or one strange picture, makes the
whole network overflow (seen: a loss of 1e27 within 50 steps)."""


TONE_WIDTH = 32
TONE_RATE = 0.5
MOST_GAIN = 2.5  # as a logarithm: twelve times


def bounded(x: Tensor) -> Tensor:
    return x.clamp(-LIMIT, LIMIT)


def begin_lively(convolution: nn.Conv2d, gain: float = 1.0) -> None:
    """Sets the first weights so that features keep their size times ``gain``, and biases to 0. PyTorch's own
    shrink features to 0.6 at each layer and bury those of depthwise filters under their biases: after five
    layers every picture looks the same."""
    fan_in = convolution.weight[0].numel()
    nn.init.normal_(convolution.weight, std=gain / math.sqrt(fan_in))
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


class GatedBlock(nn.Module):
    """Filters, then mixes: each a product of two branches, added to what came in."""

    def __init__(self, channels: int, prompted: bool) -> None:
        super().__init__()
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.value_depthwise = depthwise(channels, 3, bias=True)
        self.gate = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate_depthwise = depthwise(channels, 3, bias=True)
        self.scale = nn.Conv2d(channels, channels, 1)
        self.prompt_to_scale = nn.Linear(PROMPT_LENGTH, channels, bias=False) if prompted else None
        self.project = nn.Conv2d(channels, channels, 1)
        self.mix_value = nn.Conv2d(channels, channels, 1)
        self.mix_gate = nn.Conv2d(channels, channels, 1)
        self.mix_project = nn.Conv2d(channels, channels, 1)
        for path in (self.value, self.value_depthwise, self.gate, self.gate_depthwise):
            begin_lively(path)
        for path in (self.mix_value, self.mix_gate):
            begin_lively(path)
        for gate in (self.gate_depthwise, self.mix_gate):  # open: at first a block is nearly linear
            assert gate.bias is not None
            nn.init.ones_(gate.bias)
        assert self.project.bias is not None and self.mix_project.bias is not None
        assert self.scale.bias is not None
        with torch.no_grad():
            for last in (self.project, self.mix_project):
                last.weight.mul_(QUIET)
            self.scale.weight.mul_(QUIET)
            if self.prompt_to_scale is not None:
                self.prompt_to_scale.weight.mul_(QUIET)
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.mix_project.bias)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, decisions: Decisions = OWN, prompt: Tensor | None = None) -> Tensor:
        """B C H W and the prompt (B M) -> B C H W."""
        value = bounded(self.value_depthwise(self.value(x)))
        y = value * bounded(self.gate_depthwise(self.gate(x)))  # B C H W
        scale = self.scale(decisions.settle(decisions.mean(y, keepdim=True)))  # B C 1 1
        if self.prompt_to_scale is not None:
            scale = scale + self.prompt_to_scale(prompt)[:, :, None, None]
        x = x + self.project(y * bounded(scale))
        return x + self.mix_project(bounded(self.mix_value(x)) * bounded(self.mix_gate(x)))


class Tone(nn.Module):
    """Sets the tone of the whole picture: a gain and an offset for each colour, from the latent's means and
    from the prompt, which tells darkness and haze.

    Darkness and haze change a picture as a whole. Said in six numbers, their undoing is learned sooner and
    holds still from frame to frame. The gain is an exponential, and both are ``TONE_RATE`` of what is
    decided: dark pictures need six times their brightness, which a plain factor did not learn in 2,000 steps.
    Units that leak cannot all fall silent, as those of a ReLU did within 500.
    """

    def __init__(self, channels: int, prompted: bool) -> None:
        super().__init__()
        self.see = nn.Linear(channels, TONE_WIDTH)
        self.prompt_to_see = nn.Linear(PROMPT_LENGTH, TONE_WIDTH, bias=False) if prompted else None
        self.decide = nn.Linear(TONE_WIDTH, 6)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)

    def forward(
        self, latent: Tensor, decisions: Decisions = OWN, prompt: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The latent, B C h w, and the prompt, B M -> gain and offset, each B 3 1 1."""
        seen = self.see(decisions.settle(decisions.mean(latent)).detach())  # B W
        if self.prompt_to_see is not None and prompt is not None:
            seen = seen + self.prompt_to_see(prompt.detach())
        decided = TONE_RATE * self.decide(F.leaky_relu(seen, 0.2))[:, :, None, None]  # B 6 1 1
        gain, offset = decided.chunk(2, dim=1)
        return gain.clamp(-MOST_GAIN, MOST_GAIN).exp(), offset
