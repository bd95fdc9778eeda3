"""``measnet-train``: clean pictures, footage or data sets in, a MEASNet checkpoint out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from measnet.command_line import HELP, run_command, say, stopping_on_signals
from measnet.number_options import WholeNumber
from measnet.printable import printable
from measnet.train.cadence import Cadence

if TYPE_CHECKING:
    from measnet.train.data.pack import Pack
    from measnet.train.data.packing import PackPlan
    from measnet.train.data.sets import ImageSet
    from measnet.train.loop import Start
    from measnet.train.recipe import Recipe

NEEDS_NO_DATA = "smoke"


class _PackWanted(NamedTuple):
    path: Path
    pairs: int
    minutes: float | None
    workers: int


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  measnet-train smoke --out runs/smoke                      does it work here? needs no data
  measnet-train nano --data photos/ --out runs/nano         clean pictures, degraded on the fly
  measnet-train nano --data walk.mp4 --init nano --out runs/mine   go on from the bundled weights
  measnet-train nano --data photos/ --pairs lowlight=night/ --out runs/night
  measnet-train small --data photos/ --init small --set network={width=96} --out runs/wide   grown
  measnet-train three-task --data /data/restoration --out runs/three
  measnet-train small --data photos/ --teacher base.ckpt --set distill_output=0.5 --out runs/small
  measnet-train nano --data photos/ --out runs/x --set batch=4 --dry-run
  measnet-train nano --data photos/ --pack photos.pack --out runs/quick     degraded beforehand, once
  measnet-train nano --pack photos.pack --minutes 11 --set batch=64 --out runs/timed   for rented time
  torchrun --nproc-per-node 4 -m measnet.train five-task --data /data/restoration --out runs/five

The same command goes on where a stopped run was last saved.""",
)
@click.argument("recipe")
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of clean pictures or of data sets, or a clean video; may be repeated.",
)
@click.option(
    "--pairs",
    multiple=True,
    metavar="TASK=FOLDER",
    help="Real pairs of a task (denoise, derain, dehaze, deblur, lowlight): input/ and target/ in a folder.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--init",
    metavar="WEIGHTS",
    help="Weights to go on from, or to grow: a file, or the name of bundled ones.",
)
@click.option(
    "--renew-routing",
    is_flag=True,
    help="With --init: make prompt and pixel router anew, where they no longer decide anything.",
)
@click.option("--teacher", metavar="WEIGHTS", help="A network to learn from, likewise.")
@click.option(
    "--set", "changes", multiple=True, metavar="ENTRY=VALUE", help="Changes one entry of the recipe."
)
@click.option(
    "--pack",
    type=click.Path(path_type=Path),
    help="Train from this file, made first from --data and --pairs where it is not there yet: everything is "
    "degraded beforehand and held in memory. The fast way, on a GPU above all.",
)
@click.option(
    "--pack-pairs",
    type=WholeNumber(0),
    default=4000,
    show_default=True,
    metavar="COUNT",
    help="Pairs to degrade for a new --pack; each takes 0.4 MB of memory.",
)
@click.option(
    "--minutes",
    type=float,
    help="With --pack: end by the clock, schedule and all, in place of the recipe's steps.",
)
@click.option(
    "--workers",
    type=WholeNumber(0),
    help="Processes that prepare the data.  [default: 1; to make a pack, one per core]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained on what, and stop.")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet")
@click.pass_obj
def main(
    cadence: Cadence | None,
    recipe: str,
    data: tuple[Path, ...],
    pairs: tuple[str, ...],
    out: Path,
    init: str | None,
    renew_routing: bool,
    teacher: str | None,
    changes: tuple[str, ...],
    pack: Path | None,
    pack_pairs: int,
    minutes: float | None,
    workers: int | None,
    dry_run: bool,
    debug: bool,
) -> None:
    """Train a MEASNet by RECIPE, a name or a .toml file.

    Degradations are made on the fly where the data holds clean pictures alone. The run folder receives
    weights.safetensors, which measnet-run --model and measnet-export take, checkpoint.pt,
    log.jsonl and what TensorBoard shows.
    """
    run_command(
        lambda: _run(
            recipe,
            data,
            pairs,
            out,
            init,
            renew_routing,
            teacher,
            changes,
            _pack_wanted(pack, pack_pairs, minutes, workers),
            1 if workers is None else workers,
            dry_run,
            cadence or Cadence(),
        ),
        debug=debug,
        interrupted="stopped; the same command goes on from the last checkpoint, and begins a pack anew",
    )


def _pack_wanted(
    path: Path | None, pairs: int, minutes: float | None, workers: int | None
) -> _PackWanted | None:
    from measnet.errors import UsageError

    if path is not None:
        from measnet.train.data.packing import processors

        return _PackWanted(path, pairs, minutes, processors() if workers is None else workers)
    if minutes is not None:
        raise UsageError("--minutes goes with --pack: only a run from a pack can keep to the clock")
    return None


def _run(
    name: str,
    data: tuple[Path, ...],
    pairs: tuple[str, ...],
    out: Path,
    init: str | None,
    renew_routing: bool,
    teacher: str | None,
    changes: tuple[str, ...],
    pack: _PackWanted | None,
    workers: int,
    dry_run: bool,
    cadence: Cadence,
) -> None:
    from measnet.errors import MissingPackageError

    for package in ("torch", "safetensors"):  # found out here, before anything is read
        try:
            __import__(package)
        except ModuleNotFoundError:
            raise MissingPackageError("training", package, "train") from None

    from measnet.train.recipe import read_recipe

    recipe = read_recipe(name, changes)
    if pack is not None:
        _run_packed(
            name,
            recipe,
            data,
            pairs,
            out,
            find_start(recipe, init, renew_routing=renew_routing, teacher=teacher),
            pack,
            dry_run,
            cadence,
        )
        return
    from measnet.train.processes import Processes
    from measnet.train.step_memory import check_step

    check_step(recipe, Processes())
    sets = find_all_sets(name, data, pairs, out)
    if dry_run:
        _describe(recipe, sets)
        return
    start = find_start(recipe, init, renew_routing=renew_routing, teacher=teacher)
    _train(recipe, sets, out, start, workers, cadence)


def find_all_sets(name: str, data: Sequence[Path], pairs: Sequence[str], out: Path) -> list[ImageSet]:
    """The sets named by ``--data`` and ``--pairs``. Frames of videos and made-up pictures go into ``out``."""
    from measnet.errors import UsageError
    from measnet.train.data.footage import VIDEO_SUFFIXES, take_frames
    from measnet.train.data.layouts import find_sets, read_pairs
    from measnet.train.data.made_up import make_pictures
    from measnet.train.processes import Processes
    from measnet.train.run_folder import RunFolder

    def warn(line: str) -> None:
        say(f"warning: {line}", err=True)

    found: list[ImageSet] = []
    for place in data:
        if place.suffix.lower() in VIDEO_SUFFIXES:
            frames = RunFolder(out).path / "footage" / place.name
            found.append(take_frames(place, frames, leads=Processes().leads))
        else:
            found += _listing_problems(partial(find_sets, place, split="train", tell=warn), out)
    for entry in pairs:
        task, equals, folder = entry.partition("=")
        if not equals:
            raise UsageError(f"--pairs {entry}: write the task first, as in --pairs dehaze={entry}")
        found += _listing_problems(lambda: [read_pairs(Path(folder), task)], out)  # noqa: B023 - called at once
    if not found and name == NEEDS_NO_DATA:
        found.append(make_pictures(RunFolder(out).path / "made-up", leads=Processes().leads))
    if not found:
        raise UsageError("say what to train on: --data FOLDER_OR_VIDEO, --pairs TASK=FOLDER, or both")
    return found


def _listing_problems(read: Callable[[], list[ImageSet]], out: Path) -> list[ImageSet]:
    """Calls ``read``; where it finds more problems than one line can hold, all of them go to a file."""
    from measnet.errors import InputError
    from measnet.train.data.layouts import DataSetError
    from measnet.train.run_folder import RunFolder
    from measnet.whole_file import write_whole

    try:
        return read()
    except DataSetError as error:
        if len(error.problems) <= 10:
            raise
        listed = RunFolder(out).path / "problems.txt"
        write_whole(listed, "\n".join([*error.problems, ""]))
        raise InputError(f"{error} (all of them: {listed})") from None


def find_start(recipe: Recipe, init: str | None, *, renew_routing: bool, teacher: str | None) -> Start:
    """The start that ``--init``, ``--renew-routing`` and ``--teacher`` name."""
    from measnet.checkpoint import load_checkpoint, weights_sha256
    from measnet.errors import UsageError
    from measnet.network import MEASNet
    from measnet.train.loop import Start
    from measnet.weights import NAMES, bundled

    def load(model: str | None) -> MEASNet | None:
        if model is None:
            return None
        return load_checkpoint(bundled(model, ".safetensors") if model in NAMES else Path(model))

    weights, larger = load(init), load(teacher)
    origin = [
        (f"measnet.{role}", f"{model} {weights_sha256(network)[:16]}")
        for role, model, network in (("init", init, weights), ("teacher", teacher, larger))
        if network is not None
    ]
    if weights is not None and weights.config != recipe.config:
        from measnet.train.growth import grow

        weights = grow(weights, recipe.config, recipe.seed)
    if renew_routing:
        if weights is None:
            raise UsageError("--renew-routing goes with --init: there is nothing to renew in random weights")
        origin.append(("measnet.routing", "renewed"))
    return Start(weights, larger, tuple(origin), renew_routing)


def _describe(recipe: Recipe, sets: list[ImageSet]) -> None:
    from measnet.train.data.mixture import mix

    draws = mix(sets, recipe.tasks, pairs_share=recipe.pairs_share, epochs=recipe.epochs > 0)
    unit = "times an epoch" if recipe.epochs else "of the samples"
    whole = sum(draw.weight for draw in draws)
    length = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.steps} steps"
    say(f"{recipe.variant}, {length} of {recipe.batch} crops of {recipe.crop} pixels")
    for draw in draws:
        share = f"{draw.weight:g}" if recipe.epochs else f"{draw.weight / whole:.1%}"
        made = "made from clean pictures" if draw.images.synthetic else "stored pairs"
        say(
            f"  {draw.task:10} {share:>6} {unit}: "
            f"{draw.images.name}, {len(draw.images.pairs)} pictures, {made}"
        )


def _run_packed(
    name: str,
    recipe: Recipe,
    data: tuple[Path, ...],
    pairs: tuple[str, ...],
    out: Path,
    start: Start,
    pack: _PackWanted,
    dry_run: bool,
    cadence: Cadence,
) -> None:
    from measnet.train.data.pack import read_pack
    from measnet.train.data.packed_crops import PackedCrops
    from measnet.train.data.packing import Packing, plan_pack
    from measnet.train.packed_loop import Clock, check_packed
    from measnet.train.processes import Processes
    from measnet.train.step_memory import check_step

    check_packed(recipe, start)
    check_step(recipe, Processes(), packed=True)
    Clock(
        recipe.steps, pack.minutes, cadence.least_minutes
    )  # an impossible time is refused before anything is packed
    length = f"{recipe.steps} steps" if pack.minutes is None else f"{pack.minutes:g} minutes"
    what = f"{recipe.variant}, {length} of {recipe.batch} crops of {recipe.crop} pixels"
    if pack.path.exists():
        held = read_pack(pack.path, recipe.crop)
        PackedCrops(held, recipe.tasks, crop=recipe.crop, seed=recipe.seed)
        if data or pairs:
            say(f"{pack.path} is there already and is used as it is; remove it to pack anew")
        if dry_run:
            say(what)
            for task in held.tasks:
                made, real = held.count(task, real=False), held.count(task, real=True)
                say(f"  {task:10} {made:>6} pictures made, {real} real pairs")
            return
    else:
        sets = find_all_sets(name, data, pairs, out)
        packing = Packing(pack.pairs, side=max(Packing().side, recipe.crop), seed=recipe.seed)
        plan = plan_pack(sets, recipe.tasks, packing)
        say(f"{pack.path}: {plan.in_words(pack.workers)}")
        if dry_run:
            say(what)
            for task, count in plan.pictures.items():
                say(f"  {task:10} {count:>6} pictures")
            return
        _show_packing(plan, pack.path, pack.workers)
        held = read_pack(pack.path, recipe.crop)
    _train_packed(recipe, held, out, start, pack.minutes, cadence)


def _show_packing(plan: PackPlan, path: Path, workers: int) -> None:
    """Makes the pack, with a bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from measnet.train.data.packing import write_pack

    columns = [TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns) as bar:
        task = bar.add_task("packing", total=len(plan.jobs))
        write_pack(
            plan, path, workers=workers, on_picture=lambda done, jobs: bar.update(task, completed=done)
        )


def _train_packed(
    recipe: Recipe, pack: Pack, out: Path, start: Start, minutes: float | None, cadence: Cadence
) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    from measnet.train.packed_loop import StepFigures, train_packed
    from measnet.train.task_prompts import is_collapsed

    last: dict[str, float] = {}
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}")]
    with Progress(*columns) as bar:
        task = bar.add_task(recipe.variant, total=1.0, said="getting ready")

        def show_step(step: int, done: float) -> None:
            left = (
                f"{recipe.steps - step} steps" if minutes is None else f"{minutes * (1 - done):.1f} minutes"
            )
            figures = f"  L1 {last['l1']:.4f}  {last['pictures_per_second']:.1f} pictures/s" if last else ""
            bar.update(task, completed=done, said=f"step {step}, {left} left{figures}")

        def hear(at: StepFigures) -> None:
            last.update(at.figures)

        stop = threading.Event()
        with stopping_on_signals(stop):
            network = train_packed(
                recipe,
                pack,
                out,
                start=start,
                minutes=minutes,
                on_step=show_step,
                on_figures=hear,
                on_event=lambda words: bar.console.print(printable(words), markup=False, highlight=False),
                stop=stop,
                cadence=cadence,
            )
        bar.update(task, completed=1.0)
    if is_collapsed(network.task_prompts):
        _warn_of_collapse()
    say(f"weights: {out / 'weights.safetensors'}{_reached(last)}")


def _reached(figures: dict[str, float]) -> str:
    """Tells the PSNR of the last crops of a run, for the line at its end."""
    psnr = {name.removeprefix("psnr_"): dB for name, dB in figures.items() if name.startswith("psnr_")}
    if not psnr:
        return "" if figures else " (it was trained already)"
    of_each = ", ".join(f"{task} {dB:.1f}" for task, dB in sorted(psnr.items()))
    mean = sum(psnr.values()) / len(psnr)
    return f"; the last crops came out at {mean:.1f} dB" + (f" ({of_each})" if len(psnr) > 1 else "")


def _warn_of_collapse() -> None:
    say(
        "warning: pictures of all tasks have one and the same prompt, so it decides nothing; go on with "
        "--init WEIGHTS --renew-routing and a lower routing_rate, in another run folder",
        err=True,
    )


def _train(
    recipe: Recipe, sets: list[ImageSet], out: Path, start: Start, workers: int, cadence: Cadence
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from measnet.train.loop import train
    from measnet.train.processes import Processes
    from measnet.train.task_prompts import is_collapsed

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "L1 {task.fields[l1]:.4f}  {task.fields[rate]:.1f} pictures/s  data {task.fields[wait]:.0%}"
        ),
    ]
    leads = Processes().leads
    last: dict[str, float] = {}
    with Progress(*columns, disable=not leads) as bar:
        # Shown from the first step on: until then there may be nothing but an error to show.
        task = bar.add_task(recipe.variant, total=None, visible=False, l1=0.0, rate=0.0, wait=0.0)

        def show(step: int, steps: int, figures: dict[str, float]) -> None:
            rate = recipe.batch / figures["seconds"]
            bar.update(
                task,
                visible=True,
                completed=step,
                total=steps,
                l1=figures["l1"],
                rate=rate,
                wait=figures["data_wait"],
            )
            last.update(figures)

        stop = threading.Event()
        # Of several processes each would stop at a step of its own, and the others wait for it.
        with stopping_on_signals(stop) if Processes().world == 1 else contextlib.nullcontext():
            network = train(
                recipe,
                sets,
                out,
                start=start,
                workers=workers,
                on_step=show,
                stop=stop,
                cadence=cadence,
            )
    if leads and is_collapsed(network.task_prompts):
        _warn_of_collapse()
    if leads:
        say(f"weights: {out / 'weights.safetensors'}{_reached(last)}")


if __name__ == "__main__":
    main()
