"""``measnet-train``: clean pictures in, a MEASNet checkpoint out."""

from __future__ import annotations

from pathlib import Path

import click

from measnet.command_line import run_command


@click.command(
    epilog="""\b
Examples:
  measnet-train nano --data photos/ --out runs/nano
  measnet-train smoke --data photos/ --out runs/smoke
  measnet-train my-recipe.toml --data photos/ --out runs/mine

The same command goes on where a stopped run was last saved."""
)
@click.argument("recipe")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of clean pictures.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--workers", default=1, show_default=True, help="Processes that prepare the data.")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet")
def main(recipe: str, data: Path, out: Path, workers: int, debug: bool) -> None:
    """Train a MEASNet by RECIPE (a name or a .toml file) on a folder of clean pictures.

    The degradations are made on the fly. The run folder receives weights.safetensors, which
    measnet-run --checkpoint and measnet-export --checkpoint take, checkpoint.pt and log.jsonl.
    """
    run_command(
        lambda: _run(recipe, data, out, workers),
        debug=debug,
        interrupted="stopped; the same command goes on from the last checkpoint",
    )


def _run(name: str, data: Path, out: Path, workers: int) -> None:
    from measnet.errors import MissingPackageError

    try:
        import torch  # noqa: F401 - found out here, before anything is read
    except ModuleNotFoundError:
        raise MissingPackageError("training", "torch", "train") from None

    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from measnet.train.loop import train
    from measnet.train.recipe import read_recipe

    recipe = read_recipe(name)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("L1 {task.fields[l1]:.4f}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(recipe.variant, total=recipe.steps, l1=float("nan"))

        def show(step: int, figures: dict[str, float]) -> None:
            bar.update(task, completed=step, l1=figures["l1"])

        train(recipe, data, out, workers=workers, on_step=show)
    click.echo(f"weights: {out / 'weights.safetensors'}")
