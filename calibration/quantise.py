"""Float32 graph + ranges -> the same graph with symmetric QuantizeLinear/DequantizeLinear pairs.

Activations have one scale per tensor and one pair, however many layers read it; weights lie in the graph as
INT8 with one scale per output channel. Zero points are 0, biases stay as they are, and results are not
quantised: what adds to a convolution can be joined with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from measnet.calibration.placement import Layer, Placement

LEVELS = 127  # of 8 bits on each side of 0
ZERO = "int8/zero_point"


def quantised_graph(
    model: onnx.ModelProto, placement: Placement, magnitudes: Mapping[str, float]
) -> onnx.ModelProto:
    """A copy of ``model``, all float32, with the layers of ``placement`` behind Q/DQ pairs.

    ``magnitudes`` has, for the input of each layer by name, the magnitude that becomes 127; what is larger
    is cut off. The scales are numbers that FP16 holds exactly, so that the graph can be typed afterwards.
    """
    return _Quantising(model, placement, magnitudes).run()


class _Quantising:
    """One graph on its way to a quantised one."""

    def __init__(self, model: onnx.ModelProto, placement: Placement, magnitudes: Mapping[str, float]) -> None:
        self.source = model
        self.layers = {layer.name: layer for layer in placement.layers}
        self.magnitudes = magnitudes
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.done: set[str] = set()
        self.names: Counter[str] = Counter()

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        del graph.node[:]
        if self.layers:
            graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), ZERO))
        for original in self.source.graph.node:
            node = NodeProto()
            node.CopyFrom(original)
            layer = self.layers.get(node.name)
            if layer is not None:
                node.input[0] = self._quantised_tensor(layer)
                node.input[1] = self._quantised_weights(layer)
            graph.node.append(node)
        used = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        onnx.checker.check_model(self.model, full_check=True)
        return self.model

    def _quantised_tensor(self, layer: Layer) -> str:
        name = layer.tensor
        target = f"{name}/dequantized"
        if target not in self.done:
            self.done.add(target)
            scale = scales_of(np.array(self.magnitudes[name], np.float32))
            stored, scale_name = f"{name}/int8", f"{name}/scale"
            self.model.graph.initializer.append(numpy_helper.from_array(scale, scale_name))
            self._add("QuantizeLinear", [name, scale_name, ZERO], stored, layer)
            self._add("DequantizeLinear", [stored, scale_name, ZERO], target, layer)
        return target

    def _quantised_weights(self, layer: Layer) -> str:
        name = layer.weights
        target = f"{name}/dequantized"
        if target not in self.done:
            self.done.add(target)
            values, scales = quantised_weights(numpy_helper.to_array(self.constants[name]), layer.axis)
            stored, scale_name = f"{name}/int8", f"{name}/scale"
            self.model.graph.initializer.append(numpy_helper.from_array(values, stored))
            self.model.graph.initializer.append(numpy_helper.from_array(scales, scale_name))
            self._add("DequantizeLinear", [stored, scale_name], target, layer, axis=layer.axis)
        return target

    def _add(
        self, operator: str, inputs: list[str], output: str, layer: Layer, axis: int | None = None
    ) -> None:
        stem = f"{layer.name.rpartition('/')[0]}/{operator}"
        self.names[stem] += 1
        name = stem if self.names[stem] == 1 else f"{stem}_{self.names[stem]}"
        node = helper.make_node(operator, inputs, [output], name=name)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.model.graph.node.append(node)


def quantised_weights(
    weights: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """``weights`` as -127 to 127, and the scale of each channel along ``axis``."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    scales = scales_of(np.abs(weights).max(axis=others))
    shape = [1] * weights.ndim
    shape[axis] = -1
    steps = np.rint(weights / scales.reshape(shape))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scales


def scales_of(magnitudes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The step of each magnitude's 127 levels: the next FP16 number upwards, and never 0.

    Beyond what FP16 holds it is a float32 number, which keeps its layer float32 when the graph is typed.
    """
    exact = np.asarray(magnitudes, np.float32) / np.float32(LEVELS)
    with np.errstate(over="ignore"):
        half = np.maximum(exact.astype(np.float16), np.float16(2.0**-24))
        half = np.where(half.astype(np.float32) < exact, np.nextafter(half, np.float16(np.inf)), half)
    return np.where(np.isfinite(half), half.astype(np.float32), exact).astype(np.float32)
