"""Configurations: the named variants keep their promises, every switch of Table VI works."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from conftest import FORMER_NANO
from torch.utils.flop_counter import FlopCounterMode

from measnet.config import FORMER_VARIANTS, VARIANTS, MEASNetConfig, variant_name
from measnet.errors import UsageError
from measnet.export.exact import ExactMEASNet
from measnet.network import MEASNet

NARROW = {"width": 8, "blocks": (1, 1, 1, 1), "heads": (1, 1, 1, 1)}
SMALL = dataclasses.replace(FORMER_NANO, **NARROW)  # type: ignore[arg-type]  # values of many types
GATED = dataclasses.replace(VARIANTS["nano"], **NARROW)  # type: ignore[arg-type]


def gflop(config: MEASNetConfig) -> float:
    """GFLOP of the export form (every expert answers every pixel) on one image of 256x256."""
    network = ExactMEASNet(MEASNet(config))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 256, 256))
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    ("name", "most_gflop", "most_parameters"), [("nano", 3.4, 3e6), ("small", 12.1, 8e6)]
)
def test_a_variant_stays_within_its_promise(name: str, most_gflop: float, most_parameters: float) -> None:
    """Of time there is more to say: ``python bench/candidates.py`` measures it."""
    assert gflop(VARIANTS[name]) <= most_gflop
    assert sum(p.numel() for p in MEASNet(VARIANTS[name]).parameters()) <= most_parameters


@pytest.mark.parametrize("small", [SMALL, GATED], ids=["transformer", "gated"])
@pytest.mark.parametrize(
    "switches",
    [
        {"tspg": False, "mese": False, "fd": False, "mee": False},
        {"tspg": True, "mese": False, "fd": False, "mee": False},
        {"tspg": True, "mese": True, "fd": False, "mee": False},
        {"tspg": True, "mese": True, "fd": True, "mee": False},
        {"tspg": True, "mese": True, "fd": False, "mee": True},
        {"tspg": True, "mese": True, "fd": True, "mee": True},
        {"tspg": False, "mese": True, "fd": True, "mee": True},
        {"ensemble": "weighted_sum"},
        {"stem_scale": 1},
        {"pixel_experts": (4, 3, 2), "pixel_top_k": (3, 1, 1)},
        {"image_experts": (0, 4, 3), "image_top_k": (1, 1, 2)},
        {"image_experts": (3, 3, 0)},
    ],
    ids=lambda switches: "-".join(f"{k}={v}" for k, v in switches.items()),
)
def test_a_switch_trains_and_exports_to_the_same_result(
    small: MEASNetConfig, switches: dict[str, object]
) -> None:
    trains_and_exports(dataclasses.replace(small, **switches))  # type: ignore[arg-type]


def test_frequency_blocks_train_and_export_to_the_same_result() -> None:
    trains_and_exports(dataclasses.replace(SMALL, frequency_blocks=True, width=16))


def trains_and_exports(config: MEASNetConfig) -> None:
    torch.manual_seed(0)
    network = MEASNet(config)
    height, width = config.size_rule.fit(64, 100)
    images = torch.rand(2, 3, height, width)

    done = network.forward_training(images)
    ((done.restored - images).abs().mean() + 1e-3 * done.balance).backward()
    assert (done.balance > 0) == config.mese

    network.eval()
    with torch.inference_mode():
        assert torch.allclose(ExactMEASNet(network)(images)[0], network(images), atol=1e-5)


def test_every_contradiction_of_a_configuration_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        MEASNetConfig(width=10, heads=(3, 1, 1, 1), stem_scale=3, pixel_top_k=(6, 2, 2))
    message = str(caught.value)
    for part in ("stem_scale is 3", "3 heads", "pixel_top_k is 6 of 6", "FD needs"):
        assert part in message


def test_weights_of_what_a_variant_was_keep_its_name() -> None:
    names = {variant_name(config): config for config in FORMER_VARIANTS.values()}
    assert names == FORMER_VARIANTS
    assert variant_name(VARIANTS["nano"]) == "nano" and variant_name(SMALL) == "custom"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"block": "square"}, "block is 'square', must be 'transformer' or 'gated'"),
        ({"frequency_blocks": True}, "frequency_blocks go with transformer blocks alone"),
    ],
)
def test_a_block_that_cannot_be_built_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        dataclasses.replace(GATED, **changes)


@pytest.mark.parametrize(
    "config", [dataclasses.replace(SMALL, ensemble="weighted_sum", fd=False), GATED], ids=["changed", "gated"]
)
def test_a_configuration_survives_json(config: MEASNetConfig) -> None:
    assert MEASNetConfig.from_json(config.to_json()) == config


def test_a_configuration_stored_before_there_were_gated_blocks_has_none() -> None:
    stored = json.loads(FORMER_NANO.to_json())
    del stored["block"]
    assert MEASNetConfig.from_dict(stored) == FORMER_NANO


@pytest.mark.parametrize(
    "text", ["", "[]", '{"wings": 2}', '{"width": "wide"}', '{"blocks": [1, 2]}', '{"tspg": 1}']
)
def test_a_damaged_configuration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        MEASNetConfig.from_json(text)
