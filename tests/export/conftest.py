from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from measnet.checkpoint import load_checkpoint
from measnet.config import VARIANTS
from measnet.export.trace import exact_graph
from measnet.network import MEASNet
from measnet.network.gated import GatedBlock, Tone
from measnet.network.pixel_experts import PixelRouter
from measnet.weights import bundled

Traced = Callable[[str, MEASNet, tuple[int, int] | None], Path]


@pytest.fixture(scope="session")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Writes the graph of a network under a name."""
    folder = tmp_path_factory.mktemp("graphs")

    def graph(name: str, network: MEASNet, size: tuple[int, int] | None) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            exact_graph(network, size).write(path)
        return path

    return graph


@pytest.fixture(scope="session")
def dynamic_graph(golden_checkpoint: Callable[[str], Path], traced_once: Traced) -> Path:
    """The tiny golden network as a graph for any size."""
    return traced_once("tiny-dynamic", load_checkpoint(golden_checkpoint("tiny")), None)


@pytest.fixture(scope="session")
def static_graph(golden_checkpoint: Callable[[str], Path], traced_once: Traced) -> Path:
    """The tiny golden network as a graph for 136x200."""
    return traced_once("tiny-136x200", load_checkpoint(golden_checkpoint("tiny")), (136, 200))


@pytest.fixture(scope="session")
def nano_graph(traced_once: Traced) -> Path:
    """The bundled nano as a graph for 128x160."""
    return traced_once("nano-128x160", load_checkpoint(bundled("nano", ".safetensors")), (128, 160))


@pytest.fixture(scope="session")
def gated_network() -> MEASNet:
    """A narrow gated network in which every part is as loud as in a trained one."""
    torch.manual_seed(2)
    network = MEASNet(replace(VARIANTS["nano"], width=16, blocks=(0, 0, 1, 1))).eval().requires_grad_(False)
    for block in network.modules():
        if isinstance(block, GatedBlock):
            for last in (block.project, block.mix_project, block.scale):
                last.weight.mul_(5)
        elif isinstance(block, Tone):
            torch.nn.init.normal_(block.decide.weight, std=0.05)  # gains of 0.7 to 1.4
        elif isinstance(block, PixelRouter):
            block.scores.mul_(4)
    return network


@pytest.fixture(scope="session")
def base_graph(golden_checkpoint: Callable[[str], Path], traced_once: Traced) -> Path:
    """The published network with the golden weights, as a graph for 128x128; tracing it takes a while."""
    return traced_once("base-128x128", load_checkpoint(golden_checkpoint("base")), (128, 128))
