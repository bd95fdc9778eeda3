"""The published network, with the golden weights: its graph computes their output.

A file of its own, as a trace of it takes half a minute. Engines are built of smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import golden_case

from measnet.checkpoint import load_checkpoint
from measnet.export.graph_session import run_graph
from measnet.export.trace import exact_graph


def test_it_exports_to_the_golden_output(golden_checkpoint: Callable[[str], Path]) -> None:
    graph = exact_graph(load_checkpoint(golden_checkpoint("base")), (128, 128))
    image, expected, stride = golden_case("base_128x128")
    restored = run_graph(graph.content, image)["restored"][0, :, ::stride, ::stride]
    assert np.abs(restored - expected).max() < 1e-4 * np.ptp(expected)
