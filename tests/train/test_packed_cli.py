"""``measnet-train --pack``: packs once, says what it does, and refuses in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from short_training import SOON

from measnet.train.cli import main

TINY = """
variant = "nano"
network = { width = 8, blocks = [0, 0, 1, 1], image_experts = [0, 0, 3] }
tasks = { denoise25 = 1, derain = 1, coded = 1 }
steps = 2
batch = 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(TINY)
    return str(tmp_path / "mine.toml")


def run(recipe: str, tmp_path: Path, *more: str) -> tuple[int, str]:
    """The exit code and all that was said, its lines joined."""
    arguments = [recipe, "--pack", str(tmp_path / "set.pack"), "--out", str(tmp_path / "run"), *more]
    result = CliRunner().invoke(main, [*arguments, "--workers", "1"], obj=SOON)
    return result.exit_code, " ".join(result.output.split())


def test_the_first_start_packs_and_the_next_uses_what_is_there(
    recipe: str, pictures: Path, tmp_path: Path
) -> None:
    code, said = run(recipe, tmp_path, "--data", str(pictures), "--pack-pairs", "6")
    assert code == 0, said
    assert "10 pictures, about 0.00 GB" in said and "packing" in said and "GB of memory" in said
    assert re.search(r"weights.safetensors; the last crops came out at \d+\.\d dB \(\w+ \d", said)
    assert "loss" not in said and (tmp_path / "run" / "weights.safetensors").is_file()
    before = (tmp_path / "set.pack").stat().st_mtime_ns
    code, said = run(recipe, tmp_path, "--data", str(pictures))
    assert code == 0 and "is there already and is used as it is; remove it to pack anew" in said
    assert "it was trained already" in said
    code, said = run(recipe, tmp_path)
    assert code == 0 and "used as it is" not in said
    assert (tmp_path / "set.pack").stat().st_mtime_ns == before


def test_a_dry_run_says_what_would_be_packed_how_large_and_how_long(
    recipe: str, pictures: Path, tmp_path: Path
) -> None:
    options = ["--data", str(pictures), "--pack-pairs", "400", "--minutes", "5", "--dry-run"]
    code, said = run(recipe, tmp_path, *options)
    assert code == 0, said
    assert "403 pictures, about 0.05 GB, 20 seconds on 1 core" in said
    assert "nano, 5 minutes of 2 crops of 128 pixels" in said
    assert "clean 3 pictures derain 200 pictures coded 200 pictures" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_dry_run_from_a_pack_says_what_is_in_it(recipe: str, pictures: Path, tmp_path: Path) -> None:
    assert run(recipe, tmp_path, "--data", str(pictures), "--pack-pairs", "6", "--set", "steps=1")[0] == 0
    code, said = run(recipe, tmp_path, "--dry-run")
    assert code == 0 and "derain 3 pictures made, 0 real pairs" in said
    code, said = run(recipe, tmp_path, "--dry-run", "--set", "tasks={deblur=1}")
    assert code == 2 and "the pack has nothing for deblur; pack anew" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0.1"], "--minutes 0.1 is no time to train and save anything; give at least 0.2"),
        ([], "say what to train on: --data"),
        (
            ["--data", "PICTURES", "--set", "epochs=3", "--set", "steps=0"],
            "counts epochs cannot train from a pack",
        ),
        (["--data", "PICTURES", "--set", "zoom=0.5"], "would do nothing: zoom"),
        (
            ["--data", "PICTURES", "--pack-pairs", "0"],
            "nothing to pack for derain, coded: give clean pictures",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_made(
    options: list[str], message: str, recipe: str, pictures: Path, tmp_path: Path
) -> None:
    code, said = run(recipe, tmp_path, *[str(pictures) if word == "PICTURES" else word for word in options])
    assert code == 2 and said.startswith("error: ") and message in said
    assert not (tmp_path / "set.pack").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_teacher_is_refused(recipe: str, pictures: Path, tmp_path: Path) -> None:
    code, said = run(recipe, tmp_path, "--data", str(pictures), "--teacher", "nano")
    assert code == 2 and "has no teacher" in said


def test_a_damaged_pack_is_refused_and_left(recipe: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "set.pack").write_bytes(b"garbage" * 99)
    code, said = run(recipe, tmp_path, "--data", str(pictures))
    assert code == 2 and "remove it to pack anew" in said
    assert (tmp_path / "set.pack").stat().st_size == 7 * 99


def test_minutes_without_a_pack_and_torchrun_with_one_are_refused(
    recipe: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [recipe, "--data", str(pictures), "--out", str(tmp_path / "run"), "--minutes", "5"]
    result = CliRunner().invoke(main, alone)
    assert result.exit_code == 2 and "--minutes goes with --pack" in result.stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, said = run(recipe, tmp_path, "--data", str(pictures))
    assert code == 2 and "start it without torchrun" in said


@pytest.mark.parametrize("name", ["nano", "small"])
def test_our_recipes_train_without_a_pack_too(name: str, pictures: Path, tmp_path: Path) -> None:
    arguments = [name, "--data", str(pictures), "--out", str(tmp_path / "run"), "--workers", "0"]
    tiny = "network={width=8, blocks=[0,0,1,1], image_experts=[0,0,3]}"
    few = ["--set", tiny, "--set", "steps=1", "--set", "tasks={coded=1, camera=1, mixture=1}"]
    result = CliRunner().invoke(main, [*arguments, *few, "--set", "batch=6"])
    assert result.exit_code == 0, result.output
    line = (tmp_path / "run" / "log.jsonl").read_text()
    assert "psnr_coded" in line and "psnr_camera" in line
