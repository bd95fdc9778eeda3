"""A network too large for its graph's size is tried on a smaller graph, in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from measnet.checkpoint import load_checkpoint
from measnet.config import VARIANTS
from measnet.errors import BackendError, MEASNetError
from measnet.export import trial
from measnet.export.cli import main
from measnet.export.parity import sample_pictures
from measnet.export.ranges import (
    largest_magnitudes,
    magnitudes_by_operator,
    magnitudes_from_operators,
)
from measnet.export.trial import Apart, is_too_large, size_for_any
from measnet.network import MEASNet


def test_only_base_is_too_large_for_video() -> None:
    nano, base = (MEASNet(VARIANTS[name]) for name in ("nano", "base"))
    assert not is_too_large(nano, (1080, 1920)) and size_for_any(nano) == trial.USUAL
    assert is_too_large(base, (720, 1280)) and size_for_any(base) == trial.SMALLER
    assert not is_too_large(base, trial.SMALLER)


def test_what_runs_apart_returns_raises_or_dies_as_it_would_here(tmp_path: Path) -> None:
    with Apart(int, "7") as seven:
        assert seven.result() == 7 and seven.result() == 7
    with (
        Apart(load_checkpoint, tmp_path / "absent.ckpt") as absent,
        pytest.raises(MEASNetError, match="absent") as raised,
    ):
        absent.result()
    assert raised.value.exit_code == 2
    with Apart(os.abort) as dying, pytest.raises(BackendError, match="ended with status -6"):
        dying.result()


def test_what_runs_apart_does_not_outlive_its_block() -> None:
    started = time.monotonic()
    with Apart(time.sleep, 600) as sleeping:
        process = sleeping._process
    assert not process.is_alive() and time.monotonic() - started < 30


def test_magnitudes_are_carried_over_to_a_graph_of_another_size(
    dynamic_graph: Path, static_graph: Path
) -> None:
    dynamic, static = onnx.load(dynamic_graph), onnx.load(static_graph)
    pictures = sample_pictures(1, 136, 200)
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
    golden_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_OPERATIONS", 1.0)
    checkpoint = str(golden_checkpoint("tiny"))
    result = CliRunner().invoke(
        main, ["--checkpoint", checkpoint, "--fp16", "--shape", "136x200", "-o", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert "on a smaller graph of the same network at 128x160:" in result.output
    assert "in ONNX Runtime on this CPU" in result.output
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "tiny-136x200.fp16.onnx").metadata_props}
    assert metadata["measnet.size"] == "136x200"
