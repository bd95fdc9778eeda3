"""The network that corrects how far the past is trusted, and its ONNX graph.

Shapes: B batch, h w half of the frame's sides.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from measnet.runtime.trust import MULTIPLE, PLANES
from measnet.whole_file import write_whole

CHANNELS, LAYERS = 16, 3
MOST = 3.0  # of the logarithm of the factor, up and down


class TrustNetwork(nn.Module):
    """Planes of half size in, worked on at a quarter, the logarithm of the factor at half size out.

    Untrained it says 0 everywhere, and leaves the rule as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(PLANES, CHANNELS, 4, stride=MULTIPLE, padding=1)
        self.mid = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(LAYERS))
        self.last = nn.Conv2d(CHANNELS, MULTIPLE**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, planes: Tensor) -> Tensor:
        """B 14 h w -> B 1 h w; ``h`` and ``w`` are even."""
        x = F.relu(self.first(planes))  # B 16 h/2 w/2
        for layer in self.mid:
            x = x + F.relu(layer(x))
        return MOST * torch.tanh(F.pixel_shuffle(self.last(x), MULTIPLE) / MOST)


def write_onnx(network: TrustNetwork, path: Path) -> None:
    """Writes the network as a graph for sides of any even length. Raises ``OutputError``."""
    sides = {2: "height", 3: "width"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = Path(folder) / "trust.onnx"
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, PLANES, 32, 32),),
            made,
            dynamo=False,
            input_names=["planes"],
            output_names=["log_factor"],
            dynamic_axes={"planes": sides, "log_factor": sides},
        )
        write_whole(path, made.read_bytes())
