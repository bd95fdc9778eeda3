"""A graph of ours: an ONNX model and its description, as one value that is read, changed and written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from measnet.description import GraphDescription
from measnet.errors import GraphError, OutputError
from measnet.onnx_file import DATA_SEAL, SEAL, check_graph, sealed
from measnet.whole_file import write_whole

_NARROW = ".float16"
"""Ends the names of weights that are stored in half."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX model with all its weights inside, and what it says of itself.

    ``model`` is not to be changed: another graph is made of a copy, with ``of`` or ``become``.
    """

    model: onnx.ModelProto = field(repr=False)
    description: GraphDescription

    @classmethod
    def of(cls, model: onnx.ModelProto, description: GraphDescription) -> Graph:
        """``model``, which is given up, with ``description`` written into its metadata."""
        onnx.helper.set_model_props(model, description.to_metadata())
        return cls(model, description)

    @classmethod
    def described(cls, model: onnx.ModelProto, origin: str = "the model") -> Graph:
        """``model``, which is given up, with the description that it has in its metadata.

        Raises ``GraphError``, naming ``origin``, when that is missing or damaged.
        """
        for entry in [entry for entry in model.metadata_props if entry.key in (SEAL, DATA_SEAL)]:
            model.metadata_props.remove(entry)  # of a file, not of the graph
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        return cls(model, GraphDescription.from_metadata(metadata, origin))

    def become(self, model: onnx.ModelProto, **changes: Any) -> Graph:
        """The graph that ``model`` makes of this one, with these ``changes`` of the description."""
        return Graph.of(model, replace(self.description, **changes))

    @cached_property
    def content(self) -> bytes:
        """The bytes of its file, sealed as in ``measnet/onnx_file.py``."""
        return sealed(self.model.SerializeToString())

    @property
    def sha256(self) -> str:
        """SHA-256 of ``content``, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, path: Path) -> None:
        """Writes the file, as a whole, and makes its folder. Raises ``OutputError``."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {path.parent}: {error.strerror}") from None
        write_whole(path, self.content)

    def takes(self, size: tuple[int, int] | None) -> str:
        """``any size``, ``72x104 pixels (...)``, for frames of ``size``; and which bytes, if it does."""
        order = self.description.channel_order.upper()
        form = f", {order} bytes in and out" if self.description.takes_bytes else ""
        taken = self.description.static_size
        if taken is None or size is None:
            return f"any size{form}"
        padded = f" (frames of {size[0]}x{size[1]} are padded by reflection)" if taken != size else ""
        return f"{taken[0]}x{taken[1]} pixels{padded}{form}"


def read_graph(path: Path) -> Graph:
    """The graph in one of our ONNX files, checked, with weights put inside that lie in a file beside it.

    (``onnx.load`` does neither, and refuses a file of weights that an installer has linked into place.)
    Raises ``GraphError`` when ``path`` cannot be read, is not one of ours, or must not be given to a library
    (``measnet/onnx_file.py``).
    """
    try:
        content = path.read_bytes()
        check_graph(content, path)
        model = onnx.load_model_from_string(content)
        inside = not any(uses_external_data(tensor) for tensor in model.graph.initializer)
        if not inside:
            take_in(model, path.parent)
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror}") from None
    except DecodeError:
        raise GraphError(f"{path} is no ONNX file, or a damaged one") from None
    graph = Graph.described(model, str(path))
    if inside:
        graph.__dict__["content"] = content  # to the byte, whatever wrote it
    return graph


def take_in(model: onnx.ModelProto, folder: Path) -> None:
    """Puts all external constants of a checked ``model`` inside it."""
    files: dict[str, bytes] = {}
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            if info.location not in files:
                files[info.location] = (folder / info.location).read_bytes()
            start = info.offset or 0
            end = None if info.length is None else start + info.length
            tensor.raw_data = files[info.location][start:end]
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
    undo_widening(model)
    load_external_data_for_model(model, str(folder))  # of attributes, where others keep some


def widen(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Marks ``tensor`` as float16, under another name; returns the node that makes it float32 again."""
    name = tensor.name
    tensor.name, tensor.data_type = f"{name}{_NARROW}", onnx.TensorProto.FLOAT16
    return onnx.helper.make_node(
        "Cast", [tensor.name], [name], name=f"{name}/Cast{_NARROW}", to=onnx.TensorProto.FLOAT
    )


def undo_widening(model: onnx.ModelProto) -> None:
    """Makes the weights of a bundled graph float32 ones, as if it had never been stored.

    Changes ``model``. Weights that still lie in another file stay as they are.
    """
    narrow = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.name.endswith(_NARROW) and not uses_external_data(tensor)
    }
    nodes = []
    for node in model.graph.node:
        tensor = narrow.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None:
            nodes.append(node)
            continue
        tensor.name, tensor.data_type = node.output[0], onnx.TensorProto.FLOAT
        tensor.raw_data = np.frombuffer(tensor.raw_data, np.float16).astype(np.float32).tobytes()
    if narrow:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
