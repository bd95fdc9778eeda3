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
def published_parts() -> MEASNet:
    """Every kind of part that the published network has, once; traced in half the time of the golden one."""
    torch.manual_seed(0)
    one_of_each = replace(VARIANTS["base"], width=16, blocks=(0, 0, 0, 1), refinement_blocks=0)
    return MEASNet(one_of_each).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def static_graph(published_parts: MEASNet, traced_once: Traced) -> Path:
    """A graph for 136x200, at which the masks of frequencies are empty."""
    return traced_once("parts-136x200", published_parts, (136, 200))


@pytest.fixture(scope="session")
def nano_graph(traced_once: Traced) -> Path:
    """The bundled nano as a graph for 128x160."""
    return traced_once("nano-128x160", load_checkpoint(bundled("nano", ".safetensors")), (128, 160))
