"""Export without tracing everything a second and a third time, which is most of what an export takes.

``torch.onnx.export`` traces a program anew to take operators apart that ONNX lacks. Of what a MEASNet becomes
there are few, and they are taken apart here, in the program as it is. Then it runs the program on shapes to
give operators operands of one type. Here only those are run that have operands of several.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Container, Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

aten = torch.ops.aten


@contextlib.contextmanager
def decomposed_in_place(
    simple: Callable[[GraphModule, Container[object]], bool] = lambda module, table: is_simple(module, table),
) -> Iterator[None]:
    """Programs are decomposed as above meanwhile; the way torch does it where they are not ``simple``."""
    anew = ExportedProgram.run_decompositions

    def run(program: ExportedProgram, table: Any = None, *arguments: Any, **options: Any) -> ExportedProgram:
        if table is None or not simple(program.graph_module, table):
            return anew(program, table, *arguments, **options)
        take_apart(program.graph_module)
        return program

    ExportedProgram.run_decompositions = run  # type: ignore[method-assign]  # torch takes no other way
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = anew  # type: ignore[method-assign]  # torch takes no other way


@contextlib.contextmanager
def promoted_in_place() -> Iterator[None]:
    """Lets torch's export promote operands to one type without running nodes that need no promotion. Does
    nothing with versions of torch that have these rules elsewhere."""
    try:
        from torch.onnx._internal.fx.passes import type_promotion as torchs
    except ImportError:
        yield
        return
    interpreter: Any = getattr(torchs, "_TypePromotionInterpreter", None)
    if not hasattr(interpreter, "_maybe_promote_node"):
        yield
        return
    anew = interpreter.run_node

    def run_node(self: Any, node: Node) -> Any:
        if node.op != "call_function" or "val" not in node.meta:
            return anew(self, node)
        rule = torchs.get_type_promotion_rule(node, self.type_promotion_table)
        if rule is not None:
            with self._set_current_node(node):
                self._maybe_promote_node(node, rule)
        return node.meta["val"]

    interpreter.run_node = run_node
    try:
        yield
    finally:
        interpreter.run_node = anew


def is_simple(module: GraphModule, table: Container[object]) -> bool:
    """Tells whether ``module`` writes to no tensor, and ``APART`` covers all that ``table`` decomposes."""
    return not any(node.op == "call_function" and _is_hard(node, table) for node in module.graph.nodes)


def _is_hard(node: Node, table: Container[object]) -> bool:
    if node.target is aten.batch_norm.default:
        return node.args[5] is not False  # in training
    if node.target is aten.rsub.Scalar:
        return len(node.args) > 2  # times something
    if node.target in APART:
        return False
    schema = getattr(node.target, "_schema", None)
    return node.target in table or (schema is not None and schema.is_mutable)


def take_apart(module: GraphModule) -> None:
    """Replaces the operators in ``APART``."""
    for node in list(module.graph.nodes):
        if node.target in APART:
            APART[node.target](module, node)
    module.recompile()


def _batch_norm(module: GraphModule, node: Node) -> None:
    """Out of training, it is an operator of its own."""
    image, weight, bias, mean, variance, _, momentum, epsilon, _ = node.args
    with module.graph.inserting_before(node):
        normed = module.graph.call_function(
            aten._native_batch_norm_legit_no_training.default,
            (image, weight, bias, mean, variance, momentum, epsilon),
        )
    value = node.meta["val"]
    normed.meta = {**node.meta, "val": (value, value.new_empty(0), value.new_empty(0))}
    node.target, node.args = operator.getitem, (normed, 0)


def _to(module: GraphModule, node: Node) -> None:
    image, element, *_ = node.args
    node.target, node.args, node.kwargs = aten._to_copy.default, (image,), {"dtype": element}


def _subtracted(module: GraphModule, node: Node) -> None:
    """A tensor, from a number."""
    tensor, number, *_ = node.args
    node.target, node.args = aten.sub.Tensor, (number, tensor)


def _squared(module: GraphModule, node: Node) -> None:
    node.target, node.args = aten.pow.Tensor_Scalar, (*node.args, 2)


def _expanded(module: GraphModule, node: Node) -> None:
    """Leaves out the expansion of a divisor: division broadcasts it."""
    narrow, wide = node.args
    assert isinstance(narrow, Node)
    if all(user.target is aten.div.Tensor and user.args == (wide, node) for user in node.users):
        node.replace_all_uses_with(narrow)
        module.graph.erase_node(node)


def _note(module: GraphModule, node: Node) -> None:
    module.graph.erase_node(node)


APART: dict[object, Callable[[GraphModule, Node], None]] = {
    aten.batch_norm.default: _batch_norm,
    aten.to.dtype: _to,
    aten.rsub.Scalar: _subtracted,
    aten.square.default: _squared,
    aten.expand_as.default: _expanded,
    aten._assert_tensor_metadata.default: _note,
}
"""The function that takes each operator apart."""
