"""Steerable graphs build as engines: TensorRT-RTX builds, of which none is run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import settled

from measnet.engine_file import Range, read_engine_facts
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.cli import main
from measnet.export.graph import read_graph
from measnet.export.precision import typed_graph
from measnet.weights import bundled

ABSENT = [
    name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None
]
needs_rtx = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'measnet[rtx]'"
)
if "filelock" not in ABSENT:
    from measnet.export.engine import build_engines
    from measnet.export.target import find_targets

NANO = bundled("nano", ".steerable.onnx")
QUICK = ["--optimization-level", "0"]


def ranges(batches: tuple[int, int, int], *sizes: tuple[int, int]) -> dict[str, Range]:
    """The shapes of all inputs of nano in a profile."""
    numbers = read_graph(NANO).description.decisions.size
    low, usual, high = ((b, *size) for b, size in zip(batches, sizes * (3 // len(sizes)), strict=True))
    shapes = {"image": (3,), "window": (1,)}
    found: dict[str, Range] = {
        name: tuple((b, *planes, h, w) for b, h, w in (low, usual, high))  # type: ignore[misc]
        for name, planes in shapes.items()
    }
    decided: Range = ((low[0], numbers), (usual[0], numbers), (high[0], numbers))
    return found | {"held": decided, "hold": decided}


@needs_rtx
def test_a_steerable_graph_becomes_engines_that_say_so_and_are_kept_as_such(tmp_path: Path) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    wish = ["--gpu", "rtx", *QUICK, *cache, "--profile", "1x121x128:1x128x160:2x192x256"]
    out = ["-o", str(tmp_path)]
    name = "nano-dynamic.fp16.bytes.steerable"
    graph = str(tmp_path / f"{name}.onnx")
    made = ["--steerable", "--fp16", "--io", "uint8-nhwc", "--no-verify"]
    for words in ([*made, *out], ["engine", graph, *wish, *out]):
        first = CliRunner().invoke(main, words)
        assert first.exit_code == 0, first.output
    facts = read_engine_facts(tmp_path / f"{name}.rtx-sm80-sm86-sm89-sm120.engine")
    assert facts.description.steerable and facts.description.takes_bytes
    frames = ((1, 121, 128, 3), (1, 128, 160, 3), (2, 192, 256, 3))
    assert facts.profiles == (ranges((1, 1, 2), (121, 128), (128, 160), (192, 256)) | {"image": frames},)
    again = CliRunner().invoke(main, ["engine", graph, *wish, *out])
    assert "from the cache" in again.output
    listed = CliRunner().invoke(main, ["cache", *cache])
    assert "nano, any size, fp16, steerable, TensorRT-RTX" in listed.output


@needs_rtx
def test_a_steerable_graph_of_one_size_builds(tmp_path: Path) -> None:
    fixed = settled(read_graph(NANO), 128, 160)
    half = fixed.become(typed_graph(fixed.model, "fp16").model, precision="fp16")
    graph = tmp_path / "nano-128x160.onnx"
    half.write(graph)
    targets = find_targets(("tensorrt-rtx",), ("sm75",))
    settings = BuildSettings(optimization_level=0)
    (built,) = build_engines([graph], targets, tmp_path, settings, cache=None)
    assert built.facts.profiles == (ranges((1, 1, 2), (128, 160)),)
    assert built.facts.description == half.description and built.notes == ()


@needs_rtx
def test_profiles_of_a_steerable_graph_are_fitted_for_all_its_inputs() -> None:
    from measnet.export.engine import graph_profiles

    graph = read_graph(NANO)
    (target,) = find_targets(("tensorrt-rtx",), ("sm89",))
    settings = BuildSettings((Profile.parse("2x120x130"), Profile.parse("128x128:128x160:3x192x256")))
    profiles, problems = graph_profiles(graph, settings, target)
    assert problems == []
    assert profiles == (
        ranges((2, 2, 2), (128, 144)),
        ranges((1, 1, 3), (128, 128), (128, 160), (192, 256)),
    )
