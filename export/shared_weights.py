"""A graph that stores no large weights of its own: they are bytes of another graph's file beside it.

ONNX lets a tensor's data lie in another file of the same folder, at an offset. Two graphs of the same network
hold the same tensors, so the second one need not store them again.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from measnet.errors import UsageError

SMALL = 1024  # bytes; below this a tensor stays where it is


def share_weights(model: onnx.ModelProto, holder: Path) -> None:
    """Lets the tensors of ``model`` point into the file ``holder``, which must stay beside it, unchanged.

    Raises ``UsageError`` when a tensor is not in there.
    """
    stored = holder.read_bytes()
    for tensor in model.graph.initializer:
        data = tensor.raw_data
        if len(data) < SMALL:
            continue
        offset = stored.find(data)
        if offset < 0:
            raise UsageError(
                f"{holder} does not hold the tensor {tensor.name}; export it from the same weights"
            )
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", holder.name), ("offset", offset), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
