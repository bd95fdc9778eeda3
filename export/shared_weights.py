"""A graph that stores no large weights of its own: they are bytes of a checkpoint beside it.

ONNX lets a tensor's data lie in another file of the same folder, at an offset; a safetensors file holds its
tensors as they are in memory. So a graph need not store again what the checkpoint holds. What the exporter
computed from weights (padded, folded) is in no checkpoint and stays inside.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto

from measnet.errors import UsageError
from measnet.export.whole_graph import remove_seals
from measnet.onnx_file import DATA_SEAL

SMALL = 256  # bytes; below this saying where a tensor lies takes about as much as the tensor
MOST_INSIDE = 0.25
"""The largest share of the weights' bytes that a graph may store itself (the bundled ones: 2 %). One with
more is not of that checkpoint."""


def share_weights(model: onnx.ModelProto, holder: Path) -> None:
    """Lets the tensors of ``model`` point into the safetensors file ``holder``, which must lie beside it.

    The graph says the SHA-256 of ``holder``: rewritten, even with the same tensors, it is refused.
    Raises ``UsageError`` when more than ``MOST_INSIDE`` of the weights is not in there.
    """
    stored = holder.read_bytes()
    offsets = _offsets(stored)
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALL]
    inside = sum(len(tensor.raw_data) for tensor in large if tensor.raw_data not in offsets)
    if inside > MOST_INSIDE * sum(len(tensor.raw_data) for tensor in large):
        raise UsageError(
            f"{holder} does not hold the weights of the graph: {inside} bytes of them are not in there; "
            "export the graph from that file"
        )
    for tensor in large:
        data = tensor.raw_data
        if data not in offsets:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", holder.name), ("offset", offsets[data]), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
    remove_seals(model)
    model.metadata_props.add(key=DATA_SEAL, value=hashlib.sha256(stored).hexdigest())


def _offsets(stored: bytes) -> dict[bytes, int]:
    """The bytes of every tensor of a safetensors file -> where in the file they begin."""
    length = int.from_bytes(stored[:8], "little")
    start = 8 + length
    entries = json.loads(stored[8:start])
    spans = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
    return {stored[start + first : start + last]: start + first for first, last in spans}
