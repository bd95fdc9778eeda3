"""Layers that become INT8: those worth it, outside the router path, ensemble, norms and output head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from measnet.calibration.placement import Placement, place
from measnet.export.graph import Graph
from measnet.export.islands import island_of


class Everything(dict[str, float]):
    """Each tensor was seen to reach 1."""

    def get(self, key: str, default: Any = None) -> float:
        return 1.0


@pytest.fixture(scope="module")
def placed(nano: Graph) -> Placement:
    return place(nano.model, Everything())


def test_most_convolutions_become_int8(placed: Placement) -> None:
    assert len(placed.layers) > 0.5 * len(placed.reasons)
    assert {layer.name for layer in placed.layers} == {n for n, why in placed.reasons.items() if not why}
    for name in ("encoder2.0.value/Conv", "latent.0.gate_depthwise/Conv", "up3.narrow/Conv"):
        assert placed.reasons[name] == ""


def test_nothing_on_an_island_in_the_ensemble_or_in_the_output_head_does(
    placed: Placement, nano: Graph
) -> None:
    chosen = {layer.name for layer in placed.layers}
    on_islands = [node.name for node in nano.model.graph.node if island_of(node)]
    assert not chosen & set(on_islands)
    assert not [name for name in chosen if name.startswith(("stem", "prompt", "pixel_experts1", "output"))]
    assert placed.reasons["stem/Conv"] == "pixel router"
    assert placed.reasons["pixel_experts1.sum/Conv"] == "pixel ensemble"
    assert placed.reasons["output/Conv"] == "output head"


def test_products_of_two_computed_tensors_stay(placed: Placement) -> None:
    assert placed.reasons["fd_mee3.high.experts/MatMul"] == "weights that are computed"


def test_what_is_one_row_a_picture_stays(placed: Placement) -> None:
    for name in ("latent.0.scale/Conv", "latent.0.prompt_to_scale/Gemm"):
        assert placed.reasons[name] == "one row a picture"


@pytest.mark.parametrize(
    ("shape", "groups", "kept"),
    [
        ((16, 16, 3, 3), 1, ""),
        ((8, 16, 3, 3), 1, ""),
        ((12, 16, 3, 3), 1, "few channels"),
        ((8, 16, 1, 3), 1, "few channels"),
        ((16, 1, 3, 3), 16, ""),
        ((16, 1, 1, 3), 16, "grouped, no fast INT8 form"),
        ((16, 1, 1, 1), 16, "grouped, no fast INT8 form"),
    ],
)
def test_a_convolution_without_a_fast_int8_form_stays(
    shape: tuple[int, ...], groups: int, kept: str, graph_of: Any
) -> None:
    node = helper.make_node("Conv", ["image", "w"], ["y"], "encoder1/Conv", group=groups)
    model = graph_of([node], ["batch", shape[0], None, None], w=np.ones(shape, np.float32))
    assert place(model, Everything()).reasons == {"encoder1/Conv": kept}


def test_a_layer_stays_whose_input_was_never_other_than_0(graph_of: Any) -> None:
    node = helper.make_node("Conv", ["image", "w"], ["y"], "encoder1/Conv")
    model = graph_of([node], ["batch", 16, 6, 6], w=np.ones((16, 16, 3, 3), np.float32))
    assert place(model, {"image": 0.0}).reasons["encoder1/Conv"] == "always 0 on these frames"


def test_the_low_band_stays_because_its_ranges_depend_on_the_frames_size(graph_of: Any) -> None:
    name = "frequency2.low_attention.q/Conv"
    node = helper.make_node("Conv", ["image", "w"], ["y"], name)
    model = graph_of([node], ["batch", 16, 6, 6], w=np.ones((16, 16, 3, 3), np.float32))
    assert place(model, Everything()).reasons[name] == "low band"


def test_further_layers_can_be_kept(nano: Graph, placed: Placement) -> None:
    fewer = place(
        nano.model,
        Everything(),
        keep=lambda layer: "too sensitive" if layer.name.startswith("encoder2") else None,
    )
    assert fewer.reasons["encoder2.0.value/Conv"] == "too sensitive"
    assert 0 < len(fewer.layers) < len(placed.layers)
