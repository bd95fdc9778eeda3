"""A smaller network's weights, grown into a larger network."""

from dataclasses import replace

import pytest
import torch

from measnet.checkpoint import load_checkpoint
from measnet.config import MEASNetConfig
from measnet.errors import UsageError
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.growth import grow
from measnet.weights import bundled

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


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 128, 144, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"width": 32}, id="twice as wide"),
        pytest.param({"width": 48, "blocks": (2, 1, 1, 3)}, id="three times as wide, deeper"),
        pytest.param({"blocks": (2, 2, 2, 2), "refinement_blocks": 1}, id="deeper"),
    ],
)
def test_a_grown_network_computes_what_the_smaller_one_does(changes, images):
    network = load_checkpoint(bundled("nano", ".safetensors")).eval()
    larger = grow(network, replace(network.config, **changes))
    with torch.no_grad():
        expected, grown = network.restore(images), larger.restore(images)
    assert (grown.restored - expected.restored).abs().max() < 1e-5
    assert torch.equal(grown.image_experts(), expected.image_experts())
    agree = (grown.pixel_experts() == expected.pixel_experts()).float().mean()
    assert agree > 0.9999  # a pixel between two experts may tip


def test_every_part_grows_with_experts_at_all_levels(images):
    torch.manual_seed(1)
    from measnet.network import MEASNet

    network = MEASNet(PUBLISHED_PARTS).eval()
    larger = grow(network, replace(PUBLISHED_PARTS, width=16))
    still = NoisyRouting(draw=torch.zeros_like)
    with torch.no_grad():
        expected, grown = (each.forward_training(images, still) for each in (network, larger))
    assert (grown.restored - expected.restored).abs().max() < 1e-4
    assert grown.balance.item() == pytest.approx(expected.balance.item(), rel=1e-3)


def test_copies_of_a_channel_learn_different_things(images):
    network = load_checkpoint(bundled("nano", ".safetensors"))
    larger = grow(network, replace(network.config, width=32)).train()
    larger.forward_training(images).restored.square().mean().backward()
    gradient = larger.stem.weight.grad
    assert gradient is not None
    twins = gradient[0::2] - gradient[1::2]
    assert (twins.flatten(1).norm(dim=1) > 1e-3 * gradient[0::2].flatten(1).norm(dim=1)).all()


def test_the_same_seed_grows_the_same_weights():
    network = load_checkpoint(bundled("nano", ".safetensors"))
    wider = replace(network.config, width=2 * network.config.width)
    first, second = (grow(network, wider, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pixel_top_k": (1, 2, 2)}, "other pixel_top_k"),
        ({"width": 40}, "width 16 cannot grow to width 40"),
        ({"width": 8}, "width 16 cannot grow to width 8"),
    ],
)
def test_what_cannot_grow_is_refused_in_a_sentence(changes, says):
    network = load_checkpoint(bundled("nano", ".safetensors"))
    with pytest.raises(UsageError, match=says):
        grow(network, replace(network.config, **changes))


def test_the_published_network_is_refused_as_a_start():
    from measnet.network import MEASNet

    tiny = replace(PUBLISHED_PARTS, frequency_blocks=True)
    with pytest.raises(UsageError, match="without frequency blocks"):
        grow(MEASNet(tiny), replace(tiny, width=16))
