"""Gated networks: quiet at first, finite whatever comes, the same however their experts are asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime as ort
import pytest
import torch
from conftest import FORMER_NANO

from measnet.config import PROMPT_BASIS, PROMPT_LENGTH, TONE_STATISTICS, VARIANTS, MEASNetConfig
from measnet.damage import GROUPS, SOUND
from measnet.export.graph import read_graph
from measnet.export.precision import typed_graph
from measnet.network import MEASNet
from measnet.network.gated import LIMIT, GatedBlock, Tone, statistics
from measnet.network.image_experts import ImageExpertBlock
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import NoisyRouting
from measnet.weights import bundled

NANO = VARIANTS["nano"]
SIZE = (128, 144)


def noise(seed: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def bright_spot() -> torch.Tensor:
    picture = noise(2)
    picture[..., 60, 70] = 1e4
    return picture


HOSTILE = {
    "black": torch.zeros(1, 3, *SIZE),
    "white": torch.ones(1, 3, *SIZE),
    "noise of 100": (noise(1) - 0.5) * 100,
    "a spot of 10000": bright_spot(),
}


@pytest.fixture(scope="module")
def lively() -> MEASNet:
    """A network whose branches are as loud as trained ones."""
    torch.manual_seed(0)
    network = MEASNet(NANO).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, GatedBlock):
            for last in (module.project, module.mix_project, module.scale):
                last.weight.mul_(5)
    return network


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_stay_finite(name: str, lively: MEASNet) -> None:
    assert lively(HOSTILE[name]).isfinite().all()


@pytest.fixture(scope="module")
def half() -> ort.InferenceSession:
    """The bundled network in FP16."""
    content = typed_graph(read_graph(bundled("nano", ".onnx")).model, "fp16").model.SerializeToString()
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_stay_finite_in_half_precision(name: str, half: ort.InferenceSession) -> None:
    (restored,) = half.run(["restored"], {"image": HOSTILE[name].numpy()})
    assert np.isfinite(restored).all()


def test_no_gate_lets_more_through_than_its_limit() -> None:
    torch.manual_seed(0)
    block = GatedBlock(8, prompted=True).eval().requires_grad_(False)
    x, prompt = torch.randn(1, 8, 16, 16), torch.randn(1, PROMPT_LENGTH)
    seen: dict[str, torch.Tensor] = {}
    for name in ("value_depthwise", "project", "mix_value", "mix_project"):
        block.get_submodule(name).register_forward_hook(
            lambda module, given, made, name=name: seen.update({name: made, f"{name} given": given[0]})
        )
    block(x * 1e3, prompt=prompt * 1e3)
    filtered = seen["value_depthwise"].abs() * LIMIT * LIMIT
    assert (seen["project given"].abs() <= filtered * 1.0001).all()
    assert (seen["mix_project given"].abs() <= seen["mix_value"].abs() * LIMIT * 1.0001).all()


def test_a_block_begins_by_adding_little() -> None:
    torch.manual_seed(0)
    block = GatedBlock(32, prompted=True)
    x = torch.randn(2, 32, 16, 16)
    added = block(x, prompt=torch.randn(2, PROMPT_LENGTH)) - x
    assert 0 < added.square().mean() < 0.03 * x.square().mean()


@pytest.mark.parametrize("name", ["nano", "small"])
def test_untrained_routers_of_images_tell_pictures_apart(name: str) -> None:
    torch.manual_seed(0)
    network = MEASNet(VARIANTS[name]).eval()
    dark, light = noise(5) * 0.2, noise(6) * 0.5 + 0.5
    flat = torch.full_like(dark, 0.5)
    with torch.no_grad():
        demands = [[r.demand for r in network.restore(image).image_routings] for image in (dark, light, flat)]
    for high_and_low in zip(*demands, strict=True):
        assert torch.cat(high_and_low).std(dim=0).mean() > 1e-3  # by PyTorch's own first weights: 1e-5


@pytest.mark.parametrize("name", ["nano", "small"])
def test_an_untrained_network_is_close_to_what_it_is_given(name: str) -> None:
    torch.manual_seed(0)
    image = noise(3)
    with torch.no_grad():
        change = MEASNet(VARIANTS[name]).eval()(image) - image
    assert 0 < change.square().mean().sqrt() < 0.25


def test_an_untrained_tone_leaves_the_picture_alone() -> None:
    image = noise(4)
    assert torch.equal(Tone()(image, None), image)


@torch.no_grad()
def test_a_tone_is_a_gain_and_an_offset_for_each_colour_of_the_whole_picture() -> None:
    tone, image = Tone(), noise(4)
    tone.lean[0].copy_(torch.tensor([0.5, 0.0, -0.5, 0.1, 0.2, 0.3, 1.0]))
    gain = torch.tensor([0.5, 0.0, -0.5]).exp()[:, None, None]
    offset = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    assert torch.allclose(tone(image, None), image * gain + offset, atol=1e-6)


@torch.no_grad()
def test_a_tone_whose_gate_is_shut_leaves_the_picture_alone() -> None:
    tone, image = Tone(), noise(4)
    tone.lean[0].copy_(torch.tensor([0.5, 0.0, -0.5, 0.1, 0.2, 0.3, -0.1]))
    assert torch.equal(tone(image, None), image)


def certain(share: float, of: str) -> torch.Tensor:
    """1 T: prompt weights with that share of one damage, the rest shared by those of sound pictures."""
    weights = torch.zeros(1, PROMPT_BASIS)
    for name, all_of_it in ((of, share), (SOUND, 1 - share)):
        group = weights[:, GROUPS[name]]
        group += all_of_it / group.numel()
    return weights


@torch.no_grad()
def test_the_judge_of_a_damage_is_followed_as_far_as_the_prompt_says_so() -> None:
    tone, image = Tone(), noise(4)
    tone.followed.copy_(torch.tensor([[0.4, 0.6], [0.6, 0.8]]))
    for judge, offset in enumerate((0.1, 0.2, 0.4)):  # the careful one, of haze, of darkness
        tone.lean[judge].copy_(torch.tensor([0.0, 0.0, 0.0, offset, offset, offset, 1.0]))
    for share, of, offset in (
        (0.3, "haze", 0.1),
        (0.5, "haze", 0.15),
        (0.9, "haze", 0.2),
        (0.5, "dark", 0.1),
        (0.7, "dark", 0.25),
        (1.0, "dark", 0.4),
        (1.0, "rain", 0.1),
    ):
        assert torch.allclose(tone(image, certain(share, of)), image + offset, atol=1e-5), (share, of)
    both = (certain(1, "haze") + certain(1, "dark")) * 0.7
    tone.followed.copy_(torch.tensor([[0.1, 0.1], [0.2, 0.2]]))
    assert torch.allclose(tone(image, both), image + 0.3, atol=1e-5)


@torch.no_grad()
def test_every_part_of_the_network_but_the_prompt_sees_the_toned_picture() -> None:
    torch.manual_seed(0)
    network, image = MEASNet(NANO).eval(), noise(4)
    assert network.tone is not None
    prompt = network.restore(image).prompt_weights
    network.tone.lean[0].copy_(torch.tensor([-1.0, -1.0, -1.0, 0.2, 0.2, 0.2, 1.0]))
    toned = network.restore(image)
    assert torch.equal(toned.prompt_weights, prompt)
    light = network.tone(image, prompt)
    network.tone = None
    assert not torch.equal(network.restore(light).prompt_weights, prompt)
    assert (network(light) - toned.restored).abs().max() < 0.05  # but for what the prompt says


def test_statistics_are_one_vector_for_each_block_of_the_picture() -> None:
    assert statistics(noise(4)).shape == (1, TONE_STATISTICS, SIZE[0] // 8, SIZE[1] // 8)


def test_the_prompt_speaks_to_every_block() -> None:
    torch.manual_seed(0)
    block, x = GatedBlock(8, prompted=True), torch.randn(1, 8, 16, 16)
    one, other = (block(x, prompt=torch.full((1, PROMPT_LENGTH), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(NANO, width=8, image_experts=(0, 3, 5)),
        dataclasses.replace(FORMER_NANO, ensemble="weighted_sum", width=8),
    ],
    ids=["gated", "transformer"],
)
def test_asking_all_experts_changes_neither_picture_nor_losses_nor_gradients(config: MEASNetConfig) -> None:
    torch.manual_seed(0)
    network, images = MEASNet(config), noise(5, batch=3)
    still = NoisyRouting(draw=torch.zeros_like)

    def trained(ask_all: bool) -> tuple[TrainingPass, dict[str, torch.Tensor]]:
        network.ask_all_experts(ask_all)
        network.zero_grad()
        done = network.forward_training(images, still)
        ((done.restored - images).abs().mean() + 1e-2 * done.balance).backward()
        return done, {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    (dispatched, grads), (asked, all_grads) = trained(False), trained(True)
    assert torch.allclose(dispatched.restored, asked.restored, atol=1e-5)
    assert dispatched.balance.item() == pytest.approx(asked.balance.item(), rel=1e-5)
    assert set(grads) <= set(all_grads)  # an expert that nobody chose has gradients of 0 instead of none
    for name, gradient in all_grads.items():
        expected = grads.get(name, torch.zeros_like(gradient))
        assert torch.allclose(expected, gradient, rtol=1e-3, atol=1e-6), name


def test_pixels_of_nearly_equal_channels_do_not_blow_up_gradients() -> None:
    torch.manual_seed(0)
    block = ImageExpertBlock(32, 4, 2, light=True)
    x = (0.5 + 1e-5 * torch.randn(2, 32, 32, 32)).requires_grad_(True)
    block(x)[0].mean(dim=(0, 2, 3)).sum().backward()
    assert x.grad is not None
    assert x.grad.norm() * x.numel() ** 0.5 / 32 < 10  # that of the sum without the block is 1


def test_what_is_asked_of_an_image_router_moves_it_alone() -> None:
    torch.manual_seed(0)
    block, x = ImageExpertBlock(32, 4, 2, light=True), torch.randn(2, 32, 32, 32, requires_grad=True)
    block(x)[1].asked.square().sum().backward()
    assert x.grad is None
    moved = {name for name, weight in block.named_parameters() if weight.grad is not None}
    assert moved == {"experts.scores.weight"}


@torch.no_grad()
def test_a_network_gives_a_smooth_gain_and_a_residual_of_each_pixel() -> None:
    torch.manual_seed(0)
    network, image = MEASNet(NANO).eval(), noise(4)
    shown: list[torch.Tensor] = []
    network.output.register_forward_hook(lambda module, given, gives: shown.append(gives))
    restored = network(image)
    residual, gain = shown[0].split([3 * NANO.stem_scale**2, 3], dim=1)
    residual = torch.nn.functional.pixel_shuffle(residual, NANO.stem_scale)
    gain = torch.nn.functional.interpolate(gain, size=image.shape[2:], mode="bilinear")
    assert torch.allclose(restored, image * (1 + gain) + residual, atol=1e-6)
