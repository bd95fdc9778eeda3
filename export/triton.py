"""A model repository for NVIDIA's Triton Inference Server: our graph, and a configuration that fits it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measnet.description import GraphDescription
from measnet.errors import GraphError, OutputError, UsageError
from measnet.whole_file import write_whole

# ONNX tensor type -> Triton's name for it.
TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 10: "TYPE_FP16", 16: "TYPE_BF16"}
WARM_UP_SIDE = 256  # pixels, for graphs of any size
LONGEST_WAIT = 2_000  # microseconds that a request may wait for others to share a batch with


def write_repository(graph: Path, folder: Path, *, max_batch: int = 8, instances: int = 1) -> Path:
    """Writes ``folder/NAME/config.pbtxt`` and ``folder/NAME/1/model.onnx``; returns ``folder/NAME``.

    NAME is the graph's file name without its ending. The server batches requests of one size, up to
    ``max_batch`` frames, runs ``instances`` copies per GPU (or on the CPU where there is none), and sends one
    frame through each copy before the first request.

    Raises ``GraphError`` when ``graph`` is not ours, ``UsageError`` for settings that cannot be served,
    ``OutputError`` when the folder cannot be written.
    """
    import onnx

    if max_batch < 1 or instances < 1:
        raise UsageError(f"max_batch is {max_batch} and instances {instances}; both must be at least 1")
    try:
        model = onnx.load(str(graph), load_external_data=False)
    except Exception as error:  # the protobuf of a stranger may fail in any way
        raise GraphError(f"{graph} is not a sound ONNX file: {type(error).__name__}") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    description = GraphDescription.from_metadata(metadata, str(graph))
    home = folder / graph.stem
    try:
        (home / "1").mkdir(parents=True, exist_ok=True)
        aside = home / "1" / "model.onnx.part"
        shutil.copyfile(graph, aside)
        aside.replace(home / "1" / "model.onnx")
    except OSError as error:
        raise OutputError(f"cannot write the model repository {home}: {error.strerror}") from None
    text = configuration(graph.stem, model.graph, description, max_batch=max_batch, instances=instances)
    write_whole(home / "config.pbtxt", text.encode())
    return home


def configuration(
    name: str, graph: Any, description: GraphDescription, *, max_batch: int, instances: int
) -> str:
    """The text of ``config.pbtxt`` for an ONNX ``graph`` (a GraphProto of ours)."""
    size = description.static_size or description.size_rule.fit(WARM_UP_SIDE, WARM_UP_SIDE)
    batches = [2**power for power in range(1, 8) if 2**power <= max_batch]
    lines = [
        f"# {description.variant}, {description.precision}, weights {description.weights_sha256[:16]}.",
        f"# {metadata_line(description)}",
        f"name: {_quoted(name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {max_batch}",
        *(f"input {{ {_tensor(value)} }}" for value in graph.input),
        *(f"output {{ {_tensor(value)} }}" for value in graph.output),
        f"instance_group {{ count: {instances} kind: KIND_AUTO }}",
        f"dynamic_batching {{ {_listed('preferred_batch_size', batches)}"
        f"max_queue_delay_microseconds: {LONGEST_WAIT} }}",
        f'model_warmup {{ name: "one frame" batch_size: 1 inputs {{ key: "image" value {{ '
        f"data_type: {_type(graph.input[0])} dims: [ 3, {size[0]}, {size[1]} ] random_data: true }} }} }}",
    ]
    return "\n".join(lines) + "\n"


def metadata_line(description: GraphDescription) -> str:
    """What a client has to know of the input, in one line."""
    if description.static_size is not None:
        height, width = description.static_size
        return f"image: batches of RGB, 0 to 1, 3 x {height} x {width}."
    rule = description.size_rule
    return (
        f"image: batches of RGB, 0 to 1, 3 x H x W; H and W at least {rule.minimum}, "
        f"multiples of {rule.multiple}."
    )


def _tensor(value: Any) -> str:
    """Name, type and shape of a tensor, without the batch, which Triton adds itself."""
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim[1:]]
    return f"name: {_quoted(value.name)} data_type: {_type(value)} dims: [ {', '.join(map(str, dims))} ]"


def _type(value: Any) -> str:
    number = value.type.tensor_type.elem_type
    if number not in TYPES:
        raise GraphError(
            f"the tensor {value.name} has a type that Triton does not serve (ONNX type {number})"
        )
    return TYPES[number]


def _listed(name: str, values: Sequence[int]) -> str:
    return f"{name}: [ {', '.join(map(str, values))} ] " if values else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
