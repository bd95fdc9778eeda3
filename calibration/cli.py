"""``measnet-calibrate``: a checkpoint and frames in, INT8 graphs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from measnet.command_line import HELP, run_command, say
from measnet.export.options import GraphOptions, graph_options
from measnet.number_options import WholeNumber

if TYPE_CHECKING:
    from measnet.calibration.int8 import Int8Graph
    from measnet.network import MEASNet


@dataclass(frozen=True, kw_only=True)
class Calibrating:
    """Settings of a calibration that are no options of the command."""

    any_size: tuple[int, int] = (256, 320)
    """Height and width on which a graph for any size is calibrated and measured."""

    network: Callable[..., Int8Graph] | None = None
    """Makes the graph, as ``int8_network`` does, which it is by default."""


@click.command(
    context_settings={**HELP, "max_content_width": 100},
    epilog="""\b
Examples:
  measnet-calibrate nano clip.mp4
  measnet-calibrate best.ckpt photos/ --shape 1080x1920 --limit 64 -o graphs/
  measnet-export engine nano-dynamic.int8.onnx --gpu sm89

Exit status: 0 done, 1 failed on the way, 2 an option or a file is wrong.""",
)
@click.argument("checkpoint")
@click.argument("frames")
@graph_options
@click.option("--limit", type=WholeNumber(1), default=16, show_default=True, metavar="N", help="Most frames.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Measure the loss on frames held out."
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet")
@click.pass_obj
def main(
    calibrating: Calibrating | None,
    /,
    checkpoint: str,
    frames: str,
    shapes: tuple[str, ...],
    limit: int,
    verify: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Write INT8 graphs of CHECKPOINT (nano and small are bundled), calibrated on FRAMES: a video or a folder
    of pictures, such as will be restored. The rest of each graph is as with measnet-export --fp16. A report
    says what INT8 loses, on frames of the same source that were held out."""

    def calibrate() -> None:
        wanted = GraphOptions.of(checkpoint, shapes, **options)
        wanted.check_places(["int8"], [frames])
        _calibrate(wanted, frames, limit, verify, calibrating or Calibrating())

    run_command(calibrate, debug=debug, interrupted="stopped; no graph was left half-written")


def _calibrate(
    options: GraphOptions, source: str, count: int, verify: bool, calibrating: Calibrating
) -> None:
    from measnet.checkpoint import load_checkpoint

    network = load_checkpoint(options.source)
    for size in options.sizes:
        path = options.path(size, "int8")
        lines = calibrate(network, path, size, options, source, calibrating, count=count, verify=verify)
        for line in lines:
            say(line)


def calibrate(
    network: MEASNet,
    path: Path,
    size: tuple[int, int] | None,
    options: GraphOptions,
    source: str,
    calibrating: Calibrating,
    *,
    count: int,
    verify: bool,
) -> list[str]:
    """Writes one INT8 graph to ``path`` and its report beside it. Returns what there is to say.

    Raises ``UsageError`` for a source with one frame where two are needed, ``ParityError`` for a graph whose
    result is not finite, ``OutputError`` when a file cannot be written, and what ``Frames`` and
    ``int8_network`` raise.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from measnet.calibration import calibration_report as report
    from measnet.calibration.frames import Frames
    from measnet.calibration.int8 import int8_network, measure_loss
    from measnet.errors import UsageError
    from measnet.export.make import in_form

    frames = Frames(source, count, network.config.size_rule.fit(*(size or calibrating.any_size)))
    if frames.alone and verify:
        raise UsageError(
            f"{frames.source} has one frame; INT8 needs two, one to calibrate on and another to measure its "
            "loss on (--no-verify does not measure it)"
        )
    loss = None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"calibrating {path.name}", total=frames.wanted)
        make = calibrating.network or int8_network
        made = make(network, size, frames, lambda: bar.advance(task), steerable=options.steerable)
        bar.remove_task(task)
        if verify:
            task = bar.add_task("measuring its loss", total=len(frames.held_out))
            loss = measure_loss(made, network, frames, lambda: bar.advance(task))
    graph = in_form(made.graph, options.form, size)
    graph.write(path)
    written = path.stat().st_size
    json_file = path.with_suffix(".json")
    report.write_report(json_file, made, frames, written, loss)
    first = f"{path}: {graph.description.variant}, {graph.takes(size)}, INT8"
    return [first, *report.lines(made, frames, written, loss), f"  report: {json_file}"]
