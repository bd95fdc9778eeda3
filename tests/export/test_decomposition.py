"""An export that runs once computes what one that runs three times does; what is unforeseen runs again."""

from __future__ import annotations

import warnings
from collections.abc import Container
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from measnet.export import decomposition
from measnet.export.decomposition import decomposed_in_place, is_simple, promoted_in_place


class Parts(nn.Module):
    """Every operator that is taken apart; the cast is an output."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.rand(4)
        self.norm.running_var = torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        unit = F.normalize(self.norm(x), dim=1) + x.mean(dim=1, keepdim=True).expand_as(x)
        return 1 - unit.square(), (x * 9).to(torch.uint8)


class Mixed(nn.Module):
    """Operands of several types: numbers, sizes, whole numbers and truths, and what is computed of them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(x.shape[-1]) - x.shape[-2]
        bright = x > 0.5
        return (1 - x) * bright + places * x / x.shape[0], (places / 2 >= x.mean()).sum() * 3


class WritesInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        doubled = x * 2
        doubled.add_(1)
        return doubled


class Batch(nn.Module):
    """Training is not inference: the norm is of the batch itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True)


class Asked:
    """Tells which programs are simple, and keeps of each whether it was not: then it is traced again."""

    def __init__(self) -> None:
        self.traced_again: list[bool] = []

    def __call__(self, module: GraphModule, table: Container[object]) -> bool:
        simple = decomposition.is_simple(module, table)
        self.traced_again.append(not simple)
        return simple


def outputs(module: nn.Module, x: Tensor) -> tuple[list[str], list[np.ndarray]]:
    """The operators of the exported graph, and what ONNX Runtime makes of ``x`` with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own insides
        program = torch.onnx.export(module.eval(), (x,), dynamo=True, opset_version=20, verbose=False)
    assert program is not None
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    operators = [node.op_type for node in program.model_proto.graph.node]
    return operators, session.run(None, {session.get_inputs()[0].name: x.numpy()})


def test_what_is_taken_apart_computes_the_same() -> None:
    module, x = Parts().eval(), torch.rand(2, 4, 6, 5)
    asked = Asked()
    with decomposed_in_place(asked):
        operators, ours = outputs(module, x)
    assert asked.traced_again == [False]
    assert operators.count("Expand") == 1  # of the sum; a division does without
    for mine, expected in zip(ours, module(x), strict=True):
        assert mine.dtype == expected.detach().numpy().dtype
        assert np.allclose(mine, expected.detach().numpy(), atol=1e-5)
    outputs(module, x)
    assert asked.traced_again == [False]  # torch's own way is back


def test_operands_are_promoted_as_torch_does_it_and_nothing_else_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, x = Mixed().eval(), torch.rand(2, 4, 6, 5)
    theirs, expected = outputs(module, x)
    run = list[str]()
    plain = torch.fx.Interpreter.run_node

    def watched(self: torch.fx.Interpreter, node: torch.fx.Node) -> Any:
        if node.op == "call_function":
            run.append(str(node.target))
        return plain(self, node)

    monkeypatch.setattr(torch.fx.Interpreter, "run_node", watched)
    with decomposed_in_place(), promoted_in_place():
        operators, ours = outputs(module, x)
    assert operators == theirs and "Cast" in operators
    for mine, other, own in zip(ours, expected, module(x), strict=True):
        assert np.array_equal(mine, other) and np.allclose(mine, own.numpy())
    assert run and "aten.gt.Scalar" not in run  # which has nothing to promote
    run.clear()
    outputs(module, x)
    assert "aten.gt.Scalar" in run, "torch's own way is back"


def test_a_program_with_anything_else_is_traced_again() -> None:
    module, x = WritesInPlace(), torch.rand(2, 4, 6, 5)
    asked = Asked()
    with decomposed_in_place(asked):
        _, (mine,) = outputs(module, x)
    assert asked.traced_again == [True]
    assert np.allclose(mine, module(x).numpy())


def test_a_norm_in_training_is_not_taken_apart() -> None:
    program = torch.export.export(Batch(), (torch.rand(2, 4, 6, 5),))
    assert not is_simple(program.graph_module, ())
