"""Rented time: packs, trains several at once, and brings home small files, within its minutes."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from short_training import HalfSeconds

from measnet.checkpoint import load_checkpoint, save_checkpoint
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.train import rented
from measnet.train.recipe import Recipe
from measnet.train.rented import Rental
from measnet.train.rented_results import collect, say_table
from measnet.train.run_folder import seconds_spent

SCRIPT = Path(rented.__file__)
NETWORK = {"width": 8, "blocks": (0, 0, 1, 1), "image_experts": (0, 0, 3)}
TINY = """
variant = "nano"
network = { width = 8, blocks = [0, 0, 1, 1], image_experts = [0, 0, 3] }
tasks = { denoise25 = 1, lowlight = 1 }
steps = 100
batch = 2
"""


class AtOnce:
    """In place of another process: runs when it is started, in this one."""

    def __init__(self, target: Callable[..., None], args: tuple[object, ...], name: str) -> None:
        self.name, self.exitcode = name, 0
        self._run = functools.partial(target, *args)

    def start(self) -> None:
        try:
            self._run()
        except SystemExit as ended:
            self.exitcode = int(ended.code or 0)

    def is_alive(self) -> bool:
        return False

    def terminate(self) -> None: ...

    def join(self) -> None: ...


@pytest.fixture
def quick(half_seconds: HalfSeconds) -> Rental:
    """Trains one after the other in this process, by a clock that nothing but training moves."""
    process = cast(Callable[..., BaseProcess], AtOnce)
    return Rental(process=process, now=half_seconds, reserve=0.2, cadence=half_seconds.cadence)


def start(rental: Rental, tmp_path: Path, *more: str) -> tuple[int, str]:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(TINY)
    trained = ["--train", str(tmp_path / "one.toml"), "--train", f"{tmp_path / 'two.toml'}=0.5"]
    result = CliRunner().invoke(
        rented.main, [*trained, "--out", str(tmp_path / "out"), "--workers", "1", *more], obj=rental
    )
    return result.exit_code, result.output


def test_it_packs_trains_all_and_keeps_what_is_small(pictures: Path, tmp_path: Path, quick: Rental) -> None:
    options = ["--data", str(pictures), "--pack-pairs", "6", "--minutes", "0.06"]
    code, said = start(quick, tmp_path, *options)
    assert code == 0, said
    one = tmp_path / "out.work" / "one"
    assert seconds_spent(one) == pytest.approx(3.4), "all but what is kept for saving"
    found = {path.name for path in (tmp_path / "out").iterdir()}
    ours = {f"{name}.{end}" for name in ("one", "two") for end in ("safetensors", "jsonl", "txt")}
    assert found == ours | {"results.md", "curves.svg"}
    assert all(path.stat().st_size < 16 << 20 for path in (tmp_path / "out").iterdir())
    for name in ("one", "two"):
        kept = load_file(tmp_path / "out" / f"{name}.safetensors")
        assert {tensor.dtype for tensor in kept.values()} <= {torch.float16, torch.int64}
        network = load_checkpoint(tmp_path / "out" / f"{name}.safetensors")
        whole = load_checkpoint(tmp_path / "out.work" / name / "weights.safetensors").state_dict()
        assert all(torch.allclose(whole[n], t, atol=2e-3) for n, t in network.state_dict().items())
        assert json.loads((tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()[-1])["l1"] > 0
    assert "|  | one | two |" in said and "| steps | 6 | 3 |" in said and "lowlight, dB" in said
    assert said.strip().endswith((tmp_path / "out" / "results.md").read_text().split("\n\n")[0])

    code, said = start(quick, tmp_path, "--init", str(tmp_path / "out"), *options)
    assert code == 1, "other settings than those of the run that lies in the work folder"
    assert "holds a run with other settings (measnet.init)" in said and said.count("error") == 1
    code, said = start(quick, tmp_path, *options)
    assert code == 0 and "which is there already" in said
    assert seconds_spent(one) == pytest.approx(2 * 3.4), "it went on, for as long again"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "nano=0"], "the share of the time must be a number above 0"),
        (["--train", "nano=soon"], "the share of the time must be a number above 0"),
        (["--train", "nano", "--train", "nano=0.5"], "names a recipe twice"),
        (["--train", "three-task"], "counts epochs"),
        (["--train", "nope"], "no recipe 'nope'"),
        (["--minutes", "0.3"], "too short to pack, train and save everything; give at least 1"),
        (["--minutes", "nan"], "too short"),
        (["--init", "nowhere"], "there is no small.safetensors in it"),
        (["--pack", "nowhere.pack"], "does not exist"),
        (
            ["--minutes", "0.5", "--pack-pairs", "90000", "--data", "PICTURES", "--workers", "1"],
            "about --pack-pairs",
        ),
        ([], "say what to train on"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    options: list[str], message: str, pictures: Path, tmp_path: Path
) -> None:
    words = [str(pictures) if word == "PICTURES" else word for word in options]
    result = CliRunner().invoke(rented.main, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_going_on_takes_the_weights_of_earlier_results(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(TINY)
    torch.manual_seed(0)
    save_checkpoint(
        MEASNet(Recipe(variant="nano", network=NETWORK, steps=1).config).half(), tmp_path / "one.safetensors"
    )
    (training,) = rented.read_trainings([str(tmp_path / "one.toml")], ["batch=3"], tmp_path)
    assert (
        training.init == tmp_path / "one.safetensors" and training.share == 1 and training.recipe.batch == 3
    )
    with pytest.raises(UsageError, match=r"no one\.safetensors"):
        rented.read_trainings([str(tmp_path / "one.toml")], [], tmp_path / "elsewhere")


def test_a_training_that_fails_is_told_and_the_other_is_kept(
    pictures: Path, tmp_path: Path, quick: Rental
) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "two").touch()  # where its folder should be
    code, said = start(quick, tmp_path, "--data", str(pictures), "--pack-pairs", "6", "--minutes", "0.06")
    assert code == 1 and re.search(r"error: two: cannot write .*two: .* \(all they said is in", said), said
    assert (tmp_path / "out" / "one.safetensors").is_file()


def test_results_are_of_whatever_there_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    log = tmp_path / "work" / "nano" / "log.jsonl"
    log.parent.mkdir(parents=True)
    line = {"step": 50, "l1": 0.1, "minutes": 0.5, "pictures_per_second": 9.0, "psnr_derain": 21.0}
    log.write_text(f'{json.dumps(line)}\n{{"step": 100, "l')
    table = collect(["small", "nano"], tmp_path / "work", tmp_path / "out")
    assert "| derain, dB | - | 21.00 |" in table and "| steps | - | 50 |" in table
    assert not (tmp_path / "out" / "nano.safetensors").exists()


def test_the_table_is_about_the_end_of_each_log() -> None:
    log = [{"step": i, "minutes": i / 10, "l1": 1 / i, "psnr_keep": float(i)} for i in range(1, 21)]
    table = say_table({"nano": log})
    assert "| steps | 20 |" in table and "| minutes | 2.0 |" in table and "| keep, dB | 19.50 |" in table


def test_it_ends_in_time_even_when_a_training_does_not(
    tmp_path: Path,
) -> None:
    class Endless(AtOnce):
        alive = True

        def start(self) -> None: ...

        def is_alive(self) -> bool:
            return self.alive

        def terminate(self) -> None:
            self.alive = False

    (tmp_path / "one.toml").write_text(TINY)
    trainings = rented.read_trainings([str(tmp_path / "one.toml")], [], None)
    began = time.time()
    rental = Rental(process=cast(Callable[..., BaseProcess], Endless), reserve=0.1)
    rented.train_all(trainings, tmp_path / "p", tmp_path / "work", tmp_path / "out", began + 0.5, rental)
    assert 0.4 < time.time() - began < 5
    assert (tmp_path / "out" / "results.md").is_file()


def test_it_runs_as_a_file_of_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    alone = (
        "import runpy, sys; "
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]; "
        f"sys.argv = ['rented.py', '--out', 'x', '--minutes', '0.01', '--train', 'nano']; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", alone], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and "give at least" in done.stderr, done.stderr


SOON = """
from measnet.train.cadence import Cadence
from measnet.train.rented import Rental, main

if __name__ == "__main__":
    main(obj=Rental(reserve=0.2, cadence=Cadence(tone_steps=5, least_minutes=0.02)))
"""
"""The command with less time to spend, for itself and for its processes."""


def test_real_processes_train_and_bring_home_their_results(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "soon.py").write_text(SOON)
    options = ["--data", str(pictures), "--pack-pairs", "4", "--workers", "1", "--minutes", "1"]
    (tmp_path / "one.toml").write_text(TINY)
    options += ["--train", "one.toml=0.03"]  # of the time, after which it is over
    command = [sys.executable, "soon.py", "--out", "out", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"results.md", "one.safetensors", "one.jsonl", "one.txt"} <= found
