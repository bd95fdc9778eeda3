"""Image-level decisions: written down, given from outside, and put together from pieces of a picture."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import FORMER_NANO

from measnet.config import VARIANTS, MEASNetConfig
from measnet.decision_layout import DecisionLayout
from measnet.network import MEASNet
from measnet.network.decisions import SteeredDecision, SteeredNetwork, _Pass, layout_of
from measnet.network.gated import QUIET, GatedBlock

TINY = dataclasses.replace(FORMER_NANO, width=8, blocks=(1, 1, 1, 1), refinement_blocks=1, heads=(1, 1, 2, 2))
GATED = dataclasses.replace(VARIANTS["nano"], width=8, blocks=(1, 1, 1, 1))

FREQUENCIES: dict[str, Any] = {"frequency_blocks": True, "width": 16, "stem_scale": 1}
"""With the frequency blocks of ``base``."""

EVERY_KIND = pytest.mark.parametrize(
    "config",
    [TINY, dataclasses.replace(TINY, **FREQUENCIES), GATED],
    ids=["transformer", "with frequency blocks", "gated"],
)


def network(config: MEASNetConfig) -> MEASNet:
    torch.manual_seed(3)
    made = MEASNet(config).eval().requires_grad_(False)
    for scores in (p for name, p in made.named_parameters() if name.endswith("scores")):
        torch.nn.init.normal_(scores)
    if config.block == "gated":
        assert made.tone is not None
        torch.nn.init.normal_(made.tone.decide, std=0.3)  # untrained it leaves the picture alone
        for block in (block for block in made.modules() if isinstance(block, GatedBlock)):
            for last in (block.project, block.mix_project):
                last.weight.mul_(1 / QUIET)
    for gain in (p for name, p in made.named_parameters() if name.endswith("joined_gain")):
        torch.nn.init.normal_(gain)  # untrained frequency blocks add nothing
    return made


class Steered(NamedTuple):
    restored: torch.Tensor
    own: torch.Tensor
    norms: torch.Tensor


def steered(
    made: MEASNet, image: torch.Tensor, held: np.ndarray, share: float, window: torch.Tensor | None = None
) -> Steered:
    network = SteeredNetwork.of(made)
    window = torch.ones_like(image[:, :1]) if window is None else window
    hold = torch.from_numpy(network.layout.hold(share))[None]
    done, own, norms = network.restore(image, window, torch.from_numpy(held)[None], hold)
    return Steered(done.restored, own, norms)


@pytest.mark.parametrize(
    "config",
    [
        *(
            dataclasses.replace(tiny, **changes)
            for tiny in (TINY, GATED)
            for changes in (
                {},
                {"tspg": False},
                {"fd": False},
                {"mee": False},
                {"image_experts": (0, 3, 5)},
                {"refinement_blocks": 0, "blocks": (0, 1, 2, 3)},
            )
        ),
        dataclasses.replace(TINY, **FREQUENCIES),
    ],
)
def test_the_layout_has_every_decision_in_the_order_in_which_the_network_takes_them(
    config: MEASNetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, order = network(config), []
    settle = SteeredDecision.settle

    def noted(point: SteeredDecision, own: torch.Tensor) -> torch.Tensor:
        order.append(point.part.name)
        return settle(point, own)

    monkeypatch.setattr(SteeredDecision, "settle", noted)
    layout = layout_of(made)
    done = steered(made, torch.rand(1, 3, 128, 144), layout.hold(0), 0.0)
    assert done.own.shape == (1, layout.size)
    assert done.norms.shape == (1, layout.norms_size)
    assert order == [part.name for part in layout.parts] and len(set(order)) == len(order)
    assert DecisionLayout.from_json(layout.to_json()) == layout


def test_a_network_that_is_steered_leaves_the_one_whose_weights_it_shares_as_it_is() -> None:
    made = network(GATED)
    names = list(made.state_dict())
    other = SteeredNetwork.of(made)
    assert not any(isinstance(module, SteeredDecision) for module in made.modules())
    assert list(other.network.state_dict()) == names
    assert all(a is b for a, b in zip(made.parameters(), other.network.parameters(), strict=True))


@pytest.mark.parametrize(
    "text", ["{}", "[[]]", '[["a", "mean", 0]]', '[["a", "mood", 3]]', '[["a", "attention", 3]]']
)
def test_a_damaged_layout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decision"):
        DecisionLayout.from_json(text)


@EVERY_KIND
def test_a_network_that_holds_nothing_computes_what_it_does_by_itself(config: MEASNetConfig) -> None:
    made, image = network(config), torch.rand(1, 3, 128, 144)
    restored = steered(made, image, layout_of(made).hold(0), 0.0).restored
    assert torch.equal(restored, made(image))


@EVERY_KIND
def test_decisions_of_another_picture_are_followed(config: MEASNetConfig) -> None:
    made = network(config)
    one, other = torch.rand(1, 3, 128, 144), torch.rand(1, 3, 128, 144) * 0.3
    own, of_one, _ = steered(made, one, layout_of(made).hold(0), 0.0)
    held = of_one[0].numpy()
    again = steered(made, one, held, 1.0).restored
    assert (again - own).abs().max() < 1e-5
    foreign = steered(made, other, held, 1.0).restored
    half = steered(made, other, held, 0.5).restored
    free = made(other)
    assert (foreign - free).abs().max() > 1e-3
    assert 0 < (half - free).abs().mean() < (foreign - free).abs().mean()


def test_the_largest_of_all_pieces_is_the_pictures_peak() -> None:
    layout = layout_of(network(dataclasses.replace(TINY, **FREQUENCIES)))
    peak = next(part for part in layout.parts if part.kind == "peak")
    pieces = [layout.hold(value) for value in (0.25, -3.0, 1.5)]
    whole = layout.combine(pieces, [np.ones(layout.norms_size, np.float32)] * 3, [10, 1, 1])
    assert (whole[peak.numbers] == 1.5).all()
    assert np.allclose(whole[: peak.start][:32], (0.25 * 10 - 3 + 1.5) / 12)


def test_what_lies_outside_the_window_is_no_peak() -> None:
    window = torch.zeros(1, 1, 8, 8)
    window[..., :4] = 1
    x = torch.full((1, 2, 4, 4), -7.0)
    x[..., 2:] = 5
    made = SteeredNetwork(network(dataclasses.replace(TINY, **FREQUENCIES)))
    point = next(m for m in made.network.modules() if isinstance(m, SteeredDecision) and m.kind == "peak")
    point.now = _Pass(window, torch.zeros(1, 2), torch.zeros(1, 2))
    assert (point.peak(x) == -7).all()


@pytest.mark.parametrize("config", [TINY, GATED], ids=["transformer", "gated"])
def test_pieces_that_count_each_pixel_once_make_up_the_whole_pictures_decisions(
    config: MEASNetConfig,
) -> None:
    # With the whole picture's decisions given, what each piece says of its own part must add up to the same
    # again: windows, norms and shares of pixels are then right.
    made, image = network(config), torch.rand(1, 3, 128, 512)
    image[..., 256:] *= 0.2
    layout = layout_of(made)
    held = steered(made, image, layout.hold(0), 0.0).own[0].numpy()
    decisions, norms, pixels = [], [], []
    for first, last, left, right in ((0, 320, 0, 192), (64, 512, 192, 512)):  # a tile, and its own columns
        window = torch.zeros(1, 1, 128, last - first)
        window[..., left - first : right - first] = 1
        piece = steered(made, image[..., first:last], held, 1.0, window)
        decisions.append(piece.own[0].numpy())
        norms.append(piece.norms[0].numpy())
        pixels.append(int(window.sum()))
    error = np.abs(layout.combine(decisions, norms, pixels) - held).mean()
    unweighted = np.abs(layout.combine(decisions, norms, [1, 1]) - held).mean()
    assert error < 0.25 * unweighted
    if layout.norms_size:
        no_norms = np.abs(np.average(np.stack(decisions), axis=0, weights=pixels) - held).mean()
        assert error < 0.25 * no_norms
    else:
        assert {part.kind for part in layout.parts} == {"prompt", "mean", "filters", "experts"}
