"""A model repository for NVIDIA's Triton Inference Server: a graph of ours, or its plan, and a configuration
that fits it.

    DIR/nano-dynamic/config.pbtxt
    DIR/nano-dynamic/1/model.onnx           or model.plan
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measnet.description import GraphDescription
from measnet.engine_file import EngineFacts, read_engine
from measnet.errors import GraphError, OutputError, UsageError
from measnet.export.graph import Graph, read_graph
from measnet.whole_file import write_whole

# ONNX tensor type -> Triton's name for it.
TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 10: "TYPE_FP16", 16: "TYPE_BF16"}
WARM_UP_SIDE = 256  # pixels, for graphs of any size
LONGEST_WAIT = 2_000  # microseconds that a request may wait for others to share a batch with
GRAPH_BATCH = 8  # frames; of an engine, what it was built for

OURS = {"config.pbtxt", "1", "1/model.onnx", "1/model.plan"}
"""The entries of a model's folder that is ours, and so may be replaced."""


@dataclass(frozen=True)
class _Model:
    """A model to serve: its file, Triton's name of its kind, its inputs and its outputs."""

    name: str
    filename: str
    platform: str
    kind: str
    """Kind of machine: ``KIND_AUTO`` is a GPU where there is one."""

    content: bytes
    graph: Graph
    """The graph; of a plan, the one it was built from."""

    largest_batch: int
    warm_up: tuple[int, ...]
    """Shape of ``image``, without the batch."""

    profiles: int


def write_repository(
    graph: Path, folder: Path, *, engine: Path | None = None, max_batch: int | None = None, instances: int = 1
) -> Path:
    """Writes ``folder/NAME`` for ``graph``, an ONNX of ours, and returns it; it appears as a whole.

    With ``engine``, an engine file for TensorRT that was built from ``graph``, its plan is served instead.
    NAME is the file's own, without its ending; a model of ours under that name is replaced.

    The server batches requests of one size, up to ``max_batch`` frames (by default 8 for a graph, and what it
    was built for with an engine), runs ``instances`` copies per GPU (a graph on the CPU where there is none),
    and sends a black frame through each copy before the first request. The graph's description stands among
    the model's parameters: clients can ask for it.

    Raises ``GraphError`` and ``EngineError`` when a file is not ours, ``UsageError`` for what cannot be
    served or replaced, ``OutputError`` when the folder cannot be written.
    """
    model = _graph_model(graph)
    if engine is not None:
        model = _plan_model(model, engine)
    batch = min(GRAPH_BATCH, model.largest_batch) if max_batch is None else max_batch
    if batch < 1 or instances < 1:
        raise UsageError(f"batches of {batch} and {instances} instances cannot be; both are at least 1")
    if batch > model.largest_batch:
        raise UsageError(
            f"{engine} was built for batches of {model.largest_batch} at most, not {batch}; build one with "
            f"--profile {batch}x..., or ask for smaller ones"
        )
    text = configuration(model, max_batch=batch, instances=instances)
    home = folder / model.name
    if home.exists() and not _is_ours(home):
        raise UsageError(f"{home} holds other files than a model of ours; give -o another folder")
    aside = folder / f".{model.name}.{os.getpid()}.part"
    try:
        (aside / "1").mkdir(parents=True)
        write_whole(aside / "1" / model.filename, model.content)
        write_whole(aside / "config.pbtxt", text)
        _put_in_place(aside, home)
    except OSError as error:
        raise OutputError(f"cannot write the model repository {home}: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return home


def configuration(model: _Model, *, max_batch: int, instances: int) -> str:
    """The text of ``config.pbtxt``."""
    description = model.graph.description
    tensors = model.graph.model.graph
    batches = [2**power for power in range(1, 9) if 2**power <= max_batch]
    # With several profiles the server takes the one that suits a request; unsaid, it takes the first.
    profiles = [_quoted(str(index)) for index in range(model.profiles)] if model.profiles > 1 else []
    lines = [
        f"# {description.variant}, {description.precision}, weights {description.weights_sha256[:16]}.",
        f"# {what_goes_in(description)}",
        f"name: {_quoted(model.name)}",
        f"platform: {_quoted(model.platform)}",
        f"max_batch_size: {max_batch}",
        *(f"input {{ {_tensor(value)} }}" for value in tensors.input),
        *(f"output {{ {_tensor(value)} }}" for value in tensors.output),
        f"instance_group {{ count: {instances} kind: {model.kind} {_listed('profile', profiles)}}}",
    ]
    if max_batch > 1:
        lines.append(
            f"dynamic_batching {{ {_listed('preferred_batch_size', batches)}"
            f"max_queue_delay_microseconds: {LONGEST_WAIT} }}"
        )
    lines.append(f'model_warmup {{ name: "a black frame" batch_size: 1 {_black(tensors.input, model)}}}')
    lines += [
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in description.to_metadata().items()
    ]
    return "\n".join(lines) + "\n"


def what_goes_in(description: GraphDescription) -> str:
    """Describes the input for clients, in one line."""
    first, last = ("", " x 3") if description.takes_bytes else ("3 x ", "")
    values = f"{description.channel_order.upper()}, {'0 to 255' if description.takes_bytes else '0 to 1'}"
    if description.static_size is not None:
        height, width = description.static_size
        return f"image: batches of {values}, {first}{height} x {width}{last}."
    rule = description.frame_rule
    sizes = (
        "any size"
        if description.takes_bytes
        else f"H and W at least {rule.minimum}, multiples of {rule.multiple}"
    )
    return f"image: batches of {values}, {first}H x W{last}; {sizes}."


def _black(inputs: Sequence[Any], model: _Model) -> str:
    """Zeros for every input; a steerable graph warms up on it, although a window of zeros is no picture."""
    height, width = model.warm_up[:2] if model.graph.description.takes_bytes else model.warm_up[1:]
    shapes = {"image": model.warm_up, "window": (1, height, width)}
    return "".join(
        f"inputs {{ key: {_quoted(value.name)} value {{ data_type: {_type(value)} "
        f"{_listed('dims', shapes.get(value.name) or _dims(value))}zero_data: true }} }} "
        for value in inputs
    )


def _graph_model(path: Path) -> _Model:
    graph = read_graph(path)
    description = graph.description
    size = description.static_size or description.frame_rule.fit(WARM_UP_SIDE, WARM_UP_SIDE)
    return _Model(
        name=path.stem,
        filename="model.onnx",
        platform="onnxruntime_onnx",
        kind="KIND_AUTO",
        content=graph.content,
        graph=graph,
        largest_batch=256,
        warm_up=(*size, 3) if description.takes_bytes else (3, *size),
        profiles=0,
    )


def _plan_model(graph: _Model, path: Path) -> _Model:
    facts, plan = read_engine(path)
    problem = _why_not_served(facts, graph)
    if problem:
        raise UsageError(f"{path} {problem}")
    shapes = [profile["image"] for profile in facts.profiles]
    return _Model(
        name=path.stem,
        filename="model.plan",
        platform="tensorrt_plan",
        kind="KIND_GPU",
        content=plan,
        graph=graph.graph,
        largest_batch=min(largest[0] for _, _, largest in shapes),
        warm_up=shapes[0][1][1:],
        profiles=len(shapes),
    )


def _why_not_served(facts: EngineFacts, graph: _Model) -> str:
    """The reason why Triton cannot serve an engine; "" when it can."""
    if facts.flavour != "tensorrt":
        return "is for TensorRT-RTX, and Triton loads plans of TensorRT alone; serve the ONNX graph instead"
    if facts.graph_sha256 != graph.graph.sha256:
        return f"was not built from {graph.name}.onnx"
    if any(profile["image"][0][0] > 1 for profile in facts.profiles):
        return "takes no single frames; build it with a profile that begins at a batch of 1"
    return ""


def _is_ours(home: Path) -> bool:
    return home.is_dir() and {path.relative_to(home).as_posix() for path in home.rglob("*")} <= OURS


def _put_in_place(aside: Path, home: Path) -> None:
    """``aside`` under the name of ``home``, which it replaces."""
    if not home.exists():
        aside.rename(home)
        return
    old = aside.with_suffix(".old")
    home.rename(old)
    try:
        aside.rename(home)
    except OSError:
        old.rename(home)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _tensor(value: Any) -> str:
    """Name, type and shape of a tensor, without the batch, which Triton adds itself."""
    return f"name: {_quoted(value.name)} data_type: {_type(value)} {_listed('dims', _dims(value))}"


def _dims(value: Any) -> list[int]:
    """Sizes behind the batch; -1 is any."""
    return [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim[1:]]


def _type(value: Any) -> str:
    number = value.type.tensor_type.elem_type
    if number not in TYPES:
        raise GraphError(
            f"the tensor {value.name} has a type that Triton does not serve (ONNX type {number})"
        )
    return TYPES[number]


def _listed(name: str, values: Sequence[object]) -> str:
    return f"{name}: [ {', '.join(map(str, values))} ] " if values else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
