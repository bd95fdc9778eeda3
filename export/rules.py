"""Rules that TensorRT has for graphs, one function each.

Where a rule says ``TensorRT-RTX 1.7.1`` it was tried there: graphs were parsed by NVIDIA's parser and built,
on a machine without a GPU. ``TensorRT 11`` is read from its Python API. ``measnet`` is a rule of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from measnet.export.check import Finding, all_nodes
from measnet.export.precision import lost, opset_of

TRIED = "TensorRT-RTX 1.7.1"
TENSORRT = "TensorRT 11"
OURS = "measnet"

OPSETS = range(17, 29)
LARGEST_K = 3840
LARGE_CONSTANT = 64 << 20  # bytes
ONNX_DOMAINS = ("", "ai.onnx")
SIXTEEN_BITS = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
NAMES = {value: name for name, value in TensorProto.DataType.items()}

REFUSED = {
    "NonZero": (
        "NonZero gives a result whose shape depends on data; TensorRT-RTX refuses it, and TensorRT needs an "
        "output allocator for it and cannot capture a CUDA graph",
        "choose with TopK, GatherElements, ScatterElements or Where, which keep their shapes",
    ),
    "DFT": (
        "DFT is refused by TensorRT-RTX, and by TensorRT before 11.2",
        "a few frequencies are a MatMul with constant cosines and sines",
    ),
    **{
        name: (f"{name} is unknown to TensorRT's parser", remedy)
        for names, remedy in (
            ("BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot", "compute with Mul, Div and Mod instead"),
            ("Col2Im MaxUnpool DeformConv", "write it with Conv, Resize or GridSample"),
            ("Compress Unique", "choose with TopK or Where, which keep their shapes"),
            (
                "ConvInteger MatMulInteger QLinearConv QLinearMatMul DynamicQuantizeLinear",
                "quantize with QuantizeLinear and DequantizeLinear around ordinary operators",
            ),
            (
                "SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceAt SequenceLength "
                "SequenceMap SplitToSequence ConcatFromSequence",
                "use Concat and Split on tensors",
            ),
            (
                "StringNormalizer StringConcat StringSplit RegexFullMatch TfIdfVectorizer",
                "handle text outside the graph",
            ),
        )
        for name in names.split()
    },
}

# TensorRT's DataType has no such type.
FOREIGN_TYPES = tuple(
    getattr(TensorProto, name)
    for name in ("INT16", "UINT16", "UINT32", "UINT64", "STRING", "COMPLEX64", "COMPLEX128")
)

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

TRIED_RESIZE = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


class Graph:
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


class Slot(NamedTuple):
    """One operand of an operator."""

    name: str
    variable: str
    """The type variable of ONNX's schema that it shares with other operands."""


def domains(graph: Graph) -> Iterator[Finding]:
    own = {function.domain for function in graph.model.functions}
    for node in graph.nodes:
        if node.domain in ONNX_DOMAINS:
            continue
        if node.domain in own:
            yield _at(node, "warning", "domain", "a function of the file's own; not tried", "inline it", OURS)
        else:
            yield _at(
                node,
                "error",
                "domain",
                f"{node.op_type} is of the domain {node.domain!r}, known to its own runtime alone",
                "export it without optimisations of that runtime, or ship the plugin",
                OURS,
            )


def opset(graph: Graph) -> Iterator[Finding]:
    if graph.opset not in OPSETS:
        yield Finding(
            "warning" if graph.opset else "error",
            "opset",
            f"the graph asks for opset {graph.opset}; {OPSETS.start} to {OPSETS.stop - 1} were tried",
            "export it for opset 20",
            source=TRIED,
        )


def known_operators(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.domain in ONNX_DOMAINS and not onnx.defs.has(node.op_type, graph.opset, ""):
            yield _at(
                node,
                "error",
                "operator",
                f"opset {graph.opset} of ONNX has no operator {node.op_type}",
                "check the opset that the graph asks for",
                "onnx",
            )


def refused_operators(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.domain in ONNX_DOMAINS and node.op_type in REFUSED:
            message, remedy = REFUSED[node.op_type]
            yield _at(node, "error", "refused", message, remedy, TRIED)


def control_flow(graph: Graph) -> Iterator[Finding]:
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


def top_k(graph: Graph) -> Iterator[Finding]:
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


def scatter(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type in ("ScatterElements", "ScatterND"):
            reduction = _text(node, "reduction", "none")
            if reduction != "none":
                yield _at(
                    node,
                    "error",
                    "scatter",
                    f"the reduction {reduction!r} is refused, only 'none' is taken",
                    "scatter into separate places and add afterwards, or multiply with a OneHot",
                    TRIED,
                )


def resize(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type != "Resize":
            continue
        if _number(node, "antialias"):
            yield _at(
                node,
                "error",
                "resize",
                "antialias=1 is refused",
                "blur with a Conv first, or average with AveragePool",
                TRIED,
            )
        mode = _text(node, "coordinate_transformation_mode", "half_pixel")
        policy = _text(node, "keep_aspect_ratio_policy", "stretch")
        for setting in ([mode] if mode not in TRIED_RESIZE else []) + [policy] * (policy != "stretch"):
            yield _at(
                node, "warning", "resize", f"{setting!r} was not tried", f"use one of {TRIED_RESIZE}", TRIED
            )


def constant_operands(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        for operator, what in (("CumSum", "the axis"), ("OneHot", "the depth")):
            if node.op_type == operator and len(node.input) > 1 and node.input[1] not in graph.constants:
                yield _at(
                    node,
                    "error",
                    "constant-operand",
                    f"{what} of {operator} is computed, and must be a constant when the engine is built",
                    f"make {what} a constant",
                    TRIED,
                )


def quantization(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:
            continue
        zero = graph.values(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None and zero.dtype.kind in "iu" and zero.any():
            yield _at(node, "error", "zero-point", "the zero point is not 0", "quantize symmetrically", TRIED)
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


def types(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        kinds = {graph.types.get(name) for name in (*node.input, *node.output)}
        for kind in FOREIGN_TYPES:
            if kind in kinds:
                yield _at(
                    node, "error", "type", f"TensorRT has no type {NAMES[kind]}", "cast it to INT32", TENSORRT
                )
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


def mixed_types(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        found: dict[str, set[int]] = {}
        for slot in _slots(node, graph.opset):
            if slot.name in graph.types:
                found.setdefault(slot.variable, set()).add(graph.types[slot.name])
        for kinds in found.values():
            if len(kinds) > 1:
                mixed = " and ".join(sorted(NAMES.get(kind, str(kind)) for kind in kinds))
                yield _at(
                    node,
                    "error",
                    "mixed-types",
                    f"{node.op_type} mixes {mixed}, scales, biases and constants included",
                    "cast its operands to one type",
                    TRIED,
                )


def delicate_operators(graph: Graph) -> Iterator[Finding]:
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


def routers(graph: Graph) -> Iterator[Finding]:
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


def constants(graph: Graph) -> Iterator[Finding]:
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


def _float_constant(graph: Graph, name: str, users: list[NodeProto]) -> Iterator[Finding]:
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


def _small_constant(graph: Graph, name: str, users: list[NodeProto]) -> Iterator[Finding]:
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


def dead_nodes(graph: Graph) -> Iterator[Finding]:
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


def casts(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        before = graph.maker.get(node.input[0]) if node.op_type == "Cast" and node.input else None
        if before is not None and before.op_type == "Cast":
            kinds = {graph.types.get(name) for name in (before.input[0], node.input[0], node.output[0])}
            if kinds <= {TensorProto.FLOAT, *SIXTEEN_BITS}:
                yield _at(node, "warning", "casts", "a Cast of a Cast", "cast once", OURS)


def dimensions(graph: Graph) -> Iterator[Finding]:
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


RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    domains,
    opset,
    known_operators,
    refused_operators,
    control_flow,
    top_k,
    scatter,
    resize,
    constant_operands,
    quantization,
    types,
    mixed_types,
    delicate_operators,
    routers,
    constants,
    dead_nodes,
    casts,
    dimensions,
)


def _at(node: NodeProto, level: str, rule: str, message: str, remedy: str, source: str) -> Finding:
    place = node.name or f"the {node.op_type} that makes {next(iter(node.output), 'nothing')}"
    assert level in ("error", "warning", "note")
    return Finding(level, rule, message, remedy, (place,), node.op_type, source)  # type: ignore[arg-type]  # a Level


def _slots(node: NodeProto, opset: int) -> Iterator[Slot]:
    """The operands and results of a node that share a type variable in ONNX's schema."""
    if node.domain not in ONNX_DOMAINS or not onnx.defs.has(node.op_type, opset, ""):
        return
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if not formal:
                return
            parameter = formal[min(index, len(formal) - 1)]
            if name and parameter.type_str in variables and parameter.is_homogeneous:
                yield Slot(name, parameter.type_str)


def _text(node: NodeProto, name: str, default: str) -> str:
    return next((a.s.decode(errors="replace") for a in node.attribute if a.name == name), default)


def _number(node: NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _bytes_of(kind: int) -> float:
    try:
        return float(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return 0.0
