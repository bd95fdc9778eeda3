"""Every graph that we export is taken by NVIDIA's own builder, for every RTX card: TensorRT-RTX builds.

They are not TensorRT builds, and no plan is run. One build stands for GeForce RTX 30 to 50 (the builder
refuses a graph that any one of its cards cannot run), one for Turing, which takes graphs of another form.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import settled

from measnet.calibration.placement import place
from measnet.calibration.quantise import quantised_graph
from measnet.config import VARIANTS
from measnet.engine_file import read_engine_facts
from measnet.errors import BuildError
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import Graph, read_graph
from measnet.export.precision import typed_graph
from measnet.weights import at_hand, bundled

ABSENT = [
    name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None
]
needs_rtx = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'measnet[rtx]'"
)
if "filelock" not in ABSENT:
    from measnet.export.engine import build_engines, graph_profiles
    from measnet.export.target import RTX_CARDS, EngineTarget, find_targets

# Variant, size, precision, form, cards. A build takes seconds, so these meet in pairs. ``parts`` has every
# kind of part of a ``base`` once; what of its INT8 graph is not INT8 has the FP16 form for Turing. ``nano``
# in FP16 is built for all cards in ``test_steerable_engine.py``, in INT8 for Turing in
# ``tests/calibration/test_int8.py``.
PORTABLE, TURING = "8.0 8.6 8.9 12.0", "7.5"
MATRIX = [
    ("nano", "dynamic", "bf16", "uint8-nhwc", PORTABLE),
    ("nano", "static", "int8", "uint8-nhwc", PORTABLE),
    ("parts", "static", "fp32", "uint8-nhwc", PORTABLE),
    ("parts", "static", "fp16", "nchw", PORTABLE),
    ("parts", "static", "bf16", "nchw", PORTABLE),
    ("parts", "static", "int8", "nchw", TURING),
]

# Two unequal profiles would build everything twice; speed is not what is asked here.
SETTINGS = {
    "static": BuildSettings(optimization_level=0),
    "dynamic": BuildSettings((Profile.parse("128x128:128x192:256x256"),), optimization_level=0),
}

# Said of every INT8 convolution beside FP16, and nothing that we could write otherwise.
SCALES_OF_INT8 = " scales to fp32"


@pytest.fixture(scope="module")
def targets() -> dict[str, EngineTarget]:
    return dict(zip((PORTABLE, TURING), find_targets(("tensorrt-rtx",), ("rtx", "sm75")), strict=True))


def in_precision(graph: Graph, precision: str) -> Graph:
    """The float32 ``graph`` in a precision."""
    model = graph.model
    if precision == "int8":
        # As of frames on which every tensor reached 4: a builder looks at no values.
        ranges = {name: 4.0 for node in model.graph.node for name in (*node.input, *node.output)}
        model = quantised_graph(model, place(model, ranges), ranges)
    if precision != "fp32":
        model = typed_graph(model, "fp16" if precision == "int8" else precision).model  # type: ignore[arg-type]
        graph = graph.become(model, precision=precision)
    return graph


@pytest.fixture(scope="module")
def graph_of(request: pytest.FixtureRequest) -> Callable[[str, str], Graph]:
    """The float32 graph of a variant, ``static`` or ``dynamic``."""

    def graph(variant: str, size: str) -> Graph:
        if variant == "parts":
            return read_graph(request.getfixturevalue("static_graph"))
        nano = read_graph(bundled("nano", ".onnx"))
        return nano if size == "dynamic" else settled(nano, 128, 160)

    return graph


def graph_file(exact: Graph, precision: str, form: str, path: Path) -> Graph:
    """Writes the graph ``exact`` in a precision and form to ``path``; of camera bytes for odd frames."""
    graph = in_precision(exact, precision)
    if form == "uint8-nhwc":
        size = graph.description.static_size
        graph = camera_graph(graph, frame_size=size and (size[0] - 6, size[1] - 1))
    graph.write(path)
    return graph


@needs_rtx
@pytest.mark.parametrize(("variant", "size", "precision", "form", "cards"), MATRIX)
def test_the_graph_builds_for_every_card(
    variant: str,
    size: str,
    precision: str,
    form: str,
    cards: str,
    graph_of: Callable[[str, str], Graph],
    targets: dict[str, EngineTarget],
    tmp_path: Path,
) -> None:
    graph = tmp_path / f"{variant}.onnx"
    written = graph_file(graph_of(variant, size), precision, form, graph)
    target, settings = targets[cards], SETTINGS[size]
    (engine,) = build_engines([graph], [target], tmp_path, settings, cache=None)
    facts = read_engine_facts(engine.path)
    assert facts.compute_capability == cards
    assert facts.description.variant == (variant if variant in VARIANTS else "custom")
    assert facts.description.precision == precision
    assert (facts.description.io, facts.description.static_size is None) == (form, size == "dynamic")
    assert facts.profiles == graph_profiles(written, settings, target)[0]
    assert engine.plan_bytes > 100_000
    assert [note for note in engine.notes if SCALES_OF_INT8 not in note] == []
    engine.path.unlink()


@needs_rtx
@pytest.mark.parametrize(
    ("variant", "size", "precision", "reason"),
    [
        (
            "nano",
            "static",
            "fp32",
            "multiply matrices in FP16 alone with TensorRT-RTX: export the graph with --fp16",
        ),
        ("nano", "static", "bf16", "BF16 is for cards of compute capability 8.0 and later"),
    ],
)
def test_what_turing_cannot_run_is_refused_alone_and_beside_other_cards(
    variant: str,
    size: str,
    precision: str,
    reason: str,
    graph_of: Callable[[str, str], Graph],
    targets: dict[str, EngineTarget],
    tmp_path: Path,
) -> None:
    graph = tmp_path / f"{variant}.onnx"
    graph_file(graph_of(variant, size), precision, "nchw", graph)
    alone = targets[TURING]
    beside = replace(alone, compute_capability=f"{TURING} {PORTABLE}")
    for target in (alone, beside):
        with pytest.raises(BuildError, match=re.escape(reason)) as caught:
            build_engines([graph], [target], tmp_path, SETTINGS[size], cache=None)
        if precision == "fp32" and target is alone:
            assert "operator MatMul" in str(caught.value)
    assert list(tmp_path.iterdir()) == [graph]


@needs_rtx
@pytest.mark.parametrize(("name", "precision"), [("nano", "fp32"), ("small", "fp16")])
def test_every_bundled_network_builds_for_every_card(name: str, precision: str, tmp_path: Path) -> None:
    """Its steerable graph, which computes all that the plain one does."""
    files = [bundled(name, ".steerable.onnx")]
    if precision != "fp32":
        typed = in_precision(read_graph(files[0]), precision)
        files = [tmp_path / "typed.onnx"]
        typed.write(files[0])
    older = ["sm75"] if precision == "fp16" else []
    cards = find_targets(("tensorrt-rtx",), ("+".join(card for card in RTX_CARDS if card != "sm75"), *older))
    settings = BuildSettings((Profile.parse("128x128"),), optimization_level=0)
    for built in build_engines(files, cards, tmp_path, settings, cache=None):
        assert built.facts.description.steerable and built.facts.description.precision == precision
        assert built.plan_bytes > 1_000_000 and built.notes == ()


def test_every_variant_that_there_is_and_every_bundled_graph_is_among_them() -> None:
    assert {name.partition("-")[0] for name in at_hand(".onnx")} <= set(VARIANTS) == {"nano", "small", "base"}
