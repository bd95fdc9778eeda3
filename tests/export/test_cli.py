"""``measnet-export`` as people type it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner
from conftest import golden_state

from measnet.export.cli import main


def test_a_checkpoint_becomes_a_checked_graph(
    golden_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        main, [str(golden_checkpoint("tiny")), "--shape", "70x100", "-o", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert "72x104 pixels (frames of 70x100 are padded by reflection)" in result.output
    assert "parity with PyTorch on 72x104" in result.output
    metadata = {e.key: e.value for e in onnx.load(tmp_path / "tiny-70x100.onnx").metadata_props}
    assert metadata["measnet.size"] == "72x104"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-70x100.onnx"]


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
    golden_checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from measnet.export.exact import ExactPixelExperts

    honest = ExactPixelExperts.forward

    def wrong(self: ExactPixelExperts, x: torch.Tensor, prompt: torch.Tensor | None) -> object:
        out, routing = honest(self, x, prompt)
        return out * 1.01, routing

    monkeypatch.setattr(ExactPixelExperts, "forward", wrong)
    result = CliRunner().invoke(
        main, [str(golden_checkpoint("tiny")), "--shape", "64x64", "-o", str(tmp_path)]
    )
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
