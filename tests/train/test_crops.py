"""Samples: the same every time, drawn as often as asked, pairs kept together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from measnet.errors import InputError
from measnet.train.data.crops import Augmentation, Draw, TrainingCrops
from measnet.train.data.mixture import mix
from measnet.train.data.sets import ImageSet, Pair


def draws(clean: ImageSet, **weights: float) -> list[Draw]:
    return [Draw(clean, task, weight) for task, weight in weights.items()]


@pytest.fixture
def pairs(tmp_path: Path) -> ImageSet:
    """Two pairs whose degraded picture is half as bright as the clean one."""
    found = []
    rng = np.random.default_rng(1)
    for index in range(2):
        clean = rng.integers(0, 128, (140, 160, 3)).astype(np.uint8) * 2
        paths = [tmp_path / f"{role}{index}.png" for role in ("dark", "light")]
        cv2.imwrite(str(paths[0]), clean // 2)
        cv2.imwrite(str(paths[1]), clean)
        found.append(Pair(*paths))
    return ImageSet("night", "lowlight", tuple(found))


def test_a_sample_depends_on_the_seed_and_its_number_alone(clean: ImageSet) -> None:
    def crops(seed: int, samples: int) -> TrainingCrops:
        tasks = draws(clean, denoise=1, derain=1, deblur=1)
        return TrainingCrops(tasks, crop=128, samples=samples, seed=seed, augmentation=Augmentation(zoom=0.5))

    a, b, other = crops(1, 10), crops(1, 20), crops(2, 10)
    for index in (7, 0):
        assert torch.equal(a[index][0], b[index][0]) and torch.equal(a[index][1], b[index][1])
    assert not torch.equal(a[0][0], other[0][0])
    degraded, target, draw = a[3]
    assert degraded.shape == target.shape == (3, 128, 128) and 0 <= draw < 3
    assert torch.equal((degraded * 255).round() / 255, degraded)


def test_tasks_are_drawn_as_often_as_their_weights_say(clean: ImageSet) -> None:
    crops = TrainingCrops(draws(clean, denoise=3, denoise50=1), crop=128, samples=400, seed=0)
    seen = Counter(crops[index][2] for index in range(400))
    assert seen[0] == pytest.approx(300, abs=35)


def test_an_epoch_holds_every_picture_as_often_as_released(clean: ImageSet, pairs: ImageSet) -> None:
    tasks = [Draw(clean, "denoise15", 3), Draw(pairs, "lowlight", 20)]
    crops = TrainingCrops(tasks, crop=128, samples=98, seed=0, epochs=True)
    assert crops.order is not None and len(crops.order) == 3 * 3 + 2 * 20
    first, second = ([crops._choose(np.random.default_rng(0), e * 49 + i) for i in range(49)] for e in (0, 1))
    assert Counter(first) == Counter(second) and first != second
    assert set(Counter(first).values()) == {3, 20}


def test_stored_pairs_are_cropped_and_turned_together(pairs: ImageSet) -> None:
    crops = TrainingCrops([Draw(pairs, "lowlight", 1)], crop=64, samples=20, seed=0)
    for index in range(20):
        degraded, target, _ = crops[index]
        assert torch.equal((degraded * 510).round(), (target * 255).round())


def test_plain_pictures_are_to_be_kept_and_nothing_else_changes(clean: ImageSet) -> None:
    def crops(plain: float, task: str) -> TrainingCrops:
        drawn = draws(clean, **{task: 1.0})
        return TrainingCrops(drawn, crop=128, samples=40, seed=3, augmentation=Augmentation(plain=plain))

    as_they_are, plain = crops(0, "keep"), crops(1, "keep")
    contrasts = []
    for index in range(40):
        degraded, target, _ = plain[index]
        assert (degraded - target).abs().mean() < 0.02  # light compression, at most
        contrasts.append((target.std() / as_they_are[index][1].std()).item())
    assert min(contrasts) < 0.4 and np.mean(contrasts) < 0.85
    assert torch.equal(crops(0, "dehaze")[5][0], crops(1, "dehaze")[5][0])


def test_the_released_augmentation_never_leaves_a_crop_untouched(pairs: ImageSet) -> None:
    whole = ImageSet("night", "lowlight", pairs.pairs[:1])
    crops = TrainingCrops([Draw(whole, "lowlight", 1)], crop=140, samples=60, seed=0)
    stored = crops.store[whole.pairs[0].clean]

    def untouched(augmentation: Augmentation) -> int:
        crops.augmentation = augmentation
        found = 0
        for index in range(60):
            target = (crops[index][1] * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0)
            found += any((target == stored[:140, left : left + 140]).all() for left in range(21))
        return found

    assert untouched(Augmentation(turns=7)) == 0
    assert untouched(Augmentation(turns=8)) > 0


def test_darker_real_pairs_keep_their_targets(pairs: ImageSet) -> None:
    crops = TrainingCrops(
        [Draw(pairs, "lowlight", 1)], crop=64, samples=10, seed=0, augmentation=Augmentation(dim=0.5)
    )
    for index in range(10):
        degraded, target, _ = crops[index]
        assert 0.2 < degraded.mean() / target.mean() <= 0.501


def test_real_pairs_and_clean_pictures_share_a_task(clean: ImageSet, pairs: ImageSet) -> None:
    mixed = mix([clean, pairs], {"lowlight": 2, "denoise": 1}, pairs_share=0.25, epochs=False)
    assert {(draw.images.name, draw.task): draw.weight for draw in mixed} == {
        ("night", "lowlight"): 0.5,
        ("pictures", "lowlight"): 1.5,
        ("pictures", "denoise"): 1,
    }
    epochs = mix([clean, pairs], {"lowlight": 20, "denoise15": 3}, pairs_share=0.25, epochs=True)
    assert [(draw.images.name, draw.weight) for draw in epochs] == [("night", 20), ("pictures", 3)]


def test_every_task_without_data_is_named(pairs: ImageSet) -> None:
    with pytest.raises(InputError, match="no data for derain, dehaze"):
        mix([pairs], {"derain": 1, "lowlight": 1, "dehaze": 1}, pairs_share=0.5, epochs=False)


def test_pictures_smaller_than_the_crop_are_left_out_and_none_at_all_is_an_error(
    clean: ImageSet, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((50, 400, 3), np.uint8))
    small = Pair(None, tmp_path / "small.png")
    mixed = ImageSet("mixed", "clean", (small, *clean.pairs))
    crops = TrainingCrops([Draw(mixed, "denoise", 1)], crop=128, samples=5, seed=0)
    assert len(crops.pairs[0]) == len(clean.pairs)
    with pytest.raises(InputError, match="as large as the crop, 128 x 128"):
        TrainingCrops([Draw(ImageSet("s", "clean", (small,)), "denoise", 1)], crop=128, samples=5, seed=0)


def test_a_pair_of_unequal_sizes_is_named(pairs: ImageSet, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dark0.png"), np.zeros((150, 160, 3), np.uint8))
    crops = TrainingCrops([Draw(pairs, "lowlight", 1)], crop=64, samples=20, seed=0)
    with pytest.raises(InputError, match=r"dark0\.png is 160 x 150 pixels and .*light0\.png is 160 x 140"):
        for index in range(20):
            crops[index]
