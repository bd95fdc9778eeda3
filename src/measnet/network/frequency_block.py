"""The released code's frequency block between decoder levels (not in the paper).

It splits the image itself into a few low frequencies and the rest, and lets both question the features.
Shapes: B batch, C channels, H W size of the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import FREQUENCY_HEADS
from measnet.network.decisions import Decision
from measnet.network.transformer import CrossChannelAttention

CELL = 128  # pixels of a side per frequency step that the mask may keep


class FrequencyBlock(nn.Module):
    """Image (B 3 any size) and features (B C H W) -> B C H W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lift = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.content = Decision("mean", channels)
        self.cutoff = nn.Sequential(
            nn.Conv2d(channels, channels // 8, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(channels // 8, 2, 1, bias=False),
        )
        self.split = BandSplit()
        self.high_attention = CrossChannelAttention(channels, FREQUENCY_HEADS)
        self.low_attention = CrossChannelAttention(channels, FREQUENCY_HEADS)
        self.modulate = BandModulation(channels)
        self.join_attention = CrossChannelAttention(channels, FREQUENCY_HEADS)
        self.joined_gain = nn.Parameter(torch.zeros(channels, 1, 1))
        self.kept_gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        size = features.shape[2:]
        r = self.lift(F.interpolate(image, size=size, mode="bilinear", align_corners=False))
        low, high = self.split(r, self.thresholds(r))  # each B C H W
        high = self.high_attention(high, features)
        low = self.low_attention(low, features)
        modulated = self.modulate(low=low, high=high)
        joined = self.join_attention(features, modulated)
        return joined * self.joined_gain + features * self.kept_gain

    def thresholds(self, r: Tensor) -> Tensor:
        """The share of the allowed frequencies that is kept, B 2 (vertical, horizontal), in 0-1."""
        t: Tensor = self.cutoff(self.content.settle(self.content.mean(r, keepdim=True))).sigmoid()
        return t[:, :, 0, 0]


class BandSplit(nn.Module):
    """Magnitudes of the low frequencies of ``r`` (B C H W) and of the rest, each B C H W.

    The mask keeps the ``2m`` frequencies -m ... m-1 of each direction, with m = int(side // 128 * t): one
    more negative than positive, so the bands are complex and their magnitude is taken.
    """

    def forward(self, r: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        height, width = r.shape[2:]
        keep_rows = self._kept(height, thresholds[:, 0])[:, None, :, None]  # B 1 H 1
        keep_columns = self._kept(width, thresholds[:, 1])[:, None, None, :]  # B 1 1 W
        spectrum = torch.fft.fft2(r)  # B C H W, complex
        low = torch.fft.ifft2(spectrum * (keep_rows & keep_columns))
        return low.abs(), (r - low).abs()

    @staticmethod
    def _kept(side: int, threshold: Tensor) -> Tensor:
        """Marks the FFT's ``side`` frequencies that stay, per image (B side), in the FFT's own order."""
        m = (side // CELL * threshold).int()[:, None]  # B 1
        index = torch.arange(side, device=threshold.device)  # 0 1 ..., the negative ones at the end
        return (index < m) | (index >= side - m)


class BandModulation(nn.Module):
    """High frequencies say where, low frequencies say which channels: each weighs the other band."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.where = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.average = Decision("mean", channels)
        self.peak = Decision("peak", channels)
        self.which = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, *, low: Tensor, high: Tensor) -> Tensor:
        seen = torch.cat([high.amax(dim=1, keepdim=True), high.mean(dim=1, keepdim=True)], dim=1)
        where = self.where(seen).sigmoid()  # B 1 H W
        average = self.which(self.average.settle(self.average.mean(low, keepdim=True)))
        peak = self.which(self.peak.settle(self.peak.peak(low)))
        which = (average + peak).sigmoid()  # B C 1 1
        return self.project(low * where + high * which)
