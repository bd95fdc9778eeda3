"""Rented time: packs, trains several networks at once on one GPU, and brings home what is worth keeping.

    python -m measnet.train.rented --data photos/ --pairs dehaze=haze/ --minutes 10 --out results/

Everything, packing and compiling included, is over when the minutes are. ``results/`` is refreshed every
minute and holds small files only: half-precision weights, logs, a table and its curves. Large files (the
pack, checkpoints) lie next to it in ``results.work/``. In a checkout that is not installed, run this file.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if find_spec("measnet") is None:  # this file alone was started: its package lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from measnet.command_line import HELP, run_command, say
from measnet.number_options import WholeNumber
from measnet.train.cadence import Cadence

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from measnet.train.recipe import Recipe

REFRESH = 60.0  # seconds between looks at what there is to bring home
RESERVE = 0.05  # share of the time kept for starting processes and for saving
MOST_PACKING = 0.5  # share of the time that packing may take
GPU_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Rental:
    """The machine that time is rented on: its clock, its processes, and how trainings go on it."""

    process: Callable[..., BaseProcess] = multiprocessing.get_context("spawn").Process
    """Makes one for each training."""

    now: Callable[[], float] = time.time
    """Seconds, of a clock that all processes go by."""

    reserve: float = 10.0
    """Seconds that are kept for starting processes and for saving, at least."""

    cadence: Cadence = field(default_factory=Cadence)


class Training(NamedTuple):
    """One of the networks that are trained at the same time."""

    name: str
    """Name of its files."""

    recipe: Recipe

    share: float
    """Share of the time for training; a network that ends early leaves the GPU to the others."""

    init: Path | None
    """Weights to go on from."""


@click.command(context_settings=HELP)
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="As for measnet-train.")
@click.option("--pairs", multiple=True, metavar="TASK=FOLDER", help="As for measnet-train.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of results.")
@click.option("--minutes", type=float, default=10, show_default=True, help="For everything.")
@click.option(
    "--train",
    "wanted",
    multiple=True,
    metavar="RECIPE[=SHARE]",
    default=("small", "nano=0.7"),
    show_default=True,
    help="A recipe, and the share of the training time it gets; may be repeated.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="ENTRY=VALUE", help="Changes one entry of every recipe."
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="RESULTS",
    help="Go on from the weights that lie in an earlier folder of results.",
)
@click.option("--pack", type=click.Path(path_type=Path), help="A pack that is there. [default: made anew]")
@click.option(
    "--pack-pairs", type=WholeNumber(0), default=8000, show_default=True, help="As for measnet-train."
)
@click.option("--workers", type=WholeNumber(1), help="Processes that pack.  [default: one per core]")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.pass_obj
def main(
    rental: Rental | None,
    data: tuple[Path, ...],
    pairs: tuple[str, ...],
    out: Path,
    minutes: float,
    wanted: tuple[str, ...],
    changes: tuple[str, ...],
    init: Path | None,
    pack: Path | None,
    pack_pairs: int,
    workers: int | None,
    debug: bool,
) -> None:
    """Train several networks at once on one rented GPU, in so many minutes.

    A second start with the same --out goes on, for as long again, where the work folder is still there.
    """
    rental = rental or Rental()
    deadline = rental.now() + minutes * 60

    def run() -> None:
        trainings = read_trainings(wanted, changes, init)
        work = out.with_name(out.name + ".work")
        packed = _packed(data, pairs, trainings, minutes, work, pack, pack_pairs, workers, rental)
        train_all(trainings, packed, work, out, deadline, rental)

    run_command(run, debug=debug, interrupted=f"stopped; what there is lies in {out}")


def read_trainings(wanted: Sequence[str], changes: Sequence[str], init: Path | None) -> list[Training]:
    """The trainings that a command line asks for. Raises ``UsageError``."""
    import torch

    from measnet.errors import UsageError
    from measnet.train.recipe import read_recipe

    trainings: list[Training] = []
    for entry in wanted:
        recipe, equals, share = entry.partition("=")
        try:
            part = float(share) if equals else 1.0
        except ValueError:
            part = 0.0
        if not 0 < part <= 1:
            raise UsageError(f"--train {entry}: the share of the time must be a number above 0, at most 1")
        name = Path(recipe).stem
        usual = [f"batch={GPU_BATCH}"] if torch.cuda.is_available() else []
        earlier = None if init is None else init / f"{name}.safetensors"
        if earlier is not None and not earlier.is_file():
            raise UsageError(f"--init {init}: there is no {earlier.name} in it")
        trainings.append(Training(name, read_recipe(recipe, [*usual, *changes]), part, earlier))
    if len({training.name for training in trainings}) < len(trainings):
        raise UsageError("--train names a recipe twice; give each a name of its own")
    return trainings


def _packed(
    data: Sequence[Path],
    pairs: Sequence[str],
    trainings: Sequence[Training],
    minutes: float,
    work: Path,
    pack: Path | None,
    pack_pairs: int,
    workers: int | None,
    rental: Rental,
) -> Path:
    """The pack to train from, made where it has to be."""
    from measnet.errors import UsageError
    from measnet.train.cli import find_all_sets
    from measnet.train.data.packing import Packing, plan_pack, processors, write_pack
    from measnet.train.loop import Start
    from measnet.train.packed_loop import check_packed

    for training in trainings:
        check_packed(training.recipe, Start())
    _check_time(trainings, minutes, rental, packing=0.0)
    if pack is not None and not pack.exists():
        raise UsageError(f"--pack {pack} does not exist; leave it away to have one made")
    path = work / "set.pack" if pack is None else pack
    if path.exists():
        say(f"from {path}, which is there already")
        return path
    tasks: dict[str, float] = {}
    for training in trainings:
        for task, weight in training.recipe.tasks.items():
            tasks[task] = max(weight, tasks.get(task, 0.0))
    side = max(Packing().side, *(training.recipe.crop for training in trainings))
    plan = plan_pack(find_all_sets("", data, pairs, work), tasks, Packing(pack_pairs, side))
    many = processors() if workers is None else workers
    say(f"packing {plan.in_words(many)}")
    most = minutes * 60 * MOST_PACKING
    if plan.seconds / many > most:
        fewer = int(pack_pairs * most / (plan.seconds / many))
        raise UsageError(
            f"packing would take about {plan.seconds / many / 60:.1f} of {minutes:g} minutes; "
            f"give more minutes, about --pack-pairs {fewer}, or a --pack made beforehand"
        )
    _check_time(trainings, minutes, rental, packing=plan.seconds / many)
    began = last = time.monotonic()

    def count(done: int, jobs: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10 or done == jobs:
            last = time.monotonic()
            say(f"  {done} of {jobs} in {last - began:.0f} s")

    write_pack(plan, path, workers=many, on_picture=count)
    return path


def _say_all(table: str) -> None:
    for line in table.splitlines():
        say(line)


def _check_time(trainings: Sequence[Training], minutes: float, rental: Rental, *, packing: float) -> None:
    """Refuses a time in which not every network can be trained; ``packing`` takes so many seconds of it."""
    from measnet.errors import UsageError
    from measnet.train.packed_loop import least_minutes

    training = least_minutes(rental.cadence.least_minutes) / min(training.share for training in trainings)
    least = training + (packing + _reserve(minutes * 60, rental)) / 60
    if not least <= minutes < math.inf:
        needed = math.ceil(training + packing / 60 + 2 * rental.reserve / 60)
        raise UsageError(
            f"--minutes {minutes:g} is too short to pack, train and save everything; give at least {needed}"
        )


def _reserve(seconds: float, rental: Rental) -> float:
    return max(rental.reserve, RESERVE * seconds)


def train_all(
    trainings: Sequence[Training], pack: Path, work: Path, out: Path, deadline: float, rental: Rental
) -> None:
    """Trains all of them at once until ``deadline`` (of ``rental.now``) and keeps ``out`` up to date.

    Raises ``OutputError`` when a folder cannot be written, ``TrainingError`` when one of them failed.
    """
    from measnet.errors import MEASNetError
    from measnet.train.loop import TrainingError
    from measnet.train.rented_results import collect
    from measnet.train.run_folder import RunFolder

    RunFolder(out)  # whether it can be written to is found out now
    RunFolder(work)
    left = deadline - rental.now()
    left -= _reserve(left, rental)
    running: dict[str, BaseProcess] = {}
    for training in trainings:
        ends = rental.now() + left * training.share
        given = training, pack, work, ends, rental.now, rental.cadence
        process = rental.process(target=_train_one, args=given, name=training.name)
        process.start()
        running[training.name] = process
    names = list(running)
    try:
        refreshed = rental.now()
        while any(process.is_alive() for process in running.values()) and rental.now() < deadline:
            time.sleep(0.2)
            if rental.now() - refreshed >= REFRESH:
                refreshed = rental.now()
                try:
                    _say_all(collect(names, work, out))
                except MEASNetError as error:  # no reason to stop training
                    say(f"error: {error}", err=True)
    finally:
        late = [name for name, process in running.items() if process.is_alive()]
        for process in running.values():
            process.terminate()
            process.join()
        table = collect(names, work, out)
    _say_all(table)
    failed = [name for name, process in running.items() if process.exitcode and name not in late]
    if late:
        say(f"{', '.join(late)} did not end in time; the results are of the last minute saved", err=True)
    if failed:
        said = "; ".join(f"{name}: {_last_words(work / f'{name}.txt')}" for name in failed)
        raise TrainingError(f"{said} (all they said is in {work})")


def _last_words(path: Path) -> str:
    lines = path.read_text().strip().splitlines() if path.is_file() else []
    return lines[-1].removeprefix("error: ") if lines else "it was killed"


def _train_one(
    training: Training,
    pack: Path,
    work: Path,
    ends: float,
    now: Callable[[], float],
    cadence: Cadence,
) -> None:
    """Trains one network, in a process of its own; its output goes to a file of its name."""
    from measnet.command_line import run_command
    from measnet.train.packed_loop import least_minutes, train_packed

    with (
        (work / f"{training.name}.txt").open("a", buffering=1) as said,
        redirect_stdout(said),
        redirect_stderr(said),
    ):

        def run() -> None:
            from measnet.train.cli import find_start
            from measnet.train.data.pack import read_pack
            from measnet.train.run_folder import seconds_spent

            recipe, folder = training.recipe, work / training.name
            init = None if training.init is None else str(training.init)
            start = find_start(recipe, init, renew_routing=False, teacher=None)
            held = read_pack(pack, recipe.crop)
            left = max(ends - now(), least_minutes(cadence.least_minutes) * 60)
            minutes = (seconds_spent(folder) + left) / 60
            train_packed(recipe, held, folder, start=start, minutes=minutes, on_event=print, cadence=cadence)

        run_command(run, debug=False, interrupted="stopped")


if __name__ == "__main__":
    main()
