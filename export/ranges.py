"""The largest magnitude that every tensor of a graph reaches on given pictures."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from measnet.errors import GraphError
from measnet.export.graph_session import GraphSession
from measnet.export.precision import float_tensors
from measnet.image import Image


class Magnitudes:
    """The largest magnitude so far of every float32 tensor that ``model`` computes, by name.

    The maxima are taken inside the graph and no picture is kept, so that any number of them may be seen.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        floats = float_tensors(model)
        names = [name for node in model.graph.node for name in node.output if name in floats]
        self.found = dict.fromkeys(names, 0.0)
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
        self._session = GraphSession(probe.SerializeToString())

    def see(self, images: Image) -> None:
        """Runs the graph on ``images`` (B 3 H W).

        Raises ``GraphError`` when a tensor is not finite: such a network needs float32, or is broken.
        """
        peaks = self._session.run(images)
        for name, before in self.found.items():
            peak = float(peaks[f"{name}/peak"])
            if not peak < float("inf"):
                raise GraphError(f"tensor {name} of the graph is not finite on the pictures it was tried on")
            self.found[name] = max(before, peak)


def largest_magnitudes(model: onnx.ModelProto, images: Image) -> dict[str, float]:
    """The magnitudes on ``images`` (B 3 H W) alone. Raises as ``Magnitudes`` does."""
    magnitudes = Magnitudes(model)
    magnitudes.see(images)
    return magnitudes.found


def magnitudes_by_operator(model: onnx.ModelProto, magnitudes: Mapping[str, float]) -> dict[str, float]:
    """Magnitudes of ``model``'s tensors, by the operator that computes each: for another size's graph."""
    return {key: magnitudes[name] for name, key in _operators(model).items() if name in magnitudes}


def magnitudes_from_operators(model: onnx.ModelProto, by_operator: Mapping[str, float]) -> dict[str, float]:
    """Undoes ``magnitudes_by_operator``, for the operators of ``model`` that are known."""
    return {name: by_operator[key] for name, key in _operators(model).items() if key in by_operator}


def _operators(model: onnx.ModelProto) -> dict[str, str]:
    """Tensor -> the name of its operator, which says the module, and which output of it the tensor is."""
    return {
        name: f"{node.name}:{index}" for node in model.graph.node for index, name in enumerate(node.output)
    }
