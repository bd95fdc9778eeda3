"""Packs: what goes in comes out, and damaged ones are refused; crops are one place in both pictures."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from full_disk import files_of_at_most
from safetensors.torch import load_file, save_file

from measnet.damage import DAMAGE
from measnet.errors import InputError, OutputError
from measnet.train.data.pack import CLEAN, Pack, PackedPair, PackError, PackWriter, read_pack
from measnet.train.data.packed_crops import PackedBatch, PackedCrops
from measnet.train.data.packing import Packing, plan_pack, write_pack
from measnet.train.data.sets import ImageSet, Pair

CROP = 64
NONE = (0.0,) * len(DAMAGE)
SOME = (0.5, 0.0, 0.25, 0.0, 1.0, 0.0)
FACTS = {"measnet.pack": "1", "measnet.pack.tasks": json.dumps(["coded"])}


def picture(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pairs() -> list[PackedPair]:
    return [
        PackedPair(CLEAN, None, picture(1), NONE, False),
        PackedPair("derain", picture(2, 71, 83), picture(3, 71, 83), SOME, False),
        PackedPair("derain", picture(4), picture(5), NONE, True),
        PackedPair("coded", picture(6, 67, 65), picture(7, 67, 65), SOME, False),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with PackWriter(tmp_path / "set.pack") as writer:
        for pair in pairs():
            writer.add(pair)
    return tmp_path / "set.pack"


def cut_out(pack: Pack, row: int, column: int) -> np.ndarray:
    start, height, width = (int(pack.entries[row, c]) for c in (column, 3, 4))
    return pack.pixels[start : start + height * width * 3].reshape(height, width, 3).numpy()


def test_a_pack_gives_back_every_pixel(path: Path) -> None:
    pack = read_pack(path, CROP)
    assert pack.tasks == (CLEAN, "derain", "coded")
    for row, pair in enumerate(pairs()):
        assert pack.tasks[int(pack.entries[row, 0])] == pair.task
        assert bool(pack.entries[row, 5]) == pair.real
        assert pack.damage[row].tolist() == pytest.approx(pair.damage)
        assert np.array_equal(cut_out(pack, row, 2), pair.clean)
        assert np.array_equal(cut_out(pack, row, 1), pair.clean if pair.degraded is None else pair.degraded)
    assert pack.entries[0, 1] == pack.entries[0, 2], "a clean picture is stored once"
    assert (pack.count("derain"), pack.count("derain", real=True), pack.count("dehaze")) == (2, 1, 0)


def test_a_pack_is_a_sound_safetensors_file(path: Path) -> None:
    assert set(load_file(path)) == {"pixels", "entries", "damage"}


@pytest.mark.parametrize("share", [0, 1e-4, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_pack_that_is_cut_off_anywhere_says_to_pack_anew(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PackError, match="remove it to pack anew") as caught:
        read_pack(path, CROP)
    assert "\n" not in str(caught.value)


def entries(**changes: int) -> torch.Tensor:
    columns = ("task", "degraded", "clean", "height", "width", "real")
    values = {"task": 0, "degraded": 0, "clean": 0, "height": 64, "width": 64, "real": 0} | changes
    return torch.tensor([[values[name] for name in columns]])


def damaged(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        whole: dict[str, Any] = {
            "pixels": torch.zeros(64 * 64 * 3, dtype=torch.uint8),
            "entries": entries(),
            "damage": torch.zeros(1, len(DAMAGE)),
        }
        facts = changes.pop("facts", FACTS)
        save_file({**whole, **changes}, path, facts)

    return write


def without_damage(path: Path) -> None:
    save_file({"pixels": torch.zeros(9, dtype=torch.uint8), "entries": entries()}, path, FACTS)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged(facts={**FACTS, "measnet.pack": "7"}), "a pack of version 7, must be version 1"),
        (damaged(facts=None), "no pack of measnet-train"),
        (damaged(facts={**FACTS, "measnet.pack.tasks": "{"}), "damaged or no pack"),
        (damaged(facts={**FACTS, "measnet.pack.tasks": "3"}), "its table does not fit"),
        (damaged(entries=entries(clean=1)), "its table does not fit"),
        (damaged(entries=entries(degraded=-1)), "its table does not fit"),
        (damaged(entries=entries(clean=2**63 - 64 * 64)), "its table does not fit"),
        (damaged(entries=entries(height=65)), "its table does not fit"),
        (damaged(entries=entries(height=0)), "its table does not fit"),
        (damaged(entries=entries(task=1)), "its table does not fit"),
        (damaged(entries=entries().int()), "its table does not fit"),
        (damaged(entries=entries().flatten()), "its table does not fit"),
        (damaged(pixels=torch.zeros(64 * 64 * 3)), "its table does not fit"),
        (damaged(damage=torch.full((1, len(DAMAGE)), torch.nan)), "its table does not fit"),
        (damaged(damage=torch.full((1, len(DAMAGE)), 1.5)), "its table does not fit"),
        (damaged(damage=torch.zeros(2, len(DAMAGE))), "its table does not fit"),
        (without_damage, "damaged or no pack"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999)), "damaged or no pack"),
        (lambda path: path.write_text("hello"), "damaged or no pack"),
        (lambda path: path.mkdir(), "damaged or no pack"),
    ],
)
def test_what_is_no_sound_pack_is_refused_in_one_line(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "bad.pack")
    with pytest.raises(PackError, match=message) as caught:
        read_pack(tmp_path / "bad.pack", CROP)
    assert "remove it to pack anew" in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_smaller_than_the_crop_are_left_out(path: Path) -> None:
    assert len(read_pack(path, 64).entries) == 4
    assert len(read_pack(path, 80).entries) == 2
    with pytest.raises(PackError, match="as large as the crop, 96 x 96"):
        read_pack(path, 96)


def test_tasks_that_a_pack_has_nothing_for_are_named(path: Path) -> None:
    tasks = {"denoise15": 1.0, "dehaze": 1.0, "coded": 1.0, "keep": 1.0}
    with pytest.raises(InputError, match="nothing for dehaze, keep; pack anew"):
        PackedCrops(read_pack(path, CROP), tasks, crop=CROP, seed=0)


@pytest.mark.parametrize("size", [0, 1000, 30_000, 100_000])
def test_a_full_disk_leaves_no_pack_and_says_so(size: int, tmp_path: Path) -> None:
    with (
        files_of_at_most(size),
        pytest.raises(OutputError, match=r"cannot write .*set\.pack: File too large"),
        PackWriter(tmp_path / "set.pack") as writer,
    ):
        for pair in pairs():
            writer.add(pair)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_packing_leaves_nothing(clean: ImageSet, tmp_path: Path) -> None:
    def stop(done: int, jobs: int) -> None:
        raise KeyboardInterrupt

    plan = plan_pack([clean], {"keep": 1.0}, Packing(4, side=144))
    with pytest.raises(KeyboardInterrupt):
        write_pack(plan, tmp_path / "set.pack", workers=1, on_picture=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_pack_is_the_same_for_any_number_of_workers(clean: ImageSet, tmp_path: Path) -> None:
    tasks = {"denoise15": 1.0, "derain": 1.0, "lowlight": 1.0, "keep": 1.0, "coded": 1.0}
    plan = plan_pack([clean], tasks, Packing(8, side=144))
    heard: list[int] = []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.pack"
        write_pack(plan, path, workers=workers, on_picture=lambda done, jobs: heard.append(done))
    assert (tmp_path / "1.pack").read_bytes() == (tmp_path / "2.pack").read_bytes()
    assert heard == [*range(1, len(plan.jobs) + 1)] * 2
    pack = read_pack(tmp_path / "1.pack", 128)
    assert set(pack.tasks) == {CLEAN, "derain", "lowlight", "keep", "coded"}
    held = plan.size / pack.pixels.nbytes
    assert 0.7 < held < 1.4, f"planned {plan.size} bytes, made {pack.pixels.nbytes}"


def test_processes_that_pack_load_no_pytorch() -> None:
    """It would take each of them more than a second, and 195 MB."""
    code = "import sys, measnet.train.data.packing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_pairs_are_packed_as_they_are(clean: ImageSet, tmp_path: Path) -> None:
    (first, second) = (pair.clean for pair in clean.pairs[:2])
    night = ImageSet("night", "lowlight", (Pair(first, second),))
    plan = plan_pack([night], {"lowlight": 1.0}, Packing())
    write_pack(plan, tmp_path / "set.pack", workers=1)
    pack = read_pack(tmp_path / "set.pack", 128)
    assert pack.count("lowlight", real=True) == len(pack.entries) == 1
    for column, source in ((1, first), (2, second)):
        assert np.array_equal(cut_out(pack, 0, column), cv2.imread(str(source))[..., ::-1])
    assert pack.damage.sum() == pytest.approx(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_cannot_be_decoded_is_named_whoever_reads_it(
    workers: int, clean: ImageSet, tmp_path: Path
) -> None:
    whole = clean.pairs[0].clean.read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[:99] + bytes(60) + whole[159:])
    torn = dataclasses.replace(clean, pairs=(Pair(None, tmp_path / "torn.png"),))
    plan = plan_pack([torn], {"denoise15": 1.0}, Packing())
    with pytest.raises(InputError, match=r"torn\.png"):
        write_pack(plan, tmp_path / "set.pack", workers=workers)
    assert not (tmp_path / "set.pack").exists()


def test_small_pictures_and_tasks_without_any_are_said_beforehand(clean: ImageSet, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), picture(0, 100, 100))
    small = Pair(None, tmp_path / "small.png")
    both = dataclasses.replace(clean, pairs=(*clean.pairs, small))
    plan = plan_pack([both], {"denoise": 1.0}, Packing())
    assert plan.left_out == 1 and "; 1 are too small and left out" in plan.in_words(2)
    with pytest.raises(InputError, match=r"nothing to pack for denoise, derain: give clean pictures"):
        plan_pack([dataclasses.replace(clean, pairs=(small,))], {"denoise": 1, "derain": 1}, Packing())


def test_each_task_sees_other_pictures_first(clean: ImageSet) -> None:
    many = dataclasses.replace(clean, pairs=clean.pairs * 8)  # the same file often counts as often
    plan = plan_pack([many], {"derain": 1.0, "dehaze": 1.0}, Packing(16))
    order = {task: [job.pair for job in plan.jobs if job.task == task] for task in ("derain", "dehaze")}
    assert order["derain"] != order["dehaze"]


def numbered(task: str, *, real: bool = False, seed: int = 0) -> PackedPair:
    """A pair whose clean picture says at each pixel where it is, and whose degraded one is its negative."""
    rows, columns = np.mgrid[:90, :100].astype(np.uint8)
    clean = np.stack([rows, columns, np.full_like(rows, seed)], axis=2)
    return PackedPair(task, None if task == CLEAN else 255 - clean, clean, NONE, real)


def crops(path: Path, tasks: dict[str, float], *packed: PackedPair, **options: float) -> PackedCrops:
    with PackWriter(path) as writer:
        for pair in packed:
            writer.add(pair)
    return PackedCrops(read_pack(path, CROP), tasks, crop=CROP, seed=3, **options)


def places(batch: PackedBatch) -> np.ndarray:
    """B S S 2: from which row and column of its picture each pixel of each clean crop is."""
    return (batch.clean[:, :2] * 255).round().permute(0, 2, 3, 1).numpy().astype(int)


def turn_of(place: np.ndarray) -> tuple[int, ...]:
    """How rows and columns run in a crop: one of eight."""
    return tuple((place[1, 0] - place[0, 0]).tolist() + (place[0, 1] - place[0, 0]).tolist())


def test_degraded_and_clean_crops_are_one_place_and_one_turn_of_the_packed_pictures(tmp_path: Path) -> None:
    batch = crops(tmp_path / "p", {"deblur": 1.0}, numbered("deblur", seed=77)).batch(1, 64)
    assert torch.equal((batch.degraded * 255).round(), 255 - (batch.clean * 255).round())
    assert (batch.clean[:, 2] * 255).round().eq(77).all()
    place = places(batch)
    for crop in place:
        top, left = crop.min(axis=(0, 1))
        assert np.array_equal(np.ptp(crop, axis=(0, 1)), [CROP - 1, CROP - 1])
        assert 0 <= top <= 90 - CROP and 0 <= left <= 100 - CROP
        down, across = crop[1, 0] - crop[0, 0], crop[0, 1] - crop[0, 0]
        grid = np.arange(CROP)
        assert np.array_equal(crop, crop[0, 0] + grid[:, None, None] * down + grid[None, :, None] * across)
    assert len({turn_of(crop) for crop in place}) == 8
    assert len({tuple(crop.min(axis=(0, 1))) for crop in place}) > 40


@pytest.mark.parametrize("task", ["derain", "dehaze"])
def test_rain_and_haze_are_never_laid_on_their_side(task: str, tmp_path: Path) -> None:
    batch = crops(tmp_path / "p", {task: 1.0}, numbered(task)).batch(1, 64)
    turns = {turn_of(crop) for crop in places(batch)}
    assert turns == {(down, 0, 0, across) for down in (-1, 1) for across in (-1, 1)}


def test_published_noise_is_clipped_and_cut_down_to_8_bits_as_released(tmp_path: Path) -> None:
    flat = [PackedPair(CLEAN, None, np.full((90, 90, 3), level, np.uint8), NONE, False) for level in (3, 128)]
    for sigma in (15, 25, 50):
        batch = crops(tmp_path / "p", {f"denoise{sigma}": 1.0}, *flat).batch(1, 32)
        steps = batch.degraded * 255
        assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.min() >= 0 and steps.max() <= 255
        grey = batch.clean[:, 0, 0, 0] > 0.3
        noise = (steps - batch.clean * 255)[grey]
        assert noise.std() == pytest.approx(sigma, rel=0.02)
        assert noise.mean() == pytest.approx(-0.5, abs=0.2), "cut down, not rounded"
        assert (steps[~grey] == 0).float().mean() > 0.3
        assert batch.damage[:, DAMAGE.index("noise")].allclose(torch.tensor(sigma / 50))


def test_free_noise_is_rounded_and_within_its_range(tmp_path: Path) -> None:
    flat = PackedPair(CLEAN, None, np.full((90, 90, 3), 128, np.uint8), NONE, False)
    batch = crops(tmp_path / "p", {"denoise": 1.0}, flat).batch(1, 64)
    noise = (batch.degraded - batch.clean) * 255
    sigmas = noise.std(dim=(1, 2, 3))
    assert 1.9 < sigmas.min() < 10 and 45 < sigmas.max() < 58
    assert noise[sigmas < 30].mean() == pytest.approx(0, abs=0.05)
    assert torch.allclose(batch.damage[:, 0], (sigmas / 50).clamp(max=1), atol=0.03)


def test_tasks_and_real_pairs_are_drawn_by_their_weights(tmp_path: Path) -> None:
    tasks = {"deblur": 3.0, "lowlight": 1.0}
    packed = [
        numbered("deblur", seed=1),
        numbered("deblur", seed=2, real=True),
        numbered("lowlight", seed=3, real=True),
    ]
    drawn = crops(tmp_path / "p", tasks, *packed, pairs_share=0.25).batch(1, 800)
    of_task = drawn.tasks.bincount() / 800
    assert of_task.tolist() == pytest.approx([0.75, 0.25], abs=0.05)
    seen = (drawn.clean[:, 2, 0, 0] * 255).round().long().bincount() / 800
    assert seen.tolist() == pytest.approx([0, 0.5625, 0.1875, 0.25], abs=0.05)
    assert drawn.damage.min() >= 0 and drawn.damage.max() <= 1


def test_the_batch_of_a_step_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    tasks = {"denoise": 1.0, "deblur": 1.0}
    source = crops(tmp_path / "p", tasks, numbered(CLEAN), numbered("deblur"))
    fifth = source.batch(5, 8)
    again = crops(tmp_path / "q", tasks, numbered(CLEAN), numbered("deblur")).batch(5, 8)
    assert all(torch.equal(a, b) for a, b in zip(fifth, again, strict=True))
    assert not torch.equal(source.batch(6, 8).degraded, fifth.degraded)
    other = PackedCrops(source.pack, tasks, crop=CROP, seed=4).batch(5, 8)
    assert not torch.equal(other.degraded, fifth.degraded)


def test_pictures_that_are_meant_so_are_to_stay_as_they_are(tmp_path: Path) -> None:
    tasks = {"keep": 1.0, "denoise25": 1.0, "deblur": 1.0}
    packed = (numbered("keep"), numbered(CLEAN), numbered("deblur"))
    plain = crops(tmp_path / "p", tasks, *packed).batch(3, 400)
    drawn = crops(tmp_path / "q", tasks, *packed, meant=0.9).batch(3, 400)
    made = (drawn.clean != plain.clean).flatten(1).any(dim=1)
    of_task = [made[plain.tasks == task].float().mean().item() for task in range(3)]
    assert of_task == pytest.approx([0.9, 0.3, 0], abs=0.08)
    kept = made & (plain.tasks == 0)
    assert torch.equal(drawn.degraded[kept], drawn.clean[kept])
    noise = (drawn.degraded - drawn.clean)[made & (plain.tasks == 1)] * 255
    assert 8 < noise.std() < 26  # black and white cut it short
    assert torch.equal(drawn.damage, plain.damage)
    again = crops(tmp_path / "r", tasks, *packed, meant=0.9).batch(3, 400)
    assert torch.equal(again.degraded, drawn.degraded)
