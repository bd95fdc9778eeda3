"""Q/DQ pairs: symmetric, one per tensor, weights per output channel, nothing else quantised."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from measnet.calibration.placement import place
from measnet.calibration.quantise import quantised_graph, quantised_weights, scales_of
from measnet.export.graph_session import run_graph
from measnet.export.precision import typed_graph
from measnet.export.ranges import Magnitudes

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(0, 1, (2, 16, 8, 8)).astype(np.float32)


def conv(name: str, given: str, weights: str, out: str, *bias: str, pads: int = 1) -> onnx.NodeProto:
    return helper.make_node("Conv", [given, weights, *bias], [out], f"{name}/Conv", pads=[pads] * 4)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


def quantised(model: onnx.ModelProto, images: np.ndarray = IMAGE) -> onnx.ModelProto:
    magnitudes = Magnitudes(model)
    magnitudes.see(images)
    found = magnitudes.found | {"image": float(np.abs(images).max())}
    return quantised_graph(model, place(model, found), found)


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def test_a_scale_is_a_127th_of_the_magnitude_rounded_up_to_what_fp16_holds() -> None:
    magnitudes = np.array([127, 12.7, 0.3, 5e-4, 1e-6, 0, 1e9], np.float32)
    scales = scales_of(magnitudes)
    assert scales[0] == 1.0
    assert (scales * 127 >= magnitudes * (1 - 1e-6)).all() and (scales > 0).all()
    np.testing.assert_array_equal(scales[:6], scales[:6].astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(scales[:4] * 127, magnitudes[:4], rtol=2e-2)
    assert scales[6] == np.float32(1e9) / 127  # more than FP16 holds


def test_weights_use_all_127_levels_of_each_output_channel() -> None:
    weights = np.stack([np.full((2, 3, 3), 1.27), np.linspace(-2.54, 2.54, 18).reshape(2, 3, 3)])
    weights = np.concatenate([weights, np.zeros((1, 2, 3, 3))]).astype(np.float32)
    values, scales = quantised_weights(weights, axis=0)
    assert values.dtype == np.int8 and scales.shape == (3,)
    np.testing.assert_allclose(scales[:2], [0.01, 0.02], rtol=1e-3)
    assert (values[0] == 127).all() and values[1].min() == -127 and not values[2].any()
    restored = values * scales[:, None, None, None]
    assert (np.abs(restored - weights) <= scales[:, None, None, None] / 2 * 1.01).all()


@pytest.mark.parametrize(
    ("operator", "shape", "given", "axis"),
    [
        ("Conv", (24, 16, 3, 3), {}, 0),
        ("MatMul", (16, 24), {}, 1),
        ("Gemm", (16, 24), {}, 1),
        ("Gemm", (24, 16), {"transB": 1}, 0),
    ],
)
def test_weights_have_a_scale_per_output_channel(
    operator: str, shape: tuple[int, ...], given: dict[str, int], axis: int, graph_of: Any
) -> None:
    if operator == "Conv":
        nodes, out = [helper.make_node("Conv", ["image", "w"], ["y"], "a/Conv")], ["batch", 24, 6, 6]
    else:
        nodes = [
            helper.make_node("ReduceMax", ["image", "axes"], ["r"], "a/ReduceMax", keepdims=0),
            helper.make_node(operator, ["r", "w"], ["y"], f"a/{operator}", None, None, None, **given),
        ]
        out = ["batch", 24]
    model = graph_of(nodes, out, w=normal(*shape), axes=np.array([2, 3], np.int64))
    result = quantised(model)
    dequantise = next(n for n in result.graph.node if n.output[0] == "w/dequantized")
    assert dequantise.op_type == "DequantizeLinear" and attributes(dequantise)["axis"] == axis
    assert constant(result, "w/scale").shape == (24,)
    expected = run_graph(model.SerializeToString(), IMAGE)["y"]
    got = run_graph(result.SerializeToString(), IMAGE)["y"]
    assert 0 < np.abs(got - expected).max() < 0.03 * np.abs(expected).max()


def test_a_tensor_has_one_pair_however_many_layers_read_it(graph_of: Any) -> None:
    model = graph_of(
        [
            conv("a", "image", "w", "p"),
            conv("b", "image", "v", "q"),
            conv("c", "image", "w", "r"),
            helper.make_node("Sum", ["p", "q", "r", "image"], ["y"], "sum/Sum"),
        ],
        ["batch", 16, 8, 8],
        w=normal(16, 16, 3, 3),
        v=normal(16, 16, 3, 3),
    )
    result = quantised(model)
    assert [node.op_type for node in result.graph.node].count("QuantizeLinear") == 1
    made = [node.output[0] for node in result.graph.node if node.op_type == "DequantizeLinear"]
    assert made == ["image/dequantized", "w/dequantized", "v/dequantized"]
    convolutions = [node for node in result.graph.node if node.op_type == "Conv"]
    assert {node.input[0] for node in convolutions} == {"image/dequantized"}
    total = next(node for node in result.graph.node if node.op_type == "Sum")
    assert list(total.input) == ["p", "q", "r", "image"]  # results and the skip stay as they are
    assert len({node.name for node in result.graph.node}) == len(result.graph.node)
    assert {tensor.name for tensor in result.graph.initializer} & {"w", "v"} == set()


def test_biases_stay_and_no_zero_point_is_other_than_0(graph_of: Any) -> None:
    model = graph_of(
        [conv("a", "image", "w", "p", "b"), conv("c", "p", "v", "y")],
        ["batch", 16, 8, 8],
        w=normal(16, 16, 3, 3),
        v=normal(16, 16, 3, 3),
        b=normal(16),
    )
    result = quantised(model)
    assert next(node for node in result.graph.node if node.name == "a/Conv").input[2] == "b"
    kinds = {tensor.data_type for tensor in result.graph.initializer}
    assert kinds == {TensorProto.FLOAT, TensorProto.INT8}
    for node in result.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = constant(result, node.input[2])
            assert zero.dtype == np.int8 and zero == 0 and constant(result, node.input[1]).shape == ()


def test_what_is_larger_than_was_calibrated_is_cut_off(graph_of: Any) -> None:
    one = np.zeros((16, 16, 1, 1), np.float32)
    one[range(16), range(16)] = 1
    model = graph_of([conv("a", "image", "w", "y", pads=0)], ["batch", 16, 8, 8], w=one)
    result = quantised(model, np.full((1, 16, 8, 8), 2, np.float32))
    images = np.linspace(-5, 5, 16 * 64, dtype=np.float32).reshape(1, 16, 8, 8)
    got = run_graph(result.SerializeToString(), images)["y"]
    np.testing.assert_allclose(got, np.clip(images, -2 * 128 / 127, 2), atol=2 / 127)


def test_a_layer_beyond_what_fp16_holds_stays_float32_when_the_graph_is_typed(graph_of: Any) -> None:
    model = graph_of(
        [
            helper.make_node("Mul", ["image", "much"], ["large"], "a/Mul"),
            conv("a", "large", "w", "p"),
            helper.make_node("Mul", ["p", "little"], ["y"], "b/Mul"),
        ],
        ["batch", 16, 8, 8],
        w=normal(16, 16, 3, 3),
        much=np.float32(1e8),
        little=np.float32(1e-8),
    )
    magnitudes = Magnitudes(model)
    magnitudes.see(IMAGE)
    result = quantised_graph(model, place(model, magnitudes.found), magnitudes.found)
    typed = typed_graph(result, "fp16", ranges=magnitudes.found)
    assert typed.reasons["a/Conv"] and typed.reasons["a/QuantizeLinear"]
    expected = run_graph(model.SerializeToString(), IMAGE)["y"]
    got = run_graph(typed.model.SerializeToString(), IMAGE)["y"]
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()
