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
