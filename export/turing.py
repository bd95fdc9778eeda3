"""A graph for GPUs of compute capability 7.5 (Turing), where TensorRT-RTX multiplies no float32 matrices.

FP16 products it has, and float32 convolutions. A 16-bit graph of ours leaves in float32 a router's
products of one row per image with a small constant, and the thin products of a low band (``BandSplit``); they
are written here as multiply and sum, which computes the same but for the order of additions. Others stay as
they are, and the builder says which it does not take.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from measnet.export.graph import undo_widening

MOST_PRODUCTS = 1 << 20  # numbers per image between multiply and sum, if the builder did not fuse them


LOW_BAND = ".split/"
"""Part of the names of a low band's nodes."""


def turing_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` with its float32 ``Gemm`` and ``MatMul`` of B K by a constant K N rewritten, and
    those of low bands."""
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    undo_widening(rewritten)
    graph = rewritten.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = ranks_of(onnx.shape_inference.infer_shapes(rewritten).graph)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if not rewritable(node, constants, ranks):
            graph.node.append(node)
        elif LOW_BAND in node.name:
            graph.node.extend(_thin_product(node, graph))
        else:
            graph.node.extend(_multiply_and_sum(node, graph, _weights(node, constants)))
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(rewritten, full_check=True)
    return rewritten


def ranks_of(graph: onnx.GraphProto) -> dict[str, int]:
    """The rank of every tensor of a graph for which shape inference found one."""
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def rewritable(node: NodeProto, constants: dict[str, TensorProto], ranks: dict[str, int]) -> bool:
    """Tells whether ``turing_graph`` rewrites ``node``; ``constants`` need not have their values."""
    if node.op_type == "MatMul" and LOW_BAND in node.name:
        return True
    if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
        return False
    tensor = constants[node.input[1]]
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or ranks.get(node.input[0]) != 2:
        return False
    given = _attributes(node)
    if given.get("transA", 0) or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        return False
    return prod(tensor.dims) <= MOST_PRODUCTS


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _weights(
    node: NodeProto, constants: dict[str, TensorProto]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The constant factor of a product, as N K."""
    values = numpy_helper.to_array(constants[node.input[1]])
    return np.ascontiguousarray(values if _attributes(node).get("transB", 0) else values.T)


def _multiply_and_sum(
    node: NodeProto,
    graph: onnx.GraphProto,
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> list[NodeProto]:
    """B K -> B 1 K -> times N K -> B N K -> summed over K -> B N."""
    rows, middle, last = f"{node.name}/rows", f"{node.name}/middle", f"{node.name}/last"
    graph.initializer.append(numpy_helper.from_array(weights, rows))
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), middle))
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), last))
    biased = len(node.input) > 2 and node.input[2]
    total = f"{node.name}/sum" if biased else node.output[0]
    named = {operator: f"{node.name}/{operator}" for operator in ("Unsqueeze", "Mul", "ReduceSum", "Add")}
    row, products = f"{node.name}/row", f"{node.name}/products"
    steps = [
        helper.make_node("Unsqueeze", [node.input[0], middle], [row], name=named["Unsqueeze"]),
        helper.make_node("Mul", [row, rows], [products], name=named["Mul"]),
        helper.make_node("ReduceSum", [products, last], [total], name=named["ReduceSum"], keepdims=0),
    ]
    if biased:
        steps.append(helper.make_node("Add", [total, node.input[2]], [node.output[0]], name=named["Add"]))
    return steps


def _thin_product(node: NodeProto, graph: onnx.GraphProto) -> list[NodeProto]:
    """... M K by ... K N -> ... M K 1 times ... 1 K N -> summed over K -> ... M N."""
    axes = {place: f"{node.name}/axis{place}" for place in (-1, -3, -2)}
    for place, name in axes.items():
        graph.initializer.append(numpy_helper.from_array(np.array([place], np.int64), name))
    left, right, products = (f"{node.name}/{part}" for part in ("left", "right", "products"))
    return [
        helper.make_node("Unsqueeze", [node.input[0], axes[-1]], [left], name=f"{left}/Unsqueeze"),
        helper.make_node("Unsqueeze", [node.input[1], axes[-3]], [right], name=f"{right}/Unsqueeze"),
        helper.make_node("Mul", [left, right], [products], name=f"{node.name}/Mul"),
        helper.make_node(
            "ReduceSum", [products, axes[-2]], [node.output[0]], name=f"{node.name}/ReduceSum", keepdims=0
        ),
    ]
