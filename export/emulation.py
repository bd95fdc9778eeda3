"""A typed graph as float32 that rounds: a machine without 16-bit types computes what one with them would.

ONNX Runtime has no BF16 convolution on the CPU, and runs FP16 there in float32, joining neighbouring
operators without the rounding between them. Here every 16-bit tensor is rounded, so the figures are those of
hardware that computes inside an operator in float32 and stores its result in 16 bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from measnet.export.precision import MOVES

SIXTEEN_BITS = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph with the values of the typed ``model``, rounded wherever it stores 16 bits."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    low = {
        value.name: value.type.tensor_type.elem_type
        for value in inferred.value_info
        if value.type.tensor_type.elem_type in SIXTEEN_BITS
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    for tensor in model.graph.initializer:
        graph.initializer.append(_widened(tensor) if tensor.data_type in SIXTEEN_BITS else tensor)
    for original in model.graph.node:
        node = NodeProto()
        node.CopyFrom(original)
        after: list[NodeProto] = []
        if node.op_type == "Cast" and node.attribute[0].i in SIXTEEN_BITS:
            node.output[0] = f"{original.output[0]}/rounded"
            after.append(_to_float(node.output[0], original.output[0]))
        elif node.op_type not in MOVES:  # moving keeps values that are rounded already
            for index, name in enumerate(original.output):
                if name in low:
                    node.output[index] = f"{name}/exact"
                    after.append(_cast(f"{name}/exact", f"{name}/rounded", low[name]))
                    after.append(_to_float(f"{name}/rounded", name))
        graph.node.extend([node, *after])
    onnx.checker.check_model(result, full_check=True)
    return result


def _widened(tensor: TensorProto) -> TensorProto:
    bits = np.frombuffer(tensor.raw_data, "<u2")
    if tensor.data_type == TensorProto.FLOAT16:
        values = bits.view(np.float16).astype(np.float32)
    else:
        values = (bits.astype(np.uint32) << 16).view(np.float32)
    return onnx.numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name)


def _to_float(source: str, target: str) -> NodeProto:
    return _cast(source, target, TensorProto.FLOAT)


def _cast(source: str, target: str, to: int) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to)
