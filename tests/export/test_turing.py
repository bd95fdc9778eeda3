"""The form of graphs for Turing computes what the graph does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from measnet.export.graph import read_graph
from measnet.export.graph_session import run_graph
from measnet.export.turing import turing_graph
from measnet.weights import bundled


def test_the_form_for_turing_computes_the_same() -> None:
    model = read_graph(bundled("nano", ".onnx")).model
    rewritten = turing_graph(model)
    products = [node.name for node in model.graph.node if node.op_type == "Gemm"]
    assert products and not any(node.op_type == "Gemm" for node in rewritten.graph.node)
    images = np.random.default_rng(0).random((2, 3, 128, 144), np.float32)
    expected = run_graph(model.SerializeToString(), images)
    found = run_graph(rewritten.SerializeToString(), images)
    assert np.abs(found["restored"] - expected["restored"]).max() < 1e-5
    for name in ("pixel_experts", "image_experts"):
        assert (found[name] == expected[name]).mean() > 0.9999


def test_the_form_for_turing_has_a_low_band_too(dynamic_graph: Path) -> None:
    model = onnx.load(dynamic_graph)
    images = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
    without = run_graph(model.SerializeToString(), images)["restored"]
    # Thresholds of 1: frequencies pass the mask at this size, too.
    threshold = next(node for node in model.graph.node if node.name == "frequency2/Sigmoid")
    threshold.op_type = "Exp"
    weight = next(t for t in model.graph.initializer if t.name == "network.frequency2.cutoff.2.weight")
    weight.raw_data = bytes(len(weight.raw_data))
    rewritten = turing_graph(model)
    thin = [node.name for node in model.graph.node if node.op_type == "MatMul" and ".split/" in node.name]
    assert thin and not {node.name for node in rewritten.graph.node} & set(thin)
    expected, found = (run_graph(form.SerializeToString(), images)["restored"] for form in (model, rewritten))
    assert np.abs(found - expected).max() < 1e-5 < 1e-3 < np.abs(without - expected).max()
