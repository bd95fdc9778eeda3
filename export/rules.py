"""Rules for graphs that NVIDIA's parser lacks, one function each: what it takes and should not be given.

Where a rule says ``TensorRT-RTX 1.7.1`` it was tried there: graphs were parsed and built, on a machine
without a GPU. ``TensorRT 11`` is read from its Python API. ``measnet`` is a rule of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from measnet.export.precision import lost, opset_of
from measnet.export.turing import ranks_of, rewritable

TRIED = "TensorRT-RTX 1.7.1"
TENSORRT = "TensorRT 11"
OURS = "measnet"

OPSETS = range(17, 29)
LARGEST_K = 3840
LARGE_CONSTANT = 64 << 20  # bytes
SIXTEEN_BITS = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
NAMES = {value: name for name, value in TensorProto.DataType.items()}

DELICATE = {
    **dict.fromkeys(("Softmax", "LogSoftmax", "Exp", "Log"), "exponentials lose most of 16 bits"),
    **dict.fromkeys(
        ("ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "LpNormalization"),
        "sums over many values overflow or stall in 16 bits",
    ),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool"), "sums over many values stall in 16 bits"),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"),
        "TensorRT 11 computes mean and variance in the input's type",
    ),
}

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing."""

    level: Severity
    """``error``: TensorRT refuses the graph, or it computes something else. ``warning``: it may build and
    still disappoint. ``note``: good to know."""

    rule: str
    """A short name that does not change, for programs."""

    message: str
    """The fault, as a sentence."""

    remedy: str
    """The advice; may be empty."""

    places: tuple[str, ...] = ()
    """The nodes or tensors: ``encoder1.0.attention/TopK``; none when it is the whole file."""

    operator: str = ""
    source: str = ""
    """The source of the rule."""


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every operator of a graph, those inside branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from all_nodes(inner)


class Inspected:
    """A graph, and what can be known about it without running it."""

    def __init__(self, model: onnx.ModelProto, inferred: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(all_nodes(model.graph))
        self.constants = {t.name: t for t in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value" and attribute.HasField("t"):
                        self.constants[node.output[0]] = attribute.t
        graph = inferred.graph
        self.types = {tensor.name: int(tensor.data_type) for tensor in self.constants.values() if tensor.name}
        self.types |= {name: int(tensor.data_type) for name, tensor in self.constants.items()}
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.HasField("tensor_type"):
                self.types[value.name] = int(value.type.tensor_type.elem_type)
        self.ranks = ranks_of(graph)
        self.opset = opset_of(model)
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.ours = any(entry.key == "measnet.format" for entry in model.metadata_props)

    def values(self, name: str) -> NDArray[np.generic] | None:
        """A constant's values; None for what is no constant, or cannot be read here."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        if prod(tensor.dims) > LARGE_CONSTANT or min(tensor.dims, default=1) < 0:
            return None
        try:
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError):  # as long as it says, or of a type that there is: neither
            return None


def opset(graph: Inspected) -> Iterator[Finding]:
    if graph.opset not in OPSETS:
        yield Finding(
            "warning" if graph.opset else "error",
            "opset",
            f"the graph asks for opset {graph.opset}; {OPSETS.start} to {OPSETS.stop - 1} were tried",
            "export it for opset 20",
            source=TRIED,
        )


def control_flow(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type in ("If", "Loop", "Scan"):
            yield _at(
                node,
                "warning",
                "control-flow",
                f"{node.op_type} may keep a CUDA graph from being captured"
                + (", and was not tried" if node.op_type == "Scan" else ""),
                "compute both branches and choose with Where, or unroll the loop",
                TRIED,
            )
        elif node.op_type == "NonMaxSuppression":
            yield _at(
                node,
                "warning",
                "data-dependent",
                "the shape of its result depends on data: an output allocator is needed, and no CUDA graph",
                "choose a fixed number with TopK",
                OURS,
            )


def top_k(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type != "TopK" or len(node.input) < 2:
            continue
        k = graph.values(node.input[1])
        if k is None:
            yield _at(
                node,
                "warning",
                "top-k",
                "K is not a constant, so the shape of its result depends on data",
                "make K a constant",
                TRIED,
            )
        elif k.dtype.kind == "i" and k.size and int(k.max()) > LARGEST_K:
            yield _at(
                node,
                "error",
                "top-k",
                f"K is {int(k.max())}, TensorRT takes at most {LARGEST_K}",
                "choose in two steps, or fewer",
                TRIED,
            )


def quantisation(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
            continue
        stored = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if graph.types.get(stored) in (TensorProto.UINT8, TensorProto.INT32):
            kind = NAMES[graph.types[stored]]
            yield _at(
                node,
                "error",
                "quantized-type",
                f"{node.op_type} on {kind} is refused; INT8 and FP8 are taken",
                "quantize symmetrically to INT8, and leave biases as they are",
                TRIED,
            )


def types(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        kinds = {graph.types.get(name) for name in (*node.input, *node.output)}
        if TensorProto.DOUBLE in kinds and node.op_type != "Cast":
            yield _at(node, "warning", "type", "DOUBLE silently becomes FP32", "compute in float32", TRIED)
        if node.op_type not in ("Cast", "QuantizeLinear", "DequantizeLinear") and TensorProto.UINT8 in kinds:
            yield _at(
                node,
                "warning",
                "type",
                "UINT8 was tried at inputs and outputs of the graph alone, next to a Cast",
                "cast it first",
                TRIED,
            )
    if TensorProto.BFLOAT16 in graph.types.values():
        yield Finding(
            "note", "type", "BF16 needs a GPU of compute capability 8.0 or later", "", source=TENSORRT
        )


def turing_products(graph: Inspected) -> Iterator[Finding]:
    """Gives one note on a float32 graph, and on one that is FP16 elsewhere a warning for each product."""
    products = [
        node
        for node in graph.nodes
        if node.op_type in ("Gemm", "MatMul", "Einsum")
        and {graph.types.get(name) for name in (*node.input[:1], *node.output)} == {TensorProto.FLOAT}
    ]
    if TensorProto.BFLOAT16 in graph.types.values():  # not for these cards anyway
        return
    casts = {node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "Cast"}
    mixed = any(
        graph.types.get(name) == TensorProto.FLOAT16
        for node in graph.nodes
        for name in node.output
        if name not in casts
    )
    constants = dict(graph.constants)
    for name, source in casts.items():  # weights that a bundled graph stores in half
        if source in constants:
            constants[name] = TensorProto(data_type=TensorProto.FLOAT, dims=constants[source].dims)
    refused = [node for node in products if not (mixed and rewritable(node, constants, graph.ranks))]
    if refused and not mixed:
        message = "TensorRT-RTX multiplies no float32 matrices on GPUs of compute capability 7.5"
        yield Finding("note", "turing", message, "for these export it with --fp16", source=TRIED)
    for node in refused if mixed else ():
        yield _at(
            node,
            "warning",
            "turing",
            f"{node.op_type} in FLOAT: TensorRT-RTX builds no such product for compute capability 7.5",
            "make it FP16, or give it a constant factor of two dimensions, which is written otherwise",
            TRIED,
        )


def delicate_operators(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type in DELICATE and node.input and graph.types.get(node.input[0]) in SIXTEEN_BITS:
            kind = NAMES[graph.types[node.input[0]]]
            yield _at(
                node,
                "warning",
                "delicate",
                f"{node.op_type} in {kind}: {DELICATE[node.op_type]}",
                "cast to float32 before it and back after it",
                OURS,
            )


def routers(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type == "TopK" and node.input and graph.types.get(node.input[0]) in SIXTEEN_BITS:
            yield _at(
                node,
                "warning",
                "router",
                "a choice between scores of 16 bits turns out otherwise than in float32 where they are close",
                "keep all that leads to the scores in float32",
                OURS,
            )


def constants(graph: Inspected) -> Iterator[Finding]:
    users: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    total = 0
    for name, tensor in graph.constants.items():
        size = prod(tensor.dims) * _bytes_of(int(tensor.data_type))
        total += size
        if size > LARGE_CONSTANT:
            yield Finding(
                "warning",
                "constant-size",
                f"a constant of {size / 1e6:.0f} MB",
                "if it was folded out of a shape, compute it in the graph",
                (name,),
                source=OURS,
            )
        if tensor.data_type == TensorProto.FLOAT:
            yield from _float_constant(graph, name, users.get(name, []))
        elif tensor.data_type in SIXTEEN_BITS:
            yield from _small_constant(graph, name, users.get(name, []))
    if total > 1 << 30:
        yield Finding("warning", "constant-size", f"constants of {total / 1e9:.1f} GB", "", source=OURS)


def _float_constant(graph: Inspected, name: str, users: list[NodeProto]) -> Iterator[Finding]:
    values = graph.values(name)
    if values is None:
        return
    floats = np.asarray(values, np.float32)
    if np.isnan(floats).any():
        yield Finding("error", "constant", "a constant holds NaN", "export sound weights", (name,))
    elif np.isinf(floats).any():
        yield Finding("warning", "constant", "a constant holds infinity", "use -1e30 or 1e30", (name,))
    elif lost(floats, "fp16"):
        operators = ", ".join(sorted({user.op_type for user in users})) or "what uses it"
        yield Finding(
            "note",
            "constant",
            f"a constant that FP16 would turn into 0 or infinity; {operators} must stay float32",
            "",
            (name,),
            source=OURS,
        )


def _small_constant(graph: Inspected, name: str, users: list[NodeProto]) -> Iterator[Finding]:
    tensor = graph.constants[name]
    kind = NAMES[int(tensor.data_type)]
    values = graph.values(name)
    if values is None:
        return
    floats = np.asarray(values).astype(np.float32)
    operators = sorted({user.op_type for user in users})
    if not np.isfinite(floats).all():
        yield Finding(
            "error",
            "constant",
            f"a constant is infinite or NaN in {kind}, used by {', '.join(operators) or 'nothing'}",
            "keep what uses it in float32, or choose a smaller constant",
            (name,),
            source=OURS,
        )
    alone = {"Div", "Clip", "Max", "Add", "Pow", "Log", "Sqrt", "Reciprocal"}
    if floats.size == 1 and not floats.any() and alone & set(operators):
        yield Finding(
            "warning",
            "constant",
            f"a constant is 0 in {kind}, used by {', '.join(operators)}; a floor of 1e-12 becomes 0 there",
            "if it was one, keep what uses it in float32",
            (name,),
            source=OURS,
        )


def dead_nodes(graph: Inspected) -> Iterator[Finding]:
    top = graph.model.graph
    wanted = {value.name for value in top.output}
    for node in reversed(top.node):
        if wanted.isdisjoint(node.output):
            yield _at(node, "warning", "dead", "nothing uses its result", "export it again without it", OURS)
            continue
        for inner in (node, *(n for a in node.attribute if a.HasField("g") for n in all_nodes(a.g))):
            wanted.update(inner.input)
        wanted.update(v.name for a in node.attribute if a.HasField("g") for v in a.g.output)
    unused = [name for name in (t.name for t in top.initializer) if name not in wanted]
    if unused:
        yield Finding("note", "dead", "constants that nothing uses", "", tuple(unused), source=OURS)


def casts(graph: Inspected) -> Iterator[Finding]:
    for node in graph.nodes:
        before = graph.maker.get(node.input[0]) if node.op_type == "Cast" and node.input else None
        if before is not None and before.op_type == "Cast":
            kinds = {graph.types.get(name) for name in (before.input[0], node.input[0], node.output[0])}
            if kinds <= {TensorProto.FLOAT, *SIXTEEN_BITS}:
                yield _at(node, "warning", "casts", "a Cast of a Cast", "cast once", OURS)


def dimensions(graph: Inspected) -> Iterator[Finding]:
    given = set(graph.constants)
    for value in graph.model.graph.input:
        if value.name in given or not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            yield Finding(
                "error",
                "dimensions",
                "an input without a shape, not even its number of dimensions",
                "declare the shape, free dimensions by name",
                (value.name,),
                source=OURS,
            )
        elif not graph.ours:  # ours say their size rule in the metadata
            free = [
                d.dim_param or f"number {index}"
                for index, d in enumerate(tensor.shape.dim)
                if not d.HasField("dim_value")
            ]
            if free:
                yield Finding(
                    "warning",
                    "dimensions",
                    f"the dimensions {', '.join(free)} are free, and nothing says in which range",
                    "give TensorRT a profile with the smallest, the usual and the largest shape",
                    (value.name,),
                    source=OURS,
                )


RULES: tuple[Callable[[Inspected], Iterator[Finding]], ...] = (
    opset,
    control_flow,
    top_k,
    quantisation,
    types,
    turing_products,
    delicate_operators,
    routers,
    constants,
    dead_nodes,
    casts,
    dimensions,
)


def _at(node: NodeProto, level: Severity, rule: str, message: str, remedy: str, source: str) -> Finding:
    place = node.name or f"the {node.op_type} that makes {next(iter(node.output), 'nothing')}"
    return Finding(level, rule, message, remedy, (place,), node.op_type, source)


def _bytes_of(kind: int) -> float:
    try:
        return float(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return 0.0
