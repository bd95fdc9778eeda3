"""Two processes that share a batch train as one process does."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from short_training import SOON

from measnet.checkpoint import load_checkpoint
from measnet.errors import UsageError
from measnet.train.cli import main
from measnet.train.processes import Processes, SampleNoise, per_sample_noise

ARGUMENTS = [
    "smoke",
    "--workers",
    "0",
    "--set",
    "network={width=8, blocks=[0, 0, 1, 1], image_experts=[0, 0, 3]}",
]
for entry in (
    "steps=3",
    "batch=4",
    "warmup_steps=1",
    "save_every=2",
    "steady_weight=0.1",
    "tasks={denoise=1, lowlight=1}",
):
    ARGUMENTS += ["--set", entry]

EVERY_STEP = """
import sys
from measnet.train.cadence import Cadence
from measnet.train.cli import main
main(sys.argv[1:], obj=Cadence(log_every=1, prompt_crops=4))
"""
"""The command, which logs the figures of every step and looks at few crops in the end."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "run.py").write_text(EVERY_STEP)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(folder / "run.py"), *ARGUMENTS, "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stderr


def test_two_processes_have_the_losses_and_the_weights_of_one(two: tuple[Path, str], tmp_path: Path) -> None:
    often = dataclasses.replace(SOON, log_every=1)
    alone = CliRunner().invoke(main, [*ARGUMENTS, "--out", str(tmp_path)], obj=often)
    assert alone.exit_code == 0, alone.output
    folders = (tmp_path, two[0])
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in folders]
    assert [line["step"] for line in logs[1]] == [1, 2, 3]
    for ours, theirs in zip(*logs, strict=True):
        for figure in ("loss", "l1", "balance", "unsteady"):
            assert theirs[figure] == pytest.approx(ours[figure], abs=2e-6, rel=1e-4), (ours["step"], figure)
    weights = [load_checkpoint(run / "weights.safetensors").state_dict() for run in folders]
    for name, tensor in weights[0].items():
        # Adam's first steps have one size whatever the gradient's, so its sign decides where that is near 0.
        assert (tensor - weights[1][name]).abs().float().mean() < 2e-5, name


def test_processes_that_share_a_run_wait_for_the_one_that_prepares_its_pictures(
    two: tuple[Path, str],
) -> None:
    run, said = two
    # PyTorch warns where every expert was chosen by some pixel or image: that cannot be known beforehand.
    told = [line for line in said.splitlines() if "find_unused_parameters=True" not in line]
    assert not any("Warning" in line for line in told)
    assert len(list((run / "made-up").glob("*.png"))) == 12
    assert not list(run.rglob("*.part")) and not list(run.glob(".writable*"))


def test_a_batch_that_cannot_be_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="a batch of 8 cannot be split over 3 processes"):
        Processes().part_of(8)


def test_noise_depends_on_the_sample_and_not_on_its_batch() -> None:
    cpu = torch.device("cpu")
    like = torch.zeros(4, 3, 5, 5)
    whole = per_sample_noise(7, 100, 4, cpu)
    first, second = whole(like), whole(like)
    part = per_sample_noise(7, 102, 2, cpu)
    assert torch.equal(part(like[:2]), first[2:]) and torch.equal(part(like[:2]), second[2:])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    many = SampleNoise(list(range(64)), cpu)(torch.zeros(64, 1, 32, 32))
    assert abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01
