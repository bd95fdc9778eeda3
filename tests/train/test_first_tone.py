"""The first tone: fitted on means, it brings back what is dark and leaves what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from measnet.config import PROMPT_BASIS
from measnet.damage import GROUPS
from measnet.network.gated import Tone
from measnet.train.cadence import Cadence
from measnet.train.data.pack import Pack, read_pack
from measnet.train.data.packed_crops import PackedCrops
from measnet.train.data.packing import Packing, plan_pack, write_pack
from measnet.train.data.pictures import read_picture
from measnet.train.data.sets import ImageSet
from measnet.train.first_tone import fit_tone, seen_in, seen_of
from measnet.train.lit import lit

TASKS = {"lowlight": 1.0, "keep": 1.0, "denoise15": 1.0}


@pytest.fixture(scope="module")
def pack(clean: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    path: Path = tmp_path_factory.mktemp("pack") / "set.pack"
    write_pack(plan_pack([clean], TASKS, Packing(24, side=144)), path, workers=1)
    return read_pack(path, 128)


@pytest.fixture(scope="module")
def fitted(pack: Pack) -> Tone:
    return fit(pack)


def fit(pack: Pack, steps: int = Cadence.tone_steps) -> Tone:
    torch.manual_seed(0)
    tone = Tone()
    fit_tone(tone, pack, seen_of(pack), seed=0, taught=True, steps=steps)
    return tone


def errors(tone: Tone, pack: Pack, prompt: Tensor | None = None) -> dict[str, float]:
    """Mean squared error of each task's crops, toned as the pictures that they come from."""
    crops = PackedCrops(pack, TASKS, crop=128, seed=0)
    batch = crops.batch(1, 32)
    toned = tone(batch.degraded, prompt, seen_of(pack)[batch.rows])
    off = (toned - batch.clean).square().mean(dim=(1, 2, 3))
    return {task: off[batch.tasks == number].mean().item() for number, task in enumerate(crops.tasks)}


def test_it_undoes_most_of_the_darkness_and_leaves_good_pictures_alone(pack: Pack, fitted: Tone) -> None:
    before, after = errors(Tone().requires_grad_(False), pack), errors(fitted, pack)
    assert after["lowlight"] < before["lowlight"] / 4
    assert after["keep"] < 1e-3
    assert after["denoise15"] < before["denoise15"] * 1.1


def test_the_judge_of_darkness_undoes_it_and_one_without_pictures_is_the_careful_one(
    pack: Pack, fitted: Tone
) -> None:
    dark, hazy = torch.zeros(2, 32, PROMPT_BASIS)
    for prompt, name in ((dark, "dark"), (hazy, "haze")):
        prompt[:, GROUPS[name]] = 1 / prompt[:, GROUPS[name]].shape[1]
    before, careful = errors(Tone().requires_grad_(False), pack), errors(fitted, pack)
    assert errors(fitted, pack, dark)["lowlight"] < before["lowlight"] / 4
    assert errors(fitted, pack, dark) != careful
    assert errors(fitted, pack, hazy) == pytest.approx(careful)  # the pack has no haze


def test_the_judge_of_darkness_leaves_alone_what_is_dark_but_for_its_lights(
    clean: ImageSet, fitted: Tone
) -> None:
    prompt = torch.zeros(1, PROMPT_BASIS)
    prompt[:, GROUPS["dark"]] = 1 / prompt[:, GROUPS["dark"]].shape[1]
    rng = torch.Generator().manual_seed(99)
    moved: list[float] = []
    dark: list[float] = []
    for pair in clean.pairs * 4:
        undamaged = torch.from_numpy(read_picture(pair.clean)).permute(2, 0, 1)[None, :, :144, :144] / 255
        for shown, found in [(picture, moved) for picture in lit(undamaged, rng)] + [(undamaged / 10, dark)]:
            gain, offset = fitted.gain_and_offset(seen_in(shown), prompt)
            mean = shown.mean(dim=(2, 3))
            found.append((mean * gain + offset - mean).abs().max().item() * 255)
    assert sum(levels > 3 for levels in moved) <= len(moved) / 3  # unless it saw such: 66 of 72
    assert min(dark) > 30  # no lights


def test_lit_pictures_are_dark_but_for_some_pixels(clean: ImageSet) -> None:
    undamaged = torch.stack([torch.from_numpy(read_picture(pair.clean)) for pair in clean.pairs])
    undamaged = undamaged.permute(0, 3, 1, 2) / 255
    before = undamaged.clone()
    kinds = list(lit(undamaged, torch.Generator().manual_seed(3)))
    again = list(lit(undamaged, torch.Generator().manual_seed(3)))
    assert torch.equal(undamaged, before)
    for picture, same in zip(kinds, again, strict=True):
        assert torch.equal(picture, same)
        assert picture.shape == undamaged.shape and picture.min() >= 0 and picture.max() <= 1
        assert (picture.amax(dim=(1, 2, 3)) > 0.2).all()
        assert picture.mean() < undamaged.mean()


def test_a_prompt_that_was_taught_nothing_is_not_followed(pack: Pack) -> None:
    tone = Tone()
    fit_tone(tone, pack, seen_of(pack), seed=0, taught=False, steps=5)
    assert (tone.followed > 1).all()


def test_small_parts_of_good_pictures_are_left_alone(clean: ImageSet, fitted: Tone) -> None:
    """A camera close to a wall or a road sees no more than such a part, which looks like haze."""
    moved = []
    for pair in clean.pairs:
        picture = torch.from_numpy(read_picture(pair.clean)).permute(2, 0, 1)[None] / 255
        for side in (48, 64, 96):
            for part in picture.unfold(2, side, 16).unfold(3, side, 16).flatten(2, 3)[0].unbind(1):
                gain, offset = fitted.gain_and_offset(seen_in(part[None]), None)
                after = part.mean(dim=(1, 2)) * gain + offset
                moved.append((after - part.mean(dim=(1, 2))).abs().max().item() * 255)
    assert len(moved) > 50
    assert sum(levels > 3 for levels in moved) <= len(moved) / 20
    assert max(moved) < 30


def test_it_is_the_same_each_time_and_held_from_then_on(pack: Pack) -> None:
    for ours, theirs in zip(fit(pack, 5).parameters(), fit(pack, 5).parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.isfinite().all()
        assert not ours.requires_grad


def test_it_is_the_same_in_sixteen_bits(pack: Pack, fitted: Tone) -> None:
    seen = seen_of(pack)
    gain, offset = fitted.gain_and_offset(seen, None)
    with torch.autocast("cpu", torch.bfloat16):
        less = fitted.gain_and_offset(seen, None)
    assert (gain - less[0]).abs().max() < 0.05 and (offset - less[1]).abs().max() < 0.02
