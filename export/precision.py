"""float32 graph -> strongly typed graph: 16-bit tensors where that is safe, float32 islands elsewhere.

Precision lives in the graph alone, so that TensorRT (10.12 and later, strongly typed) and ONNX Runtime
compute the same. Every operator gets one type for all its tensors; casts stand only where an island begins
or ends, one per tensor and type. Inputs and outputs of the graph stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from measnet.errors import GraphError
from measnet.export.graph import undo_widening
from measnet.export.islands import island_of

HalfPrecision = Literal["fp16", "bf16"]

ELEMENT_TYPE = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
HEADROOM = 4
"""The factor by which a 16-bit tensor must be able to exceed anything measured."""

OPSET = {"fp16": 20, "bf16": 22}
"""The least opset of the graph. Convolutions take bfloat16 from opset 22 on; our operators compute the same
in 20 and 22."""

# They move numbers without changing them, so they take the type of their surroundings.
MOVES = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
# They look at a tensor of any type and return whole numbers.
LOOKS = frozenset({"Cast", "Shape", "Size"})

FULL: Final = "fp32"
Type = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class TypedGraph:
    """A typed graph, and which of its operators stayed float32 and why."""

    model: onnx.ModelProto
    precision: HalfPrecision

    reasons: dict[str, str]
    """For every operator on real numbers that was there before: why it is float32; "" where it is not."""


def typed_graph(
    model: onnx.ModelProto,
    precision: HalfPrecision,
    *,
    keep: Callable[[NodeProto], str | None] | None = None,
    ranges: Mapping[str, float] | None = None,
) -> TypedGraph:
    """A copy of ``model``, whose real numbers are all float32, with 16-bit tensors.

    ``keep`` says of an operator why it stays float32, None if it need not; the default is the islands of
    ``export/islands.py``. ``ranges`` has the largest magnitude seen of tensors by name
    (``export/ranges.py``): an operator whose tensors come near the largest 16-bit number stays float32.

    An operator also stays float32 when ONNX has no 16-bit form of it, or when a constant of it would
    become infinite or nothing but 0. Raises ``GraphError`` for a graph with branches or loops.
    """
    return _Typing(model, precision, keep or _why_island, ranges or {}).run()


def _why_island(node: NodeProto) -> str | None:
    island = island_of(node)
    return None if island is None else island.name


class _Typing:
    """One graph on its way to a typed one."""

    def __init__(
        self,
        model: onnx.ModelProto,
        precision: HalfPrecision,
        keep: Callable[[NodeProto], str | None],
        ranges: Mapping[str, float],
    ) -> None:
        if any(a.type in (a.GRAPH, a.GRAPHS) for node in model.graph.node for a in node.attribute):
            raise GraphError("a graph with branches or loops (If, Loop, Scan) cannot be typed")
        self.precision = precision
        self.low: Type = precision
        self.keep = keep
        self.ranges = ranges
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        undo_widening(self.model)  # of a bundled graph that was loaded without read_graph
        self.opset = max(OPSET[precision], opset_of(model))
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.floats = float_tensors(self.model)
        self.nodes = list(self.model.graph.node)
        self.users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.type_of: dict[str, Type] = {}  # of operators, by name
        self.reasons: dict[str, str] = {}

    def run(self) -> TypedGraph:
        for node in self.nodes:
            if node.op_type not in MOVES | LOOKS and self._is_real(node):
                self._decide(node)
        self._decide_moves()
        self._rewrite()
        self.model.opset_import[0].version = self.opset
        onnx.checker.check_model(self.model, full_check=True)
        return TypedGraph(self.model, self.precision, self.reasons)

    def _is_real(self, node: NodeProto) -> bool:
        """Tells whether the operator computes on real numbers."""
        return any(name in self.floats for name in (*node.input, *node.output))

    def _decide(self, node: NodeProto) -> None:
        why = self.keep(node) or self._why_not(node)
        self.type_of[node.name] = FULL if why else self.low
        self.reasons[node.name] = why or ""

    def _why_not(self, node: NodeProto) -> str | None:
        """The reason why an operator cannot be 16-bit, whatever is wished for; None if it can."""
        if node.op_type == "ConstantOfShape":
            return "the number it repeats is float32, and TensorRT repeats no other"
        slots = self._slots(node)
        if not any(name in self.floats for name in slots):
            return f"{node.op_type} has no {self.precision.upper()} form"
        for name in slots:
            if name in self.constants and lost(_values(self.constants[name]), self.precision):
                return f"the constant {name} cannot be {self.precision.upper()}"
            if self.ranges.get(name, 0.0) * HEADROOM > LARGEST[self.precision]:
                return f"values of up to {self.ranges[name]:.3g} come near {self.precision.upper()}'s limit"
        return None

    def _slots(self, node: NodeProto) -> set[str]:
        """The real tensors of ``node`` that ONNX allows to be 16-bit."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        wanted = "tensor(float16)" if self.precision == "fp16" else "tensor(bfloat16)"
        allowed = {c.type_param_str: wanted in c.allowed_type_strs for c in schema.type_constraints}
        slots = set()
        for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for index, name in enumerate(names):
                parameter = formal[min(index, len(formal) - 1)]
                if name in self.floats and allowed.get(parameter.type_str, False):
                    slots.add(name)
        return slots

    def _decide_moves(self) -> None:
        """Moves are 16-bit where all that follows is, or all that goes in; float32 otherwise."""
        moves = [node for node in self.nodes if node.op_type in MOVES and self._is_real(node)]
        wanted: dict[str, set[Type]] = {}
        for node in reversed(moves):
            wanted[node.name] = {
                want
                for name in node.output
                for user in self.users.get(name, [])
                if user.op_type not in LOOKS
                for want in wanted.get(user.name, {self.type_of.get(user.name, FULL)})
            }
        for node in moves:
            given = {
                self.type_of.get(self.maker[name].name, FULL) if name in self.maker else FULL
                for name in node.input
                if name in self.floats and name not in self.constants
            }
            small = wanted[node.name] == {self.low} or given == {self.low}
            self.type_of[node.name] = self.low if small and self._why_not(node) is None else FULL

    def _rewrite(self) -> None:
        """Every operator reads its tensors in its own type; casts and constants are made once each."""
        graph = self.model.graph
        del graph.node[:]
        outputs = {value.name for value in graph.output}
        kept: list[TensorProto] = []
        made: set[str] = set()
        for original in self.nodes:
            node = NodeProto()
            node.CopyFrom(original)
            own = self.type_of.get(node.name, FULL)
            slots = self._slots(node) if node.op_type not in LOOKS and self._is_real(node) else set()
            for index, name in enumerate(original.input):
                if name in self.constants:
                    node.input[index] = renamed = self._in(name, own if name in slots else FULL, FULL)
                    if renamed not in made:
                        kept.append(self._constant(name, renamed))
                        made.add(renamed)
                elif name in self.floats and node.op_type not in LOOKS:
                    theirs = self._stored(name)
                    node.input[index] = renamed = self._in(name, own if name in slots else FULL, theirs)
                    if renamed != name and renamed not in made:
                        graph.node.append(self._cast(name, renamed, own))
                        made.add(renamed)
            produced = [name for name in node.output if name in slots and name in outputs and own != FULL]
            for index, name in enumerate(node.output):
                if name in produced:
                    node.output[index] = f"{name}/{own}"
            graph.node.append(node)
            for name in produced:
                graph.node.append(self._cast(f"{name}/{own}", name, FULL))
                made.add(f"{name}/{own}")
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]

    def _stored(self, name: str) -> Type:
        """The type that a tensor has under its own name."""
        node = self.maker.get(name)
        if node is None or any(name == value.name for value in self.model.graph.output):
            return FULL
        own = self.type_of.get(node.name, FULL)
        return own if own != FULL and name in self._slots(node) else FULL

    @staticmethod
    def _in(name: str, wanted: Type, stored: Type) -> str:
        return name if wanted == stored else f"{name}/{wanted}"

    def _constant(self, name: str, renamed: str) -> TensorProto:
        if renamed == name:
            return self.constants[name]
        return rounded_constant(self.constants[name], renamed, self.precision)

    def _cast(self, source: str, target: str, to: Type) -> NodeProto:
        element = TensorProto.FLOAT if to == FULL else ELEMENT_TYPE[to]
        stem = source.removesuffix(f"/{self.low}")
        maker = self.maker.get(stem)
        module = stem if maker is None else maker.name
        if maker is not None and len(maker.output) > 1:  # a name for each of them
            module = f"{module}.{list(maker.output).index(stem)}"
        return onnx.helper.make_node("Cast", [source], [target], name=f"{module}/to_{to}", to=element)


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors of a graph, constants included."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in inferred.initializer if tensor.data_type == TensorProto.FLOAT}


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a graph asks for; 0 if it asks for none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def lost(values: NDArray[np.float32], precision: HalfPrecision) -> bool:
    """Tells whether 16 bits lose a constant: some of it becomes infinite, or all of it becomes 0.

    A weight that is tiny next to the others of its tensor may become 0 without harm; a floor or an epsilon,
    which is alone in its tensor, may not.
    """
    stored = rounded_to_16_bits(values, precision)
    if not np.isfinite(stored[np.isfinite(values)]).all():
        return True
    return bool(values.any()) and not stored.any()


def rounded_to_16_bits(values: NDArray[np.float32], precision: HalfPrecision) -> NDArray[np.float32]:
    """``values`` as 16 bits hold them, in float32 again."""
    bits = rounded_bits(values, precision)
    if precision == "fp16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded_bits(values: NDArray[np.float32], precision: HalfPrecision) -> NDArray[np.uint16]:
    """The 16 bits of each value, rounded to the nearest, ties to even."""
    values = np.ascontiguousarray(values, np.float32)
    if precision == "fp16":
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (nearest >> np.uint32(16)).astype(np.uint16)


def rounded_constant(tensor: TensorProto, name: str, precision: HalfPrecision) -> TensorProto:
    """``tensor`` (float32) under another name and in 16 bits."""
    bits = rounded_bits(_values(tensor), precision)
    return TensorProto(
        name=name,
        data_type=ELEMENT_TYPE[precision],
        dims=tensor.dims,
        raw_data=bits.astype("<u2").tobytes(),
    )


def _values(tensor: TensorProto) -> NDArray[np.float32]:
    """The values of a constant; none for a constant of whole numbers."""
    if tensor.data_type != TensorProto.FLOAT:
        return np.zeros(0, np.float32)
    return np.asarray(onnx.numpy_helper.to_array(tensor), np.float32)


def modules_of(names: Iterable[str]) -> dict[str, str]:
    """The part of the network that each node belongs to: ``encoder1``, ``fd_mee3``, ``measnet``..."""
    return {name: name.partition("/")[0].partition(".")[0] for name in names}
