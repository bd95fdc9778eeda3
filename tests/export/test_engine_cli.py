"""``measnet-export`` and engines, as people type it."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import copied_graph

from measnet.engine_file import read_engine
from measnet.export import engine_options
from measnet.export.cli import main
from measnet.weights import bundled

NANO = str(bundled("nano", ".onnx"))
needs_rtx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "polygraphy", "filelock")),
    reason="not installed: tensorrt_rtx, polygraphy, filelock; pip install 'measnet[rtx]'",
)


@needs_rtx
def test_a_graph_becomes_an_engine_is_kept_listed_and_cleared(tmp_path: Path) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    build = ["--graph", NANO, "--engine", "tensorrt-rtx", "--gpu", "sm89", "--profile", "128x128", *cache]
    first = CliRunner().invoke(main, [*build, "-o", str(tmp_path / "a")])
    assert first.exit_code == 0, first.output
    assert "on any GPU of compute capability 8.9" in first.output and "built in" in first.output
    facts, _ = read_engine(tmp_path / "a" / "nano.rtx-sm89.engine")
    assert facts.profiles[0]["image"] == ((1, 3, 128, 128),) * 3
    second = CliRunner().invoke(main, [*build, "-o", str(tmp_path / "b")])
    assert "from the cache" in second.output
    listed = CliRunner().invoke(main, ["--cache-list", *cache])
    assert "nano, any size, fp32, TensorRT-RTX" in listed.output
    assert "removed" in CliRunner().invoke(main, ["--cache-clear", *cache]).output
    assert ": 0 files" in CliRunner().invoke(main, ["--cache-list", *cache]).output


@needs_rtx
def test_one_engine_is_built_for_several_cards(tmp_path: Path) -> None:
    build = ["--graph", NANO, "--engine", "tensorrt-rtx", "--gpu", "sm120+sm86", "--profile", "128x128"]
    result = CliRunner().invoke(main, [*build, "--no-cache", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "on any GPU of compute capability 8.6 or 12.0, " in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["nano.rtx-sm86-sm120.engine"]
    facts, _ = read_engine(tmp_path / "nano.rtx-sm86-sm120.engine")
    assert facts.compute_capabilities == ("8.6", "12.0")


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "sm89"], "--gpu goes with --engine"),
        (["--optimization-level", "0"], "--optimization-level goes with --engine"),
        (["--dynamic", "64x64:128x128:256x256"], "--profile goes with --engine"),
        (["--engine", "tensorrt-rtx", "--gpu", "rtx4090"], "no GPU called 'rtx4090'"),
        (["--engine", "tensorrt-rtx", "--gpu", "sm75+sm89"], "shares no engine"),
        (["--engine", "tensorrt-rtx", "--gpu", "sm89", "--profile", "big"], "a profile is MIN:OPT:MAX"),
        (["--engine", "tensorrt-rtx", "--gpu", "sm89", "--workspace", "0"], "0 MiB is nothing"),
        (["--engine", "tensorrt-rtx", "--gpu", "sm89", "--version-compatible"], "no lean runtime"),
        (["--graph", "absent.onnx", "--engine", "tensorrt-rtx", "--gpu", "sm89"], "cannot read absent.onnx"),
    ],
)
def test_a_mistake_about_engines_ends_in_one_line_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dynamic_graph_still_needs_no_range() -> None:
    context = main.make_context("measnet-export", ["--dynamic", "-o", "graphs"])
    assert context.params["dynamic"] == "any"
    assert main.make_context("measnet-export", []).params["dynamic"] is None
    ranged = main.make_context("measnet-export", ["--dynamic", "64x64:128x128:256x256"])
    assert ranged.params["dynamic"] == "64x64:128x128:256x256"


def shown(graphs: list[str], monkeypatch: pytest.MonkeyPatch, *, installed: set[str], gpu: bool) -> str:
    """The hint where just these packages are installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(engine_options, "_sees_gpu", lambda: gpu)
    return engine_options.hint([Path(graph) for graph in graphs])


def test_the_hint_says_what_is_built_here_and_what_on_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    builders = {"tensorrt_rtx", "polygraphy", "filelock"}
    text = shown(["out/a b.onnx", "out/c.onnx"], monkeypatch, installed=builders, gpu=False)
    here, there = text.split("  TensorRT engines")
    assert "can be built here" in here and "pip install" not in here
    assert "measnet-export --graph 'out/a b.onnx' --graph out/c.onnx --engine tensorrt-rtx --gpu sm89" in here
    assert "pip install 'measnet[tensorrt]'\n" in there  # no folder: the graphs were brought along
    assert "measnet-export --graph 'a b.onnx' --graph c.onnx --engine tensorrt" in there


def test_the_hint_names_the_extra_where_rtx_is_missing_and_the_gpu_where_tensorrt_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(["c.onnx"], monkeypatch, installed={"tensorrt", "polygraphy"}, gpu=True)
    assert "pip install 'measnet[rtx]'" in text and "measnet[tensorrt]" not in text
    assert "for the GPU of this machine:\n    measnet-export --graph c.onnx --engine tensorrt" in text


@needs_rtx
def test_the_command_of_the_hint_works_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graphs here").mkdir()
    graph = copied_graph("nano", Path("graphs here/nano.onnx"))
    command = next(line for line in engine_options.hint([graph]).splitlines() if "--gpu" in line)
    program, *words = shlex.split(command)
    result = CliRunner().invoke(main, [*words, "--profile", "128x128", "--no-cache"])
    assert program == "measnet-export" and result.exit_code == 0, result.output
    assert Path("nano.rtx-sm89.engine").is_file()
