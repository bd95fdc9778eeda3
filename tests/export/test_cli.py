"""``measnet-export`` as people type it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from conftest import golden_state

from measnet.export.cli import main
from measnet.export.graph import Graph
from measnet.export.make import Making
from measnet.export.trace import exact_graph
from measnet.weights import bundled


def test_a_checkpoint_becomes_a_checked_graph(tmp_path: Path) -> None:
    shutil.copy(bundled("nano", ".safetensors"), tmp_path / "mine.safetensors")
    words = [str(tmp_path / "mine.safetensors"), "--shape", "120x150", "-o", str(tmp_path / "graphs")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "128x160 pixels (frames of 120x150 are padded by reflection)" in result.output
    assert "parity with PyTorch on 128x160" in result.output
    (graph,) = (tmp_path / "graphs").iterdir()
    metadata = {e.key: e.value for e in onnx.load(graph).metadata_props}
    assert graph.name == "mine-120x150.onnx" and metadata["measnet.size"] == "128x160"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dynamic", "64x64:128x128:256x256"], "a range is for an engine"),
        (["--shape", "wide"], "a size is HEIGHTxWIDTH"),
        (["--shape", "0x64"], "a size is HEIGHTxWIDTH"),
        (["nope.ckpt", "--shape", "64x64"], "does not exist"),
        (["giant", "--shape", "64x64"], "no bundled weights called 'giant'"),
        (["--shape", "64x64", "--dynamic", "-o", "x.onnx"], "2 graphs cannot share the name"),
        (["--fp16", "--bf16", "-o", "x.onnx"], "2 graphs cannot share the name"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_nan_in_a_checkpoint_ends_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    state = golden_state("tiny")
    state["patch_embed.proj.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "x.pt")
    result = CliRunner().invoke(main, [str(tmp_path / "x.pt"), "--dynamic", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert "NaN or infinity" in result.stderr and "stem.weight" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_graph_that_does_not_compute_the_network_is_removed(
    tmp_path: Path,
) -> None:
    def wrong(*arguments: Any, **options: Any) -> Graph:
        graph = exact_graph(*arguments, **options)
        constants = {tensor.name: tensor for tensor in graph.model.graph.initializer}
        (stem,) = [node for node in graph.model.graph.node if node.name == "stem/Conv"]
        weights = constants[stem.input[1]]
        weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * np.float32(1.01)).tobytes()
        return graph

    result = CliRunner().invoke(main, ["nano", "-o", str(tmp_path)], obj=Making(graph_of=wrong))
    assert result.exit_code == 1
    assert "does not compute what the network does" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_shows_examples_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from measnet.export.cli import main;"
        "out = CliRunner().invoke(main, ['--help'], terminal_width=100).output;"
        "assert 'measnet-export --fp16' in out and out.count(chr(10)) < 45;"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'av', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
