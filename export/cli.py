"""``measnet-export``: checkpoint in, exact ONNX graph out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from measnet.command_line import run_command

if TYPE_CHECKING:
    from measnet.network import MEASNet


@click.command(
    epilog="""\b
Examples:
  measnet-export --dynamic                               the bundled nano, for any size
  measnet-export --checkpoint best.ckpt --shape 1080x1920
  measnet-export --checkpoint best.ckpt --shape 520x640 --shape 360x640 -o graphs/

Sizes are HEIGHTxWIDTH of the frames. A graph takes any batch, and says in its metadata what it is."""
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A .ckpt, state dict or .safetensors.")
@click.option("--model", default="nano", show_default=True, help="Bundled weights, without --checkpoint.")
@click.option("--shape", "shapes", multiple=True, metavar="HxW", help="Frame size; may be repeated.")
@click.option("--dynamic", is_flag=True, help="One graph for every size.")
@click.option(
    "-o",
    "--output",
    default=".",
    type=click.Path(path_type=Path),
    help="Folder for the graphs, or the name of a single .onnx file.  [default: this folder]",
)
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Hold the graph against the network in ONNX Runtime.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet")
def main(
    checkpoint: Path | None,
    model: str,
    shapes: tuple[str, ...],
    dynamic: bool,
    output: Path,
    check: bool,
    debug: bool,
) -> None:
    """Write the exact float32 ONNX graph of a MEASNet, for one size or for any."""
    run_command(
        lambda: _export_all(checkpoint, model, shapes, dynamic, output, check),
        debug=debug,
        interrupted="stopped; no graph was left half-written",
    )


def _export_all(
    checkpoint: Path | None,
    model: str,
    shapes: tuple[str, ...],
    dynamic: bool,
    output: Path,
    check: bool,
) -> None:
    from measnet.errors import MissingPackageError, UsageError

    sizes = [_parse_size(shape) for shape in shapes]
    wanted: list[tuple[int, int] | None] = [*sizes, *([None] if dynamic else [])]
    if not wanted:
        raise UsageError("say which size to export: --shape HEIGHTxWIDTH, or --dynamic for any")
    if output.suffix == ".onnx" and len(wanted) > 1:
        raise UsageError(f"{len(wanted)} graphs cannot share the name {output}; give -o a folder")
    try:
        # Imported to find out whether they are there, before any work.
        import onnx  # noqa: F401 - only that
        import onnxscript  # noqa: F401 - only that
        import torch  # noqa: F401 - only that
    except ModuleNotFoundError as error:
        raise MissingPackageError("exporting", error.name or "torch", "export") from None

    from measnet.checkpoint import load_checkpoint
    from measnet.config import variant_name
    from measnet.weights import bundled

    source = checkpoint or bundled(model, ".safetensors")
    network = load_checkpoint(source)
    name = variant_name(network.config) if checkpoint is None else source.stem
    for size in wanted:
        suffix = "dynamic" if size is None else f"{size[0]}x{size[1]}"
        path = output if output.suffix == ".onnx" else output / f"{name}-{suffix}.onnx"
        _export_one(network, path, size, check)


def _export_one(network: MEASNet, path: Path, size: tuple[int, int] | None, check: bool) -> None:
    from rich.console import Console

    from measnet.errors import ParityError
    from measnet.export.graph import export_graph
    from measnet.export.parity import graph_parity, sample_pictures
    from measnet.metrics import FP32_TOLERANCE

    with Console(stderr=True).status(f"writing {path}"):
        description = export_graph(network, path, size=size)
    taken = description.static_size
    takes = "any size" if taken is None else f"{taken[0]}x{taken[1]} pixels"
    if taken is not None and taken != size:
        takes += f" (frames of {size[0]}x{size[1]} are padded by reflection)" if size else ""
    click.echo(f"{path}: {description.variant}, {takes}, {path.stat().st_size / 1e6:.1f} MB")
    if not check:
        return
    height, width = taken or description.fit(256, 320)
    with Console(stderr=True).status("holding it against the network"):
        parity = graph_parity(path, network, sample_pictures(2, height, width))
    click.echo(
        f"  parity with PyTorch on {height}x{width}: PSNR {parity.psnr_db:.1f} dB, largest difference "
        f"{parity.largest_difference:.2g}, experts agree on {parity.experts_agree:.4%} of pixels"
    )
    breaches = parity.breaches(FP32_TOLERANCE)
    if breaches:
        path.unlink()
        raise ParityError(
            f"{path} was removed, it does not compute what the network does: {'; '.join(breaches)}"
        )


def _parse_size(text: str) -> tuple[int, int]:
    from measnet.errors import UsageError

    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"a size is HEIGHTxWIDTH in pixels, such as 360x640, not {text!r}")
    return int(height), int(width)
