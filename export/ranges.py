"""The largest magnitude that every tensor of a graph reaches on given pictures."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from measnet.errors import GraphError
from measnet.export.precision import float_tensors
from measnet.export.session import run_graph
from measnet.image import Image


def largest_magnitudes(model: onnx.ModelProto, images: Image) -> dict[str, float]:
    """Of every float32 tensor that ``model`` computes, by name, on ``images`` (B 3 H W).

    The maxima are taken inside the graph, so no tensor is kept. Raises ``GraphError`` when a tensor
    is not finite: such a network needs float32, or is broken.
    """
    floats = float_tensors(model)
    names = [name for node in model.graph.node for name in node.output if name in floats]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in names:
        magnitude, peak = f"{name}/magnitude", f"{name}/peak"
        probe.graph.node.append(onnx.helper.make_node("Abs", [name], [magnitude], name=magnitude))
        probe.graph.node.append(
            onnx.helper.make_node("ReduceMax", [magnitude], [peak], name=peak, keepdims=0)
        )
        probe.graph.output.append(onnx.helper.make_tensor_value_info(peak, TensorProto.FLOAT, []))
    peaks = run_graph(probe.SerializeToString(), images)
    found = {name: float(peaks[f"{name}/peak"]) for name in names}
    broken = [name for name, peak in found.items() if not peak < float("inf")]
    if broken:
        raise GraphError(f"tensor {broken[0]} of the graph is not finite on the pictures it was tried on")
    return found
