"""``measnet-export`` and engines, as people type it."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import thin_graph

from measnet.engine_file import read_engine
from measnet.export.cli import _hint, main

QUICK = ["--profile", "128x128", "--optimization-level", "0"]
needs_rtx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "polygraphy", "filelock")),
    reason="not installed: tensorrt_rtx, polygraphy, filelock; pip install 'measnet[rtx]'",
)


@needs_rtx
def test_a_graph_becomes_an_engine_is_kept_listed_and_cleared(tmp_path: Path) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    thin_graph().write(tmp_path / "thin.onnx")
    build = ["engine", str(tmp_path / "thin.onnx"), "--gpu", "sm89", *QUICK, *cache]
    first = CliRunner().invoke(main, [*build, "-o", str(tmp_path / "a")])
    assert first.exit_code == 0, first.output
    assert "on any GPU of compute capability 8.9" in first.output and "built in" in first.output
    facts, _ = read_engine(tmp_path / "a" / "thin.rtx-sm89.engine")
    assert facts.profiles[0]["image"] == ((1, 3, 128, 128),) * 3
    second = CliRunner().invoke(main, [*build, "-o", str(tmp_path / "b")])
    assert "from the cache" in second.output
    engines = [(tmp_path / folder / "thin.rtx-sm89.engine").read_bytes() for folder in ("a", "b")]
    assert engines[0] == engines[1]
    assert {path.suffix for path in (tmp_path / "cache").iterdir() if path.is_file()} == {
        ".engine",
        ".timing",
    }
    listed = CliRunner().invoke(main, ["cache", *cache])
    assert "nano, any size, fp32, TensorRT-RTX" in listed.output
    assert "removed" in CliRunner().invoke(main, ["cache", "--clear", *cache]).output
    assert ": 0 files" in CliRunner().invoke(main, ["cache", *cache]).output


@needs_rtx
def test_one_engine_is_built_for_several_cards(tmp_path: Path) -> None:
    build = ["engine", "nano", "--gpu", "sm120+sm86", *QUICK, "--no-cache"]
    result = CliRunner().invoke(main, [*build, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "on any GPU of compute capability 8.6 or 12.0, " in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["nano.rtx-sm86-sm120.engine"]
    facts, _ = read_engine(tmp_path / "nano.rtx-sm86-sm120.engine")
    assert facts.compute_capabilities == ("8.6", "12.0")


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", "tensorrt", "--gpu", "sm89"], "--gpu goes with --with tensorrt-rtx"),
        (["--optimization-level", "6", "--gpu", "sm89"], "an optimisation level is 0 to 5, not 6"),
        (["--gpu", "rtx4090"], "no GPU called 'rtx4090'"),
        (["--gpu", "sm75+sm89"], "shares no engine"),
        (["--gpu", "sm89", "--profile", "big"], "a profile is MIN:OPT:MAX"),
        (["--gpu", "sm89", "--workspace", "0"], "0 MiB is nothing"),
        (["--gpu", "sm89", "--version-compatible"], "no lean runtime"),
        (["absent.onnx", "--gpu", "sm89"], "cannot read absent.onnx"),
    ],
)
def test_a_mistake_about_engines_ends_in_one_line_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["engine", "nano", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_the_commands_that_an_export_ends_with_work_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    graph = Path("graphs here/thin.onnx")
    thin_graph().write(graph)
    here, there = (line for line in _hint([graph]) if "measnet-export" in line)
    program, *words = shlex.split(here)
    result = CliRunner().invoke(main, [*words, *QUICK, "--no-cache"])
    assert program == "measnet-export" and result.exit_code == 0, result.output
    assert Path("thin.rtx-sm89.engine").is_file()
    assert shlex.split(there) == ["measnet-export", "engine", "thin.onnx"]
