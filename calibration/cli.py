"""``measnet-export --int8``: reads its options and shows its progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from measnet.calibration import report
from measnet.calibration.frames import Frames
from measnet.calibration.int8 import add_origin, int8_network
from measnet.calibration.loss import measure_loss
from measnet.errors import UsageError
from measnet.export.form import Form, takes
from measnet.export.graph import write_graph
from measnet.network import MEASNet

DEFAULT_FRAMES = 16
DYNAMIC_SIZE = (256, 320)  # what a graph for any size is calibrated and measured on, in pixels


def export_int8(
    network: MEASNet, path: Path, size: tuple[int, int] | None, form: Form, options: dict[str, Any]
) -> None:
    """Writes the INT8 graph of ``network`` to ``path`` and its report beside it, and says what it loses.

    Raises ``UsageError`` for a source with one frame where two are needed, ``ParityError`` for a graph whose
    result is not finite, ``OutputError`` when a file cannot be written, and what ``Frames`` and
    ``int8_network`` raise.
    """
    fitted = network.config.size_rule.fit(*(size or DYNAMIC_SIZE))
    wanted = options["calibration_frames"]
    frames = Frames(options["frames"], DEFAULT_FRAMES if wanted is None else wanted, fitted)
    if frames.alone and options["verify"]:
        raise UsageError(
            f"{frames.source} has one frame; INT8 needs two, one to calibrate on and another to measure its "
            "loss on (--no-verify does not measure it)"
        )
    loss = None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"calibrating {path.name}", total=frames.wanted)
        graph = int8_network(network, size, frames, lambda: bar.advance(task), steerable=options["steerable"])
        bar.remove_task(task)
        if options["verify"]:
            task = bar.add_task("measuring its loss", total=len(frames.held_out))
            loss = measure_loss(
                graph.model, graph.fp16.model, network, frames.held_out, lambda: bar.advance(task)
            )
    model, description = form.given_to(graph.model, graph.description, size)
    add_origin(model, frames)
    write_graph(path, model)
    written = path.stat().st_size
    json_file = path.with_suffix(".json")
    report.write_report(json_file, graph, description, frames, written, loss)
    click.echo(f"{path}: {description.variant}, {takes(description, size)}, INT8")
    for line in report.lines(graph, frames, written, loss):
        click.echo(line)
    if options["frames"] is None:
        click.echo("  the sample clip is not what you will restore: give frames of that with --frames")
    click.echo(f"  report: {json_file}")
