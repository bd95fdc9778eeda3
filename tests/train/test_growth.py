"""A smaller network's weights, grown into a larger network."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import FORMER_NANO
from torch import Tensor

from measnet.config import VARIANTS, MEASNetConfig
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.growth import grow

PUBLISHED_PARTS = MEASNetConfig(
    width=8,
    blocks=(1, 1, 1, 1),
    refinement_blocks=1,
    heads=(1, 2, 4, 8),
    ffn_expansion=2.0,
    pixel_experts=(3, 3, 3),
    image_experts=(3, 3, 3),
    frequency_blocks=False,
)


def drawn(config: MEASNetConfig) -> MEASNet:
    """A network in which no part is silent, as a trained one."""
    torch.manual_seed(1)
    network = MEASNet(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("tone.") or name.endswith(("project.weight", "scale.weight")):
                parameter.add_(torch.randn_like(parameter) * (0.02 if parameter.ndim > 1 else 0.1))
    return network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 128, 144, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        pytest.param(FORMER_NANO, {"width": 32}, id="transformer twice as wide"),
        pytest.param(
            FORMER_NANO, {"width": 48, "blocks": (2, 1, 1, 3)}, id="transformer three times as wide, deeper"
        ),
        pytest.param(FORMER_NANO, {"blocks": (2, 2, 2, 2), "refinement_blocks": 1}, id="transformer deeper"),
        pytest.param(
            VARIANTS["nano"], {"width": 64, "blocks": (1, 2, 2, 3)}, id="gated twice as wide, deeper"
        ),
    ],
)
def test_a_grown_network_computes_what_the_smaller_one_does(
    config: MEASNetConfig, changes: dict[str, Any], images: Tensor
) -> None:
    network = drawn(config)
    larger = grow(network, replace(network.config, **changes))
    with torch.no_grad():
        expected, grown = network.restore(images), larger.restore(images)
    assert (expected.restored - images).abs().max() > 1e-2
    assert (grown.restored - expected.restored).abs().max() < 1e-5
    assert torch.equal(grown.image_experts(), expected.image_experts())
    agree = torch.eq(grown.pixel_experts(), expected.pixel_experts()).float().mean()
    assert agree > 0.9999  # a pixel between two experts may tip


def test_by_half_of_its_width_a_gated_network_grows_to_nearly_the_same(images: Tensor) -> None:
    """FD-MEE's norm averages over channels, of which some are copied and some are not."""
    network = drawn(VARIANTS["nano"])
    larger = grow(network, VARIANTS["small"])
    with torch.no_grad():
        expected, grown = network(images), larger(images)
    off, change = (grown - expected).square().mean(), (expected - images).square().mean()
    assert off < 0.01 * change


def test_every_part_grows_with_experts_at_all_levels(images: Tensor) -> None:
    torch.manual_seed(1)
    network = MEASNet(PUBLISHED_PARTS).eval()
    larger = grow(network, replace(PUBLISHED_PARTS, width=16))
    still = NoisyRouting(draw=torch.zeros_like)
    with torch.no_grad():
        expected, grown = (each.forward_training(images, still) for each in (network, larger))
    assert (grown.restored - expected.restored).abs().max() < 1e-4
    assert grown.balance.item() == pytest.approx(expected.balance.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("config", "width"), [(FORMER_NANO, 32), (VARIANTS["nano"], 64)], ids=["transformer", "gated"]
)
def test_copies_of_a_channel_learn_different_things(
    config: MEASNetConfig, width: int, images: Tensor
) -> None:
    larger = grow(drawn(config), replace(config, width=width)).train()
    larger.forward_training(images).restored.square().mean().backward()
    gradient = larger.stem.weight.grad
    assert gradient is not None
    twins = gradient[0::2] - gradient[1::2]
    assert (twins.flatten(1).norm(dim=1) > 1e-3 * gradient[0::2].flatten(1).norm(dim=1)).all()


def test_the_same_seed_grows_the_same_weights() -> None:
    network = drawn(VARIANTS["nano"])
    first, second = (grow(network, VARIANTS["small"], seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (FORMER_NANO, {"pixel_top_k": (1, 2, 2)}, "other pixel_top_k"),
        (FORMER_NANO, {"block": "gated"}, "other block"),
        (FORMER_NANO, {"width": 40}, "width 16 cannot grow to width 40"),
        (FORMER_NANO, {"width": 8}, "width 16 cannot grow to width 8"),
        (VARIANTS["nano"], {"width": 16}, "width 32, pixel experts of 16, cannot grow to width 16"),
        (VARIANTS["nano"], {"ffn_expansion": 0.25}, "to width 32, pixel experts of 8: neither may"),
    ],
)
def test_what_cannot_grow_is_refused_in_a_sentence(
    config: MEASNetConfig, changes: dict[str, Any], says: str
) -> None:
    network = MEASNet(config)
    with pytest.raises(UsageError, match=says):
        grow(network, replace(config, **changes))


def test_the_published_network_is_refused_as_a_start() -> None:
    tiny = replace(PUBLISHED_PARTS, frequency_blocks=True)
    with pytest.raises(UsageError, match="without frequency blocks"):
        grow(MEASNet(tiny), replace(tiny, width=16))
