from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from measnet.checkpoint import load_checkpoint
from measnet.export import make
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
def static_graph(golden_checkpoint: Callable[[str], Path], traced_once: Traced) -> Path:
    """The tiny golden network as a graph for 136x200."""
    return traced_once("tiny-136x200", load_checkpoint(golden_checkpoint("tiny")), (136, 200))


@pytest.fixture(scope="session")
def nano_graph(traced_once: Traced) -> Path:
    """The bundled nano as a graph for 128x160."""
    return traced_once("nano-128x160", load_checkpoint(bundled("nano", ".safetensors")), (128, 160))


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries graphs for any size on a quarter of the pixels, where what comes out of it is not the point."""
    monkeypatch.setattr(make, "USUAL", make.SMALLER)
