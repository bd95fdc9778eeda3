from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from measnet.checkpoint import load_checkpoint
from measnet.export.graph import export_graph

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
Golden = Callable[[str], Path]


@pytest.fixture(scope="session")
def dynamic_graph(golden_checkpoint: Golden, made_once: MadeOnce) -> Path:
    """The tiny golden network as a graph for any size."""

    def make(path: Path) -> None:
        export_graph(load_checkpoint(golden_checkpoint("tiny")), path, size=None)

    return made_once("tiny-dynamic.onnx", make)


@pytest.fixture(scope="session")
def static_graph(golden_checkpoint: Golden, made_once: MadeOnce) -> Path:
    """The tiny golden network as a graph for 136x200."""

    def make(path: Path) -> None:
        export_graph(load_checkpoint(golden_checkpoint("tiny")), path, size=(136, 200))

    return made_once("tiny-136x200.onnx", make)


@pytest.fixture(scope="session")
def base_graph(golden_checkpoint: Golden, made_once: MadeOnce) -> Path:
    """The published network with the golden weights, as a graph for 128x128; tracing it takes a while."""

    def make(path: Path) -> None:
        export_graph(load_checkpoint(golden_checkpoint("base")), path, size=(128, 128))

    return made_once("base-128x128.onnx", make)
