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

from measnet.config import PROMPT_LENGTH, TONE_LEVELS, TONE_STATISTICS, TONE_TASKS
from measnet.damage import GROUPS, OF_TASK
from measnet.network.decisions import Decision
from measnet.network.transformer import depthwise

QUIET = 0.1
"""Share of their usual weights with which residual branches begin: a deep network is nearly none at first."""


LIMIT = 4.0
"""The bound on factors of a product, either way; in trained networks they stay within 2. Without a bound
features grow with the fourth power of the input, and one step too large, or one strange picture, makes the
whole network overflow (seen: a loss of 1e27 within 50 steps)."""


NOBODY = (2.0, 3.0)
"""Shares of a damage that no prompt has: where prompts mean nothing, who relies on them is not followed."""

TONE_WIDTH = 32
TONE_GRID = 8  # pixels a side of the blocks that a tone is judged by
MOST_GAIN = 2.7  # as a logarithm: fifteen times
DARKEST = 0.004  # a brightness of one 8-bit step: the darkest that is told from black


def bounded(x: Tensor) -> Tensor:
    return F.hardtanh(x, -LIMIT, LIMIT)  # a clamp whose backward pass is one kernel


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
        self.level = Decision("mean", channels)
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

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        """B C H W and the prompt (B M) -> B C H W."""
        value = bounded(self.value_depthwise(self.value(x)))
        y = value * bounded(self.gate_depthwise(self.gate(x)))  # B C H W
        scale = self.scale(self.level.settle(self.level.mean(y, keepdim=True)))  # B C 1 1
        if self.prompt_to_scale is not None:
            scale = scale + self.prompt_to_scale(prompt)[:, :, None, None]
        x = x + self.project(y * bounded(scale))
        return x + self.mix_project(bounded(self.mix_value(x)) * bounded(self.mix_gate(x)))


class Tone(nn.Module):
    """Sets the tone of the whole picture before anything else sees it: a gain and an offset for each colour.

    Darkness and haze change a picture as a whole. Said in six numbers, their undoing holds still from frame
    to frame and is learned in a minute from what a picture's brightness tells
    (``measnet/train/first_tone.py``): features of the network tell a dark picture from a good one late, and a
    residual that is to grow sixfold learns for hours. A gate that reaches 0 leaves good pictures exactly as
    they are.

    Several judge it. The first knows nothing but these figures, and is careful: a dim room and a dark wall
    have the same. The others, one for each of ``TONE_TASKS``, take for granted that the picture has that
    damage. The prompt, which sees more of a picture, says how far each of them is followed.
    Shapes: S statistics, J judges, T basic prompts.
    """

    usual: Tensor
    """2S: means of its statistics over many pictures."""

    spread: Tensor
    """2S: its standard deviation."""

    followed: Tensor
    """2 J-1: the shares of a damage in the prompt at which its judge begins to be followed, and wholly is."""

    def __init__(self, judges: int = 1 + len(TONE_TASKS)) -> None:
        super().__init__()
        self.seen = Decision("mean", TONE_STATISTICS)
        self.register_buffer("usual", torch.zeros(2 * TONE_STATISTICS))
        self.register_buffer("spread", torch.ones(2 * TONE_STATISTICS))
        self.register_buffer("followed", torch.tensor([[share] * (judges - 1) for share in NOBODY]))
        self.see = nn.Linear(2 * TONE_STATISTICS, judges * TONE_WIDTH)
        self.decide = nn.Parameter(torch.zeros(judges, 7, TONE_WIDTH))
        self.lean = nn.Parameter(torch.zeros(judges, 7))
        with torch.no_grad():
            self.lean[:, -1] = 0.5  # half open: it can learn either way

    def forward(self, image: Tensor, prompt_weights: Tensor | None, seen: Tensor | None = None) -> Tensor:
        """B 3 H W in [0, 1] -> the same shape, toned.

        Args:
            prompt_weights: B T, q of eq. 1; None without TSPG.
            seen: B S, where the means of the picture's statistics are known (a crop's are those of the
                picture that it was cut from).
        """
        if seen is None:
            seen = self.seen.settle(self.seen.mean(statistics(image)))
        gain, offset = self.gain_and_offset(seen, prompt_weights)
        return image * gain[:, :, None, None] + offset[:, :, None, None]

    def gain_and_offset(self, seen: Tensor, prompt_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The means of a picture's ``statistics`` (B S) and its prompt weights (B T) -> each B 3."""
        gain, offset = self.judged((with_logarithms(seen) - self.usual) / self.spread)
        if prompt_weights is None:
            return gain[:, 0].exp(), offset[:, 0]
        groups = [GROUPS[OF_TASK[task]] for task in TONE_TASKS]
        shares = torch.stack([prompt_weights[:, group].sum(dim=1) for group in groups], dim=1)
        begins, whole = self.followed
        told = ((shares - begins) / (whole - begins)).clamp(0, 1)
        told = told / told.sum(dim=1, keepdim=True).clamp(min=1)
        heard = torch.cat([1 - told.sum(dim=1, keepdim=True), told], dim=1)[:, :, None]  # B J 1
        return (gain * heard).sum(dim=1).exp(), (offset * heard).sum(dim=1)

    def judged(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """B 2S, means and their logarithms, as shares of their spread -> each judge's gain, as a logarithm,
        and offset: each B J 3."""
        noted = F.leaky_relu(self.see(seen), 0.2).unflatten(1, (-1, 1, TONE_WIDTH))  # B J 1 W
        decided = (noted * self.decide).sum(dim=3) + self.lean  # B J 7
        gain, offset, gate = decided.split([3, 3, 1], dim=2)
        gate = gate.clamp(0, 1)
        return gate * gain.clamp(-MOST_GAIN, MOST_GAIN), gate * offset


def with_logarithms(seen: Tensor) -> Tensor:
    """B S -> B 2S: a picture half as bright wants twice the gain, which logarithms tell."""
    return torch.cat([seen, (seen.clamp(min=0) + DARKEST).log()], dim=1)


def statistics(image: Tensor) -> Tensor:
    """B 3 H W -> B S h w, for blocks of ``TONE_GRID`` pixels: values whose means tell darkness and haze.

    The colours; by how much the darkest and the brightest of the block's colours, and the darkest of all
    blocks and of all pixels around (the dark channel: He et al., "Single image haze removal using dark
    channel prior", CVPR 2009), lie above each of ``TONE_LEVELS``; contrast within the block and with what is
    near and far; colourfulness; the darkest and the brightest pixel; the square of the brightness.
    """
    blocks = F.avg_pool2d(image, TONE_GRID)
    least, most = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)
    light = blocks.mean(dim=1, keepdim=True)
    square = light.square()
    darkest = -F.max_pool2d(-image, TONE_GRID).amax(dim=1, keepdim=True)
    brightest = F.max_pool2d(image, TONE_GRID).amax(dim=1, keepdim=True)
    around = [-F.max_pool2d(-dark, 3, stride=1, padding=1) for dark in (least, darkest)]
    above = [F.relu(channel - level) for channel in (least, most, *around) for level in TONE_LEVELS]
    spread = F.avg_pool2d(image.mean(dim=1, keepdim=True).square(), TONE_GRID) - square
    contrasts = [
        (light - F.avg_pool2d(light, side, 1, side // 2, count_include_pad=False)).abs() for side in (3, 9)
    ]
    rest = [most - least, (spread.clamp(min=0) + 1e-6).sqrt(), darkest, brightest, square]
    return torch.cat([blocks, *above, *contrasts, *rest], dim=1)
