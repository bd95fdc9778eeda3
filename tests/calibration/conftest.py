from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from measnet.export.graph import Graph, read_graph
from measnet.weights import bundled

GraphOf = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def nano() -> Graph:
    """The bundled graph, in place of a new trace, which takes far longer."""
    return read_graph(bundled("nano", ".onnx"))


@pytest.fixture(scope="session")
def graph_of() -> GraphOf:
    """Makes a graph from ``image``, B 16 8 8, to ``y``."""

    def make(nodes: list[onnx.NodeProto], out: list[Any], **constants: np.ndarray) -> onnx.ModelProto:
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 16, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    return make
