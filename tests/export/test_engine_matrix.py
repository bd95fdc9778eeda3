"""Every graph that we export is taken by NVIDIA's own builder, for every RTX card: TensorRT-RTX builds.

They are not TensorRT builds, and no plan is run. All combinations take an hour (``bench/engines.py``); these
are few enough for CI and hold every variant in every precision, and every card.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import onnx
import pytest

from measnet.config import VARIANTS
from measnet.description import GraphDescription
from measnet.engine_file import read_engine
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import exact_graph, write_graph
from measnet.export.precision import Precision, typed_graph
from measnet.network import MEASNet
from measnet.weights import bundled

ABSENT = [
    name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None
]
needs_rtx = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'measnet[rtx]'"
)
if "filelock" not in ABSENT:
    from measnet.export.engine import build_engines, graph_profiles
    from measnet.export.target import RTX_CARDS, Target, find_targets

Described = tuple[onnx.ModelProto, GraphDescription]

CARDS = ("sm75", "sm80", "sm86", "sm89", "sm120")

CASES = [  # variant, precision, what goes in and out, card
    ("nano", "fp32", "nchw", "sm80"),
    ("nano", "fp32", "uint8-nhwc", "sm120"),
    ("nano", "fp16", "nchw", "sm89"),
    ("nano", "fp16", "uint8-nhwc", "sm75"),
    ("nano", "bf16", "nchw", "sm86"),
    ("small", "fp32", "nchw", "sm89"),
    ("small", "fp16", "nchw", "sm120"),
    ("small", "bf16", "uint8-nhwc", "sm80"),
    ("base", "fp32", "nchw", "sm86"),
    ("base", "fp16", "nchw", "sm75"),
    ("base", "fp16", "uint8-nhwc", "sm89"),
    ("base", "bf16", "nchw", "sm120"),
]

FAST = BuildSettings(optimization_level=0)
DYNAMIC = BuildSettings((Profile.parse("128x128:128x192:256x256"),), optimization_level=0)


def described(path: Path) -> Described:
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return model, GraphDescription.from_metadata(metadata, str(path))


@pytest.fixture(scope="module")
def float32_graph(base_graph: Path) -> Callable[[str], Described]:
    """Of nano the bundled graph, for any size; of the others one for a single size, as tracing gives it."""
    made: dict[str, Described] = {}

    def graph(variant: str) -> Described:
        if variant not in made:
            if variant == "nano":
                made[variant] = described(bundled("nano", ".onnx"))
            elif variant == "base":
                made[variant] = described(base_graph)
            else:
                made[variant] = exact_graph(MEASNet(VARIANTS[variant]).eval(), (128, 160))
        return made[variant]

    return graph


def with_types(model: onnx.ModelProto, description: GraphDescription, precision: str) -> Described:
    """A float32 graph in another precision."""
    if precision not in get_args(Precision):
        return model, description
    typed = typed_graph(model, precision).model  # type: ignore[arg-type]
    described = replace(description, precision=precision)
    onnx.helper.set_model_props(typed, described.to_metadata())
    return typed, described


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return dict(zip(CARDS, find_targets(("tensorrt-rtx",), CARDS), strict=True))


@needs_rtx
@pytest.mark.parametrize(("variant", "precision", "io", "card"), CASES)
def test_the_graph_builds_for_the_card(
    variant: str,
    precision: str,
    io: str,
    card: str,
    float32_graph: Callable[[str], Described],
    targets: dict[str, Target],
    tmp_path: Path,
) -> None:
    model, description = with_types(*float32_graph(variant), precision)
    if io == "uint8-nhwc":
        model, description = camera_graph(model, description)
    graph = tmp_path / f"{variant}.onnx"
    write_graph(graph, model)
    settings = DYNAMIC if description.static_size is None else FAST
    (built,) = build_engines([graph], [targets[card]], tmp_path, settings, cache=None)
    facts, plan = read_engine(built.path)
    assert facts.compute_capability.replace(".", "") == card.removeprefix("sm")
    assert (facts.description.variant, facts.description.precision) == (variant, precision)
    assert facts.description.io == io
    assert facts.profiles == graph_profiles(model, description, settings)[0]
    assert len(plan) > 100_000 and built.notes == ()


@needs_rtx
def test_these_builds_hold_every_variant_in_every_precision_and_every_card() -> None:
    precisions = ("fp32", *get_args(Precision))
    assert {(variant, precision) for variant, precision, *_ in CASES} == {
        (variant, precision) for variant in VARIANTS for precision in precisions
    }
    assert {card for *_, card in CASES} == set(CARDS) <= set(RTX_CARDS)
    assert {(precision, io) for _, precision, io, _ in CASES} == {
        (precision, io) for precision in precisions for io in ("nchw", "uint8-nhwc")
    }
