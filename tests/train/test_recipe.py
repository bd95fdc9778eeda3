"""Recipes: ours are valid and as published; a wrong one says everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from measnet.config import VARIANTS
from measnet.errors import UsageError
from measnet.train.recipe import RECIPES, read_recipe

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_ours_is_sound_and_begins_with_its_command(name: str) -> None:
    read_recipe(name)
    assert (RECIPES / f"{name}.toml").read_text().startswith(f"# measnet-train {name} --")


def test_there_is_a_recipe_for_every_published_setting() -> None:
    settings = {"three-task", "five-task", "nano", "small", "smoke"}
    single = {f"single-{task}" for task in ("denoise", "derain", "dehaze", "deblur", "lowlight")}
    assert settings | single <= set(NAMES)
    assert len([name for name in NAMES if name.startswith("ablation-")]) == 6
    five = read_recipe("five-task")
    noise = {"denoise15": 3, "denoise25": 3, "denoise50": 3}
    assert five.tasks == {"dehaze": 1, "derain": 120, **noise, "deblur": 5, "lowlight": 20}
    assert (five.epochs, five.learning_rate, five.crop) == (150, 2e-4, 128)
    assert five.schedule == "released" and five.config == VARIANTS["base"]


def test_the_rows_of_table_vi_differ_in_what_they_leave_out() -> None:
    rows = [read_recipe(name).config for name in NAMES if name.startswith("ablation-")]
    switches = [(c.tspg, c.mese, c.fd, c.mee) for c in rows]
    assert switches == [
        (False, False, False, False),
        (True, False, False, False),
        (True, True, False, False),
        (True, True, True, False),
        (True, True, False, True),
        (True, True, True, True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 1", "variant is missing"),
        ('variant = "nano"', "steps or epochs"),
        ('variant = "nano"\nsteps = 1\nepochs = 1', "steps or epochs"),
        ('variant = "nano"\nsteps = 1\nwings = 2', "unknown entries"),
        ('variant = "nano"\nsteps = "many"', "steps is not of the right kind: Expected int"),
        ('variant = "giant"\nsteps = 1', "must be one of"),
        ('variant = "nano"\nsteps = 1\ncrop = 100', "multiple of 16"),
        ('variant = "nano"\nsteps = 1\nbatch = 1', "at least 2"),
        (
            'variant = "nano"\nsteps = 1\nprecision = "fp8"',
            "precision is not of the right kind: 'fp8', must be one of",
        ),
        ('variant = "nano"\nsteps = 1\ntasks = { desnow = 1 }', r"unknown tasks \['desnow'\]"),
        ('variant = "nano"\nsteps = 1\ntasks = { derain = 0 }', "weight above 0"),
        ('variant = "nano"\nsteps = 1\nnetwork = { width = 9 }', "cannot be built"),
        ('variant = "nano"\nsteps = 1\nzoom = 2.0', "zoom is 2.0"),
        ("variant = ", "is not a recipe"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(str(tmp_path / "x.toml"))


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b'\xef\xbb\xbfvariant = "nano"\nsteps = 9\nbatch = 3\n')
    assert read_recipe(str(tmp_path / "mine.toml")).batch == 3


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('variant = "nano"\nsteps = 1\nbatch = 1\ncrop = 100\nsave_every = 0')
    with pytest.raises(UsageError, match=r"crop is 100.*save_every.*batch is 1"):
        read_recipe(str(tmp_path / "x.toml"))


def test_entries_can_be_changed_from_the_command_line() -> None:
    recipe = read_recipe("nano", ["batch=4", "recompute = true", "precision=bf16", "tasks = { derain = 1 }"])
    assert (recipe.batch, recipe.recompute, recipe.precision) == (4, True, "bf16")
    assert recipe.tasks == {"derain": 1}
    with pytest.raises(UsageError, match="write ENTRY=VALUE"):
        read_recipe("nano", ["batch"])
    with pytest.raises(UsageError, match=r"^--set: unknown entries \['lr'\]; there are .*learning_rate"):
        read_recipe("nano", ["lr=1e-4"])
    with pytest.raises(UsageError, match=r"with --set batch=few: batch is not of the right kind"):
        read_recipe("nano", ["batch=few"])
