"""TSPG, task-specific prompt generation (section III-B1, eq. 1).

Shapes: B batch, H W size, T basic prompts, M prompt length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import PROMPT_BASIS, PROMPT_LENGTH
from measnet.network.decisions import Decision


class PromptGenerator(nn.Module):
    """Looks at the whole image and mixes the basic prompts into the one that fits its damage."""

    def __init__(self) -> None:
        super().__init__()
        wide = 64
        self.features = nn.Sequential(
            nn.Conv2d(3, wide, 3, stride=3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide, wide, 3, stride=3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide, wide, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide, wide, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(wide, PROMPT_BASIS, 1),
        )
        self.mixer = nn.Linear(PROMPT_BASIS, PROMPT_BASIS)
        self.mixing = Decision("prompt", PROMPT_BASIS)
        self.basic_prompts = nn.Parameter(torch.randn(PROMPT_BASIS, PROMPT_LENGTH))  # P_t: T M

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """B 3 H W in [0, 1] -> the mixing weights q (B T, summing to 1) and the prompt (B M)."""
        q = self.mixing.settle(self.scores(image)).softmax(dim=1)  # B T
        prompt = F.gelu(q @ self.basic_prompts)  # B M, eq. 1
        return q, prompt

    def scores(self, image: Tensor) -> Tensor:
        """B 3 H W in [0, 1] -> what q is the softmax of, B T."""
        scores: Tensor = self.mixer(self.mixing.mean(self.features(image)))
        return scores


class PromptFusion(nn.Module):
    """Table VI's row with TSPG but without MESE: the prompt joins the features, no expert acts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prompt_to_channels = nn.Linear(PROMPT_LENGTH, channels)
        self.project = nn.Conv2d(channels * 2, channels, 1)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        d = self.prompt_to_channels(prompt)[:, :, None, None].expand_as(x)  # B C H W
        return self.project(torch.cat([x, d], dim=1))
