"""Under which names training stores what each task calls for, and that it says whether it taught damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from short_training import SOON

from measnet.checkpoint import load_checkpoint
from measnet.config import PROMPT_BASIS
from measnet.damage import DAMAGE, GROUPS
from measnet.train.data.pack import CLEAN, PackedPair, PackWriter, read_pack
from measnet.train.packed_loop import train_packed
from measnet.train.recipe import Recipe, read_recipe
from measnet.train.task_prompts import said_for_certain, task_name

TASKS = {"denoise": 1.0, "denoise25": 1.0, "coded": 1.0, "camera": 1.0, "mixture": 1.0, "keep": 1.0}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    network = {"width": 8, "blocks": (0, 0, 1, 1), "image_experts": (0, 0, 3)}
    few = dataclasses.replace(read_recipe("nano"), network=network, tasks=TASKS, steps=1, batch=2)
    return dataclasses.replace(few, steady_weight=0.0, warmup_steps=0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pack") / "five.pack"
    with PackWriter(path) as writer:
        for task in (CLEAN, "coded", "camera", "mixture", "keep"):
            clean, degraded = rng.integers(0, 256, (2, 136, 144, 3), np.uint8)
            given = None if task == CLEAN else degraded
            writer.add(PackedPair(task, given, clean, (0.0,) * len(DAMAGE), real=False))
    return path


@pytest.mark.parametrize(
    ("task", "name"),
    [("denoise", "denoise"), ("denoise50", "denoise"), ("lowlight", "lowlight"), ("coded", "compression")]
    + [(task, None) for task in ("camera", "mixture", "keep")],
)
def test_users_see_names_of_damage_to_undo(task: str, name: str | None) -> None:
    assert task_name(task) == name


@pytest.mark.parametrize("weight", [0.02, 0.0])
def test_training_stores_tasks_under_users_names_and_whether_it_taught(
    recipe: Recipe, pack: Path, tmp_path: Path, weight: float
) -> None:
    recipe = dataclasses.replace(recipe, teach_weight=weight)
    train_packed(recipe, read_pack(pack, recipe.crop), tmp_path, cadence=SOON)
    saved = load_checkpoint(tmp_path / "weights.safetensors")
    assert list(saved.task_prompts) == ["compression", "denoise"]
    assert saved.taught == (weight > 0)


def test_who_names_a_task_says_for_certain_what_the_prompt_was_taught() -> None:
    unsure = torch.zeros(PROMPT_BASIS)
    said = torch.tensor(said_for_certain(unsure, "dehaze", taught=True)).softmax(dim=0)
    assert said[GROUPS["haze"]].sum() == pytest.approx(0.9, abs=1e-5)
    rest = said[GROUPS["rain"]]
    assert torch.allclose(rest, rest[:1])  # all else as before
    sure = torch.tensor(said_for_certain(unsure, "dehaze", taught=True)) + 0.0
    sure[GROUPS["haze"]] += 3
    assert said_for_certain(sure, "dehaze", taught=True) == tuple(sure.tolist())
    assert said_for_certain(unsure, "dehaze", taught=False) == (0.0,) * PROMPT_BASIS
