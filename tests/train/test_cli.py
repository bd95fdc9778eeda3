"""``measnet-train``: from data to weights, and one line when it cannot."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from short_training import SOON
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from measnet.checkpoint import stored_facts
from measnet.config import MEASNetConfig
from measnet.train.cli import main

ROOT = Path(__file__).parents[2]
TINY = """
variant = "nano"
network = { width = 8, blocks = [1, 1, 1, 1], image_experts = [0, 0, 3] }
steps = 3
batch = 2
save_every = 3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(TINY)
    return str(tmp_path / "mine.toml")


def test_the_command_trains_logs_and_resumes(recipe: str, pictures: Path, tmp_path: Path) -> None:
    arguments = [recipe, "--data", str(pictures), "--out", str(tmp_path / "run"), "--workers", "0"]
    result = CliRunner().invoke(main, arguments, obj=SOON)
    assert result.exit_code == 0, result.output
    assert re.search(r"; the last crops came out at \d+\.\d dB( \(\w+ \d|$)", " ".join(result.output.split()))
    assert "loss" not in result.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3]
    assert lines[0]["l1"] > 0 and 0 <= lines[0]["data_wait"] <= 1
    assert {"psnr_denoise", "psnr_derain"} & set(lines[0])
    again = CliRunner().invoke(main, arguments, obj=SOON)
    assert again.exit_code == 0 and "trained already" in again.output


def test_tensorboard_shows_losses_experts_and_pictures(recipe: str, pictures: Path, tmp_path: Path) -> None:
    arguments = [recipe, "--data", str(pictures), "--out", str(tmp_path / "run"), "--workers", "0"]
    cadence = dataclasses.replace(SOON, pictures_every=1)
    assert CliRunner().invoke(main, arguments, obj=cadence).exit_code == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"loss", "l1", "balance", "data_wait", "expert_load/0", "expert_load/3"} <= scalars
    assert any(tag.startswith("psnr/") for tag in scalars)
    assert events.Tags()["histograms"] == ["expert_load"]
    assert events.Tags()["images"] == ["degraded_restored_clean"]
    assert sum(events.Scalars(f"expert_load/{e}")[0].value for e in range(4)) == pytest.approx(1, abs=1e-4)


def test_clean_footage_is_data(recipe: str, tmp_path: Path) -> None:
    arguments = [
        recipe,
        "--data",
        str(ROOT / "examples" / "car-park.clean.mp4"),
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(main, [*arguments, "--set", "steps=1", "--workers", "0"], obj=SOON)
    assert result.exit_code == 0, result.output
    frames = tmp_path / "run" / "footage" / "car-park.clean.mp4"
    assert len(list(frames.glob("*.png"))) == 38 and (frames / "complete").is_file()


def test_a_dry_run_says_what_would_be_trained_on_what(recipe: str, pictures: Path, tmp_path: Path) -> None:
    arguments = [recipe, "--data", str(pictures), "--out", str(tmp_path / "run"), "--dry-run"]
    result = CliRunner().invoke(main, [*arguments, "--set", "tasks={denoise=3, deblur=1}"])
    assert result.exit_code == 0, result.output
    assert "nano, 3 steps of 2 crops of 128 pixels" in result.output
    assert "denoise" in result.output and "75.0% of the samples" in result.output
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_weights_given_by_name_or_file(pictures: Path, tmp_path: Path) -> None:
    arguments = [
        "nano",
        "--data",
        str(pictures),
        "--out",
        str(tmp_path / "a"),
        "--init",
        "nano",
        "--workers",
        "0",
    ]
    config = MEASNetConfig.from_json(
        stored_facts(ROOT / "src" / "measnet" / "weights" / "nano.safetensors")["measnet.config"]
    )
    entries = (f"{name} = {json.dumps(value)}" for name, value in dataclasses.asdict(config).items())
    still = [
        "--set",
        f"network={{{', '.join(entries)}}}",
        "--set",
        "steps=1",
        "--set",
        "crop=128",
        "--set",
        "batch=2",
        "--set",
        "learning_rate=0",
        "--set",
        "weight_decay=0",
    ]
    result = CliRunner().invoke(main, [*arguments, *still], obj=SOON)
    assert result.exit_code == 0, result.output
    ours = load_file(tmp_path / "a" / "weights.safetensors")
    theirs = load_file(ROOT / "src" / "measnet" / "weights" / "nano.safetensors")
    assert all(
        torch.allclose(ours[n], theirs[n].float())
        for n in theirs
        if "running" not in n and "tracked" not in n
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no recipe 'nope'; there are ablation-1-nothing"),
        (["nano"], "say what to train on: --data"),
        (["nano", "--pairs", "night"], "--pairs night: write the task first"),
        (["nano", "--data", "/nowhere"], "/nowhere"),
        (["nano", "--data", "PICTURES", "--init", "large"], "large"),
        (["nano", "--data", "PICTURES", "--renew-routing"], "--renew-routing goes with --init"),
        (
            ["nano", "--data", "PICTURES", "--teacher", "nano"],
            "distill_output and distill_routing are both 0",
        ),
        (["five-task", "--data", "PICTURES", "--set", "epochs=0"], "give steps or epochs"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_exit_code_2(
    arguments: list[str], message: str, pictures: Path, tmp_path: Path
) -> None:
    words = [str(pictures) if word == "PICTURES" else word for word in arguments]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "run"), "--workers", "0"])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_step_that_cannot_fit_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    arguments = ["three-task", "--set", "batch=10000", "--data", "/nowhere", "--out", str(tmp_path / "run")]
    for more in (
        ["--dry-run"],
        ["--pack", str(tmp_path / "a.pack"), "--set", "epochs=0", "--set", "steps=9"],
    ):
        if "--pack" in more:
            more += ["--set", "schedule='cosine'", "--set", "turns=8"]
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 2, result.output
        assert re.fullmatch(
            r"error: a step on 10000 crops of 128 pixels takes about \d{5}\.\d GB of memory, and "
            r"\d+\.\d GB are free: "
            r"lower batch or crop \(--set batch=5000\), or --set recompute=true, which takes more time\n",
            result.stderr,
        )
    assert not (tmp_path / "run").exists()


def test_a_video_without_pictures_is_named(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    arguments = [recipe, "--data", str(tmp_path / "broken.mp4"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "broken.mp4" in result.stderr and result.stderr.count("\n") == 1


SMOKE = ["smoke", "--workers", "0", "--set", "steps=12", "--set", "batch=2"]


def test_the_smoke_run_has_the_stored_loss_also_when_it_was_killed_half_way(tmp_path: Path) -> None:
    """Half of its steps, of half of its pictures; ``test_loop.py`` holds that the weights are the same to the
    bit."""
    stored = json.loads((ROOT / "tests" / "data" / "smoke.json").read_text())
    command = [sys.executable, "-m", "measnet.train", *SMOKE, "--out", str(tmp_path)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "weights.safetensors").is_file():
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    step = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < stored["step"], "killed too late"
    result = CliRunner().invoke(main, [*SMOKE, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == stored["step"]
    for figure in ("loss", "l1"):
        assert line[figure] == pytest.approx(stored[figure], abs=1e-4)
