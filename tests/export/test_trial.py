"""A network too large for its graph's size is tried on a smaller graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from measnet.config import VARIANTS
from measnet.export.cli import main
from measnet.export.exact import ExactMEASNet
from measnet.export.graph import read_graph
from measnet.export.make import SMALLER, Making, is_too_large, operations, size_for_any
from measnet.export.pictures import sample_pictures
from measnet.export.ranges import (
    largest_magnitudes,
    magnitudes_by_operator,
    magnitudes_from_operators,
)
from measnet.network import MEASNet
from measnet.weights import bundled


def test_only_base_is_too_large_for_video() -> None:
    nano, base = (MEASNet(VARIANTS[name]) for name in ("nano", "base"))
    assert not is_too_large(nano, (1080, 1920))
    assert size_for_any(base) == SMALLER and not is_too_large(base, SMALLER)


@pytest.mark.parametrize("variant", ["nano", "base"])
def test_operations_are_as_many_as_pytorch_counts(variant: str) -> None:
    network = MEASNet(replace(VARIANTS[variant], blocks=(1, 1, 1, 1), refinement_blocks=1))
    size = network.config.size_rule.fit(1, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ExactMEASNet(network.eval())(torch.zeros(1, 3, *size))
    assert operations(network, size) == counter.get_total_flops() > 0


def test_magnitudes_are_carried_over_to_a_graph_of_another_size(nano_graph: Path) -> None:
    dynamic, static = read_graph(bundled("nano", ".onnx")).model, onnx.load(nano_graph)
    pictures = sample_pictures(1, 128, 160)
    seen = largest_magnitudes(static, pictures)
    by_operator = magnitudes_by_operator(static, seen)
    assert magnitudes_from_operators(static, by_operator) == seen
    carried = magnitudes_from_operators(dynamic, by_operator)
    own = largest_magnitudes(dynamic, pictures)
    both = [name for name in carried if name in own and not name.startswith("val_")]
    alike = [name for name in both if carried[name] == pytest.approx(own[name], rel=0.01, abs=1e-3)]
    assert len(carried) > 0.7 * len(own)
    assert len(alike) > 0.9 * len(both) > 50


def test_the_command_says_that_a_smaller_graph_was_tried(
    tmp_path: Path,
) -> None:
    # Both graphs are of 128x160, which other tests have traced; one of another size is tried above.
    result = CliRunner().invoke(
        main, ["nano", "--fp16", "--shape", "127x159", "-o", str(tmp_path)], obj=Making(most_operations=1.0)
    )
    assert result.exit_code == 0, result.output
    assert "on a smaller graph of the same network at 128x160:" in result.output
    assert "in ONNX Runtime on this CPU" in result.output
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "nano-127x159.fp16.onnx").metadata_props}
    assert metadata["measnet.size"] == "128x160"
