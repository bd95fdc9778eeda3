"""Training: the same samples every time, exact resume, and a clear word when it cannot go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from measnet.checkpoint import load_checkpoint
from measnet.errors import InputError, UsageError
from measnet.network import MEASNet
from measnet.train import degradations
from measnet.train.cli import main
from measnet.train.data import DEGRADATIONS, DegradedCrops
from measnet.train.loop import TrainingError, learning_rate, train
from measnet.train.recipe import RECIPES, Recipe, read_recipe

SMOKE = Recipe(variant="nano", steps=4, batch=2, warmup_steps=2, save_every=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(3):
        blocks = np.kron(rng.integers(30, 225, (5, 5, 3)), np.ones((30, 30, 1))).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), blocks)
    return folder


def state(network: MEASNet) -> dict[str, torch.Tensor]:
    return network.state_dict()


def test_a_run_cut_in_the_middle_ends_with_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    whole = train(SMOKE, pictures, tmp_path / "whole", workers=0)

    def cut(step: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMOKE, pictures, tmp_path / "cut", workers=0, on_step=cut)
    steps: list[int] = []
    resumed = train(SMOKE, pictures, tmp_path / "cut", workers=0, on_step=lambda s, _: steps.append(s))
    assert steps == [3, 4]
    for name, tensor in state(whole).items():
        assert torch.equal(tensor, state(resumed)[name]), name
    saved = load_checkpoint(tmp_path / "cut" / "weights.safetensors")
    assert all(torch.equal(tensor, state(saved)[name]) for name, tensor in state(whole).items())


def test_a_resume_with_other_settings_is_refused(pictures: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(SMOKE, steps=2), pictures, tmp_path, workers=0)
    with pytest.raises(UsageError, match=r"other settings \(learning_rate, steps\)"):
        train(dataclasses.replace(SMOKE, learning_rate=1e-5), pictures, tmp_path, workers=0)


def test_a_loss_that_is_not_a_number_stops_with_the_batch_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEGRADATIONS, "denoise", lambda rng, clean: clean * np.float32("nan"))
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        train(dataclasses.replace(SMOKE, tasks={"denoise": 1.0}), pictures, tmp_path, workers=0)
    assert torch.load(tmp_path / "bad_batch.pt", weights_only=True)["degraded"].isnan().all()
    assert not (tmp_path / "weights.safetensors").exists()


def test_the_schedule_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(variant="nano", steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(1, 101)]
    assert rates[4] == pytest.approx(0.5)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)


def test_a_sample_depends_on_the_seed_and_its_number_alone(pictures: Path) -> None:
    def crops(seed: int, samples: int) -> DegradedCrops:
        tasks = {"denoise": 0.5, "derain": 0.5}
        return DegradedCrops(pictures, tasks, crop=128, samples=samples, seed=seed)

    a, b, other = crops(1, 10), crops(1, 20), crops(2, 10)
    for index in (7, 0):
        assert torch.equal(a[index][0], b[index][0]) and torch.equal(a[index][1], b[index][1])
    assert not torch.equal(a[0][0], other[0][0])
    degraded, clean = a[3]
    assert degraded.shape == clean.shape == (3, 128, 128)
    assert torch.equal((degraded * 255).round() / 255, degraded)


@pytest.mark.parametrize("task", sorted(DEGRADATIONS))
def test_a_degradation_stays_in_range_and_leaves_the_picture_alone(task: str) -> None:
    clean = np.random.default_rng(0).random((40, 56, 3), np.float32)
    for seed in range(20):
        before = clean.copy()
        degraded = DEGRADATIONS[task](np.random.default_rng(seed), clean)
        assert degraded.dtype == np.float32 and degraded.shape == clean.shape
        assert degraded.min() >= 0 and degraded.max() <= 1
        assert (clean == before).all() and (degraded != clean).any()


def test_noise_has_the_strength_asked_for() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    rng = np.random.default_rng(0)
    assert degradations.add_gaussian_noise(rng, grey, 25).std() * 255 == pytest.approx(25, rel=0.02)
    sensor = degradations.add_sensor_noise(rng, grey, shot=0.01, read=0.05, grain=0.8)
    assert sensor.std() == pytest.approx((0.01 * 0.5 + 0.05**2) ** 0.5, rel=0.05)
    video = degradations.add_video_noise(rng, grey, luma=20, chroma=0)
    assert video.mean(axis=2).std() * 255 == pytest.approx(20, rel=0.05)
    assert np.abs(video[:, :, 0] - video[:, :, 2]).max() < 1e-3


def test_rain_is_light_on_dark() -> None:
    dark = np.full((96, 96, 3), 0.1, np.float32)
    rainy = degradations.add_rain(np.random.default_rng(1), dark)
    assert (rainy >= dark - 1e-6).all() and rainy.max() > 0.3


def test_every_recipe_of_ours_is_sound_and_says_its_command() -> None:
    for path in RECIPES.glob("*.toml"):
        read_recipe(path.stem)
        assert path.read_text().startswith(f"# measnet-train {path.stem} --data ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('variant = "nano"', "missing entries"),
        ('variant = "nano"\nsteps = 1\nwings = 2', "unknown entries"),
        ('variant = "giant"\nsteps = 1', "must be one of"),
        ('variant = "nano"\nsteps = 1\ncrop = 100', "multiple of 16"),
        ('variant = "nano"\nsteps = 1\nbatch = 1', "at least 2"),
        ("variant = ", "is not a recipe"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(str(tmp_path / "x.toml"))


def test_folders_without_usable_pictures_are_named(tmp_path: Path) -> None:
    def crops(folder: Path) -> DegradedCrops:
        return DegradedCrops(folder, {"denoise": 1}, crop=128, samples=1, seed=0)

    with pytest.raises(InputError, match="does not exist"):
        crops(tmp_path / "nope")
    with pytest.raises(InputError, match="no picture in"):
        crops(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    with pytest.raises(InputError, match=r"broken\.jpg is not a picture"):
        crops(tmp_path)
    cv2.imwrite(str(tmp_path / "broken.jpg"), np.zeros((50, 400, 3), np.uint8))
    with pytest.raises(InputError, match="as large as the crop"):
        crops(tmp_path)


def test_the_command_trains_logs_and_resumes(pictures: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('variant = "nano"\nsteps = 3\nbatch = 2\nsave_every = 3\ncrop = 128\n')
    arguments = [str(recipe), "--data", str(pictures), "--out", str(tmp_path / "run"), "--workers", "0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3]
    assert lines[0]["l1"] > 0 and 0 <= lines[0]["data_wait"] <= 1
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0 and "weights.safetensors" in again.output


def test_a_users_mistake_ends_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["nope", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no recipe 'nope'; there are nano, smoke")
    assert result.stderr.count("\n") == 1
