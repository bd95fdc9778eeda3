from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from measnet.checkpoint import load_checkpoint
from measnet.export.graph import export_graph


@pytest.fixture(scope="session")
def dynamic_graph(golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny golden network as a graph for any size."""
    path = tmp_path_factory.mktemp("graphs") / "tiny-dynamic.onnx"
    export_graph(load_checkpoint(golden_checkpoint("tiny")), path, size=None)
    return path


@pytest.fixture(scope="session")
def static_graph(golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny golden network as a graph for 136x200."""
    path = tmp_path_factory.mktemp("graphs") / "tiny-136x200.onnx"
    export_graph(load_checkpoint(golden_checkpoint("tiny")), path, size=(136, 200))
    return path


@pytest.fixture(scope="session")
def base_graph(golden_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published network with the golden weights, as a graph for 128x128; tracing it takes a while."""
    path = tmp_path_factory.mktemp("graphs") / "base-128x128.onnx"
    export_graph(load_checkpoint(golden_checkpoint("base")), path, size=(128, 128))
    return path
