"""``measnet-eval``: what a model is worth, in dB, beside the paper, a classical tool or another model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import HELP, run_command
from measnet.errors import UsageError

if TYPE_CHECKING:
    from measnet import Restorer
    from measnet.evaluation.cases import Cases
    from measnet.evaluation.measure import SetFigures

_PATH = click.Path(path_type=Path)
_EXAMPLES = """\b
Examples:
  measnet-eval --data datasets/                          every published set found there
  measnet-eval --clean McMaster/ --sigma 25 --classical  noise, beside non-local means
  measnet-eval --pairs derain=rain/ --contact-sheet worst.jpg
  measnet-eval --model x.ckpt --against x.onnx --data datasets/ --json loss.json
  measnet-eval --video noisy.mp4 --video-target clean.mp4

\b
Exit status: 0 done, 1 failed on the way, 2 the input or an option is wrong, 130 interrupted.
"""


def _tile(context: click.Context, option: click.Parameter, value: str) -> int | str:
    if value in ("auto", "off"):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter("must be auto, off or a number of pixels", context, option)


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@click.option(
    "--model", multiple=True, metavar="MODEL", help="nano, .onnx, .ckpt; twice: side by side. [default: nano]"
)
@click.option("--against", metavar="MODEL", help="A second model, whose loss is told.")
@click.option("--backend", default="auto", show_default=True, help="What computes, as in measnet-run.")
@click.option(
    "--against-backend", metavar="NAME", help="What computes the second model. [default: as the first]"
)
@click.option("--data", multiple=True, type=_PATH, metavar="FOLDER", help="Data sets in the authors' layout.")
@click.option("--pairs", multiple=True, metavar="TASK=FOLDER", help="A folder with input/ and target/.")
@click.option("--clean", multiple=True, type=_PATH, metavar="FOLDER", help="Clean pictures, to be noised.")
@click.option("--video", type=_PATH, metavar="FILE", help="A degraded video.")
@click.option("--video-target", type=_PATH, metavar="FILE", help="The same video without the harm.")
@click.option("--video-task", default="denoise", show_default=True, help="What was done to the video.")
@click.option("--tasks", metavar="TASK,TASK", help="Measure these tasks only.")
@click.option(
    "--sigma", multiple=True, type=click.IntRange(1, 255), help="Noise levels. [default: 15, 25, 50]"
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the noise.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N pictures of each set.")
@click.option(
    "--protocol",
    type=click.Choice(["paper", "full"]),
    default="paper",
    show_default=True,
    help="As published, or whole frames as a user gets them.",
)
@click.option("--tile", default="auto", show_default=True, callback=_tile, help="As in measnet-run.")
@click.option("--classical", is_flag=True, help="Measure each task's classical tool too.")
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="All figures, per picture too.")
@click.option("--contact-sheet", type=_PATH, metavar="FILE", help="The worst cases as a .jpg or .png.")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet", prog_name="measnet-eval")
def main(debug: bool, **options: Any) -> None:
    """Measure PSNR and SSIM of a model on sets of pictures, and of two models side by side.

    Prints the gain over the degraded pictures and the paper's tables, with the published figures beside ours
    where the set is the published one.
    """
    run_command(lambda: _run(options), debug=debug, interrupted="stopped; nothing was written")


def _run(options: dict[str, Any]) -> None:
    from measnet.evaluation.contact_sheet import ContactSheet, write_sheet
    from measnet.evaluation.protocol import PROTOCOLS
    from measnet.evaluation.report import Conditions, write_report
    from measnet.evaluation.table import tables

    _check_results(options)
    models = _models(options)
    sets = _sets(options)
    protocol = PROTOCOLS[options["protocol"]]
    sheet = ContactSheet() if options["contact_sheet"] else None
    with ExitStack() as stack:
        restorers = [stack.enter_context(_restorer(*model, options["tile"])) for model in models]
        figures = _measure(sets, restorers, options, sheet)
        descriptions = [restorer.description for restorer in restorers]

    names = [Path(model).name for model, _ in models]
    if len(names) == 2:
        names = [f"{letter} {name}" for letter, name in zip("AB", names, strict=True)]
    for name, facts in zip(names, descriptions, strict=True):
        click.echo(f"{name}: {facts['variant']}, {facts['precision']}, {facts['backend']}")
    click.echo(f"Protocol {protocol.name}: {protocol.text}; seed {options['seed']}.\n")
    click.echo(tables(figures, names), nl=False)
    if options["json_file"]:
        write_report(options["json_file"], figures, Conditions(descriptions, protocol, options["seed"]))
        click.echo(f"\nfigures: {options['json_file']}")
    if sheet is not None:
        write_sheet(options["contact_sheet"], sheet)
        click.echo(f"worst cases: {options['contact_sheet']}")


def _measure(
    sets: Sequence[Cases], restorers: Sequence[Restorer], options: dict[str, Any], sheet: Any
) -> list[SetFigures]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from measnet.evaluation.classical import TOOLS
    from measnet.evaluation.measure import measure
    from measnet.evaluation.protocol import PROTOCOLS

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        for one in sets:
            task = bar.add_task(one.title, total=len(one) or None)

            def watch(*seen: Any, title: str = one.title, task: Any = task) -> None:
                bar.advance(task)
                if sheet is not None:
                    sheet.offer(title, *seen)

            found.append(
                measure(
                    one,
                    restorers,
                    PROTOCOLS[options["protocol"]],
                    seed=options["seed"],
                    tools=TOOLS[one.task] if options["classical"] else (),
                    watch=watch,
                )
            )
    return found


def _models(options: dict[str, Any]) -> list[tuple[str, str]]:
    """The one or two models to measure, each with its backend."""
    names = [*options["model"]] or ["nano"]
    if options["against"] is not None:
        names.append(options["against"])
    if len(names) > 2:
        raise UsageError(f"{len(names)} models are given; one is measured, or two side by side")
    if len(names) == 1 and options["against_backend"]:
        names *= 2
    backends = [options["backend"], options["against_backend"] or options["backend"]]
    return list(zip(names, backends, strict=False))


def _restorer(model: str, backend: str, tile: Any) -> Restorer:
    from measnet import Restorer

    return Restorer(model, backend, tile=tile)


def _sets(options: dict[str, Any]) -> list[Cases]:
    """Everything that was asked to be measured, in the paper's order of tasks."""
    from measnet.evaluation.cases import PAPER_ORDER, VideoCases, cases_of
    from measnet.train.data.pictures import list_pictures
    from measnet.train.data.sets import CLEAN, TASKS, ImageSet, Pair

    wanted = options["tasks"].split(",") if options["tasks"] else list(TASKS)
    for task in (*wanted, options["video_task"]):
        _check_task(task, TASKS)
    images: list[ImageSet] = []
    for folder in options["data"]:
        from measnet.train.data.layouts import find_sets

        images += find_sets(folder, split="test")
    for text in options["pairs"]:
        task, equals, place = text.partition("=")
        if not equals or not place:
            raise UsageError(f"--pairs {text} must be TASK=FOLDER, such as derain=rain/")
        _check_task(task, TASKS)
        from measnet.train.data.layouts import read_pairs

        images.append(read_pairs(Path(place), task))
    for folder in options["clean"]:
        pairs = tuple(Pair(None, path) for path in list_pictures(folder))
        images.append(ImageSet(folder.resolve().name, CLEAN, pairs))

    sigmas = options["sigma"] or (15, 25, 50)
    sets: list[Cases] = [cases for one in images for cases in cases_of(one, sigmas, options["limit"])]
    if (options["video"] is None) != (options["video_target"] is None):
        raise UsageError("--video and --video-target belong together: a degraded video and its clean one")
    if options["video"]:
        sets.append(
            VideoCases(options["video"], options["video_target"], options["video_task"], options["limit"])
        )
    if not sets:
        raise UsageError("nothing to measure: give --data, --pairs, --clean or --video (see --help)")
    absent = [task for task in wanted if task not in {one.task for one in sets}]
    if options["tasks"] and absent:
        raise UsageError(f"no set was given for {', '.join(absent)}")
    kept = [one for one in sets if one.task in wanted]
    return sorted(kept, key=lambda one: PAPER_ORDER.index(one.task))


def _check_task(task: str, known: Sequence[str]) -> None:
    if task not in known:
        raise UsageError(f"there is no task {task!r}; the tasks are {', '.join(known)}")


def _check_results(options: dict[str, Any]) -> None:
    """Finds out before the work whether its results could be written, and that they replace nothing of what
    is measured."""
    from measnet.evaluation.contact_sheet import check_sheet_path
    from measnet.whole_file import check_place

    asked = {"--json": options["json_file"], "--contact-sheet": options["contact_sheet"]}
    results = {name: path for name, path in asked.items() if path is not None}
    for name, path in results.items():
        check_place(path, name)
    if len({path.resolve() for path in results.values()}) < len(results):
        raise UsageError("--json and --contact-sheet are one and the same file; give them two names")
    models = [*options["model"], options["against"], options["video"], options["video_target"]]
    folders = [*options["data"], *options["clean"], *(text.partition("=")[2] for text in options["pairs"])]
    for name, path in results.items():
        if path.exists():
            read = [Path(one) for one in models if one is not None]
            if any(one.exists() and one.samefile(path) for one in read):
                raise UsageError(f"{name} {path} is what is measured; give it another name")
            inside = [folder for folder in folders if path.resolve().is_relative_to(Path(folder).resolve())]
            if inside:
                raise UsageError(f"{name} {path} is a file of {inside[0]}; give it another name")
    if options["contact_sheet"]:
        check_sheet_path(options["contact_sheet"])
