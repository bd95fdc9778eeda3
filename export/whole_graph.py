"""Reads a graph file as a whole: checked, and with the weights that lie in a file beside it put inside.

``onnx.load`` does neither, and refuses a file of weights that an installer has linked into place.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from measnet.description import GraphDescription
from measnet.errors import GraphError
from measnet.onnx_file import DATA_SEAL, SEAL, check_graph, sealed


def read_graph(path: Path) -> tuple[bytes, onnx.ModelProto, GraphDescription]:
    """The bytes of one of our ONNX files as they are with its weights inside, the model, and what it says of
    itself.

    Raises ``GraphError`` when ``path`` cannot be read, is not one of ours, or must not be given to a library
    (``measnet/onnx_file.py``).
    """
    try:
        content = path.read_bytes()
        check_graph(content, path)
        model = onnx.load_model_from_string(content)
        if any(uses_external_data(tensor) for tensor in model.graph.initializer):
            _take_in(model, path.parent)
            remove_seals(model)
            content = sealed(model.SerializeToString())
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror}") from None
    except DecodeError:
        raise GraphError(f"{path} is no ONNX file, or a damaged one") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return content, model, GraphDescription.from_metadata(metadata, str(path))


def remove_seals(model: onnx.ModelProto) -> None:
    """Removes what an earlier file of ``model`` said of its bytes and of the file beside it."""
    for entry in [entry for entry in model.metadata_props if entry.key in (SEAL, DATA_SEAL)]:
        model.metadata_props.remove(entry)


def _take_in(model: onnx.ModelProto, folder: Path) -> None:
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
    load_external_data_for_model(model, str(folder))  # of attributes, where others keep some
