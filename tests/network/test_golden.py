"""The network is MEASNet: it reproduces what the authors' code computes on the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden_case

from measnet.checkpoint import load_checkpoint
from measnet.export.exact import ExactMEASNet
from measnet.network.pixel_experts import NoisyRouting, PixelExperts
from measnet.reference_names import to_our_name


@pytest.mark.parametrize("name", ["tiny_64x64", "tiny_136x200", "base_128x128"])
def test_output_equals_the_authors_code(name: str, golden_checkpoint: Callable[[str], Path]) -> None:
    """Of the network and of its export form. The picture that is large enough for a low band is restored in
    ``tests/export/test_graph.py``."""
    image, expected, stride = golden_case(name)
    network = load_checkpoint(golden_checkpoint(name.split("_")[0]))
    exact = ExactMEASNet(network, (image.shape[2], image.shape[3]))
    with torch.inference_mode():
        given = torch.from_numpy(image)
        for restored in (network(given), exact(given)[0]):
            difference = np.abs(restored.numpy()[0, :, ::stride, ::stride] - expected).max()
            assert difference < 1e-4 * np.ptp(expected)


def test_every_stage_equals_the_authors_code(golden_checkpoint: Callable[[str], Path]) -> None:
    image, _, _ = golden_case("tiny_136x200")
    network = load_checkpoint(golden_checkpoint("tiny"))
    expected = json.loads((GOLDEN / "tiny_136x200.json").read_text())
    ours = {
        "patch_embed": "stem",
        "encoder_level1": "encoder1",
        "encoder_level2": "encoder2",
        "encoder_level3": "encoder3",
        "latent": "latent",
        "block1": "frequency4",
        "block2": "frequency3",
        "block3": "frequency2",
        "decoder_level3": "decoder3",
        "decoder_level2": "decoder2",
        "decoder_level1": "decoder1",
        "refinement": "refinement",
    }
    seen: dict[str, torch.Tensor] = {}
    for stage, module in ours.items():
        network.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, stage=stage: seen.__setitem__(stage, output)
        )
    with torch.inference_mode():
        network(torch.from_numpy(image))
    assert seen.keys() == ours.keys()
    for stage, output in seen.items():
        facts = expected[stage]
        assert list(output.shape) == facts["shape"], stage
        assert output.mean().item() == pytest.approx(facts["mean"], abs=1e-4), stage
        assert output.std().item() == pytest.approx(facts["std"], rel=1e-4), stage
        assert output.flatten()[:6].tolist() == pytest.approx(facts["first"], abs=1e-4), stage
        assert output.flatten()[-6:].tolist() == pytest.approx(facts["last"], abs=1e-4), stage


@pytest.mark.parametrize("recompute", [False, True])
def test_training_step_equals_the_authors_code(
    golden_checkpoint: Callable[[str], Path], recompute: bool
) -> None:
    facts = json.loads((GOLDEN / "tiny_train_64x72.json").read_text())
    case = np.load(GOLDEN / "tiny_train_64x72.npz")
    images = torch.from_numpy(case["images"]).float() / 255
    network = load_checkpoint(golden_checkpoint("tiny")).train()
    network.recompute_blocks(recompute)

    # The golden step was made with every draw of the noisy gate at 0.
    done = network.forward_training(images, NoisyRouting(draw=torch.zeros_like))
    restored, balance = done.restored, done.balance
    l1 = (restored - images.flip(-1)).abs().mean()
    (l1 + facts["loss_weight_of_balance"] * balance).backward()

    assert np.abs(restored.detach().numpy() - case["output"]).max() < 1e-4 * np.ptp(case["output"])
    assert l1.item() == pytest.approx(facts["l1"], rel=1e-3)
    assert balance.item() == pytest.approx(facts["balance"], rel=1e-3)
    parameters = dict(network.named_parameters())
    for name, norm in facts["gradient_norms"].items():
        gradient = parameters[to_our_name(name)].grad
        ours = 0.0 if gradient is None else gradient.norm().item()
        assert ours == pytest.approx(norm, rel=1e-3, abs=1e-9), name


def test_a_batch_chooses_experts_per_image(golden_checkpoint: Callable[[str], Path]) -> None:
    network = load_checkpoint(golden_checkpoint("tiny"))
    generator = torch.Generator().manual_seed(1)
    dark_noisy_flat = torch.stack(
        [
            torch.rand(3, 64, 72, generator=generator) * 0.2,
            torch.rand(3, 64, 72, generator=generator),
            torch.full((3, 64, 72), 0.7),
        ]
    )
    with torch.inference_mode():
        together = network.restore(dark_noisy_flat)
        alone = [network.restore(image[None]) for image in dark_noisy_flat]
    chosen = torch.stack([r.experts for r in together.image_routings], dim=1)  # B S K
    assert len({tuple(row.flatten().tolist()) for row in chosen}) == 3
    for index, one in enumerate(alone):
        difference = (together.restored[index] - one.restored[0]).abs().max()
        assert difference < 1e-4 * (one.restored.max() - one.restored.min())


def test_an_expert_that_overflows_exp_does_not_break_the_ensemble() -> None:
    experts = PixelExperts(4, 8, experts=3, top_k=2, prompted=False)
    expert: Any
    with torch.no_grad():
        for expert in experts.experts:
            expert.project.bias.fill_(200.0)  # exp(200) is infinite in float32
    out, _ = experts(torch.zeros(1, 4, 2, 2), None)
    assert out.isfinite().all()
    assert (out > 190).all()
