"""FD, feature decomposition: low and high frequencies apart (section III-C, eqs. 7-8).

Shapes: B batch, C channels, H W size, G groups of channels, S side of the filter.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from measnet.config import FILTER_GROUPS, FILTER_SIZE
from measnet.network.decisions import Decision


class FeatureDecomposition(nn.Module):
    """Predicts a low-pass filter for each group of channels and splits the features with it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = FILTER_GROUPS * FILTER_SIZE**2
        self.predict = nn.Conv2d(channels, taps, 1, bias=False)
        self.norm = nn.BatchNorm2d(taps)
        self.taps = Decision("filters", FILTER_GROUPS, FILTER_SIZE**2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """B C H W -> low and high frequencies, each B C H W; they sum to ``x``."""
        low = low_pass(x, self.filters(x))
        return low, x - low

    def filters(self, x: Tensor) -> Tensor:
        """The filter of each group, B G S*S (row by row); its taps are positive and sum to 1 (eq. 7)."""
        taps = self.taps.settle(self.norm(self.predict(self.taps.mean(x, keepdim=True))))  # B G*S*S 1 1
        return taps.view(x.shape[0], FILTER_GROUPS, FILTER_SIZE**2).softmax(dim=2)


def low_pass(x: Tensor, filters: Tensor) -> Tensor:
    """``x`` (B C H W) filtered with each group's own taps (B G S*S), reflected at the border (eq. 8)."""
    batch, channels, height, width = x.shape
    groups = filters.shape[1]
    padded = F.pad(x, (FILTER_SIZE // 2,) * 4, mode="reflect")
    padded = padded.reshape(batch, groups, channels // groups, height + 2, width + 2)
    taps = filters[:, :, :, None, None, None]  # B G S*S 1 1 1
    low = sum(
        padded[:, :, :, row : row + height, column : column + width] * taps[:, :, row * FILTER_SIZE + column]
        for row in range(FILTER_SIZE)
        for column in range(FILTER_SIZE)
    )  # B G C/G H W
    assert isinstance(low, Tensor)
    return low.reshape(batch, channels, height, width)
