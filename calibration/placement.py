"""The products of a MEASNet that are computed in INT8, and the reasons why the others are not.

docs/calibrating.md says where the rules come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from measnet.export.islands import island_of

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

KEPT: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("output head", re.compile(r"output[./].*")),
    ("pixel ensemble", re.compile(r"pixel_experts1\..*")),
    # Empty in small frames and not in large ones, so that ranges seen in one size are wrong in another.
    ("low band", re.compile(r"frequency\d\.low_attention\..*")),
    # How much each channel of a gated block counts: nothing to gain.
    ("one row a picture", re.compile(r".*\.(?:scale|prompt_to_scale)/.*")),
)
"""Parts that stay as they are, besides the islands of 16-bit graphs, by their names in reports."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: a product with constant weights."""

    name: str
    """Name of its node."""

    tensor: str
    """Its input."""

    weights: str
    shape: tuple[int, ...]
    """Shape of the weights."""

    axis: int
    """Axis of the weights along which output channels lie."""

    groups: int = 1

    @property
    def channels(self) -> tuple[int, int]:
        """(in, out), of all groups together."""
        out = self.shape[self.axis]
        return (self.shape[1 - self.axis] * self.groups, out)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Empty for a linear layer."""
        return self.shape[2:]


@dataclass(frozen=True)
class Placement:
    """The layers that are computed in INT8."""

    layers: tuple[Layer, ...]

    reasons: dict[str, str]
    """For every product of the graph, by node name: why it stays as it is; "" for INT8."""


def place(
    model: onnx.ModelProto,
    magnitudes: Mapping[str, float],
    *,
    keep: Callable[[Layer], str | None] = lambda layer: None,
) -> Placement:
    """Chooses the layers of the float32 graph ``model`` whose products become INT8.

    ``magnitudes`` has the largest magnitude of each tensor by name, as ``export/ranges.py`` finds them.
    ``keep`` may say of further layers why they stay as they are.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layers, reasons = [], {}
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        layer = _layer(node, shapes)
        if layer is None:
            reasons[node.name] = _island(node) or "weights that are computed"
            continue
        reasons[node.name] = why = (
            _island(node)
            or _kept(node)
            or _not_worth_it(layer)
            or ("" if magnitudes.get(layer.tensor) else "always 0 on these frames")
            or keep(layer)
            or ""
        )
        if not why:
            layers.append(layer)
    return Placement(tuple(layers), reasons)


def _layer(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Layer | None:
    """The product as a layer; None for one of two computed tensors, or of a form that is not a layer's."""
    tensor, weights = node.input[:2]
    shape = shapes.get(weights, ())
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if tensor in shapes or len(shape) < 2:
        return None
    if node.op_type == "Conv":
        return Layer(node.name, tensor, weights, shape, axis=0, groups=given.get("group", 1))
    if node.op_type == "MatMul" and len(shape) == 2:
        return Layer(node.name, tensor, weights, shape, axis=1)
    if node.op_type == "Gemm" and not given.get("transA", 0):
        return Layer(node.name, tensor, weights, shape, axis=0 if given.get("transB", 0) else 1)
    return None


def _island(node: NodeProto) -> str:
    island = island_of(node)
    return "" if island is None else island.name


def _kept(node: NodeProto) -> str:
    return next((name for name, pattern in KEPT if pattern.fullmatch(node.name)), "")


def _not_worth_it(layer: Layer) -> str:
    """The reason why INT8 gains nothing: TensorRT has no fast form of it. Empty where it has."""
    given, made = layer.channels
    if layer.groups > 1:
        if made % 8 or min(layer.kernel) < 3:
            return "grouped, no fast INT8 form"
        return ""
    square = len(set(layer.kernel)) <= 1
    if min(given, made) < 16 and not (given % 8 == 0 and made % 8 == 0 and square):
        return "few channels"
    return ""
