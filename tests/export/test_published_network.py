"""The published network, with the golden weights: its graph computes their output, and builds for every card.

A file of its own, as a trace of it takes a minute.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import golden_case

from measnet.checkpoint import load_checkpoint
from measnet.export.build_settings import BuildSettings
from measnet.export.graph import Graph
from measnet.export.precision import typed_graph
from measnet.export.session import run_graph
from measnet.export.trace import exact_graph


@pytest.fixture(scope="module")
def base(golden_checkpoint: Callable[[str], Path]) -> Graph:
    return exact_graph(load_checkpoint(golden_checkpoint("base")), (128, 128))


def test_it_exports_to_the_golden_output(base: Graph) -> None:
    image, expected, stride = golden_case("base_128x128")
    restored = run_graph(base.content, image)["restored"][0, :, ::stride, ::stride]
    assert np.abs(restored - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "polygraphy", "filelock")),
    reason="not installed: tensorrt_rtx, polygraphy, filelock; pip install 'measnet[rtx]'",
)
def test_it_builds_in_half_precision_for_every_card(base: Graph, tmp_path: Path) -> None:
    from measnet.export.engine import build_engines
    from measnet.export.target import find_targets

    base.become(typed_graph(base.model, "fp16").model, precision="fp16").write(tmp_path / "base.onnx")
    settings = BuildSettings(optimization_level=0)
    targets = find_targets(("tensorrt-rtx",), ("rtx",))
    (built,) = build_engines([tmp_path / "base.onnx"], targets, tmp_path, settings, cache=None)
    assert built.facts.description.variant == "base" and built.facts.description.precision == "fp16"
    assert built.facts.profiles[0]["image"] == ((1, 3, 128, 128),) * 3
    assert built.plan_bytes > 100_000 and built.notes == ()
