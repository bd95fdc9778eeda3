"""The first tone: fitted on means, it brings back what is dark and leaves what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from measnet.network.gated import Tone
from measnet.train.data.pack import read_pack
from measnet.train.data.packed_crops import PackedCrops
from measnet.train.data.packing import Packing, plan_pack, write_pack
from measnet.train.data.sets import ImageSet
from measnet.train.first_tone import fit_tone

TASKS = {"lowlight": 1.0, "keep": 1.0}


@pytest.fixture(scope="module")
def crops(clean: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> PackedCrops:
    path: Path = tmp_path_factory.mktemp("pack") / "set.pack"
    write_pack(plan_pack([clean], TASKS, Packing(24, side=144)), path, workers=1)
    return PackedCrops(read_pack(path, 128), TASKS, crop=128, seed=0)


def errors(tone: Tone, crops: PackedCrops) -> dict[str, float]:
    batch = crops.batch(1, 32)
    with torch.no_grad():
        off = (tone(batch.degraded) - batch.clean).square().mean(dim=(1, 2, 3))
    return {task: off[batch.tasks == number].mean().item() for number, task in enumerate(crops.tasks)}


def test_it_undoes_most_of_the_darkness_and_leaves_good_pictures_alone(crops: PackedCrops) -> None:
    torch.manual_seed(0)
    tone = Tone()
    before = errors(tone, crops)
    fit_tone(tone, crops, 512)
    after = errors(tone, crops)
    assert after["lowlight"] < before["lowlight"] / 4
    assert after["keep"] < 1e-3


def test_it_is_the_same_each_time(crops: PackedCrops) -> None:
    fitted = []
    for _ in range(2):
        torch.manual_seed(0)
        tone = Tone()
        fit_tone(tone, crops, 32)
        fitted.append(torch.cat([weight.detach().flatten() for weight in tone.parameters()]))
    assert torch.equal(*fitted)
    assert fitted[0].isfinite().all()
