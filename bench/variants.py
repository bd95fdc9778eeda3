"""Lists size and cost of the named variants.

    python bench/variants.py

GFLOP count the export form (every pixel expert answers every pixel) on one image of 256x256, multiply and
add counted as two, matrix products and convolutions alone.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from measnet.config import VARIANTS
from measnet.export.exact import ExactMEASNet
from measnet.network import MEASNet


def main() -> None:
    print("| variant | parameters, M | GFLOP at 256x256 | image sides |\n|---|---|---|---|")
    for name, config in VARIANTS.items():
        network = MEASNet(config)
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            ExactMEASNet(network)(torch.zeros(1, 3, 256, 256))
        gflop = counter.get_total_flops() / 1e9
        rule = config.size_rule
        sides = f"multiples of {rule.multiple}, from {rule.minimum}"
        print(f"| {name} | {parameters:.2f} | {gflop:.2f} | {sides} |")


if __name__ == "__main__":
    main()
