"""Writes the bundled files of a name from a checkpoint; for those who train new weights.

    python -m measnet.export.bundle runs/mine/weights.safetensors nano

writes ``nano.safetensors``, ``nano.onnx`` and ``nano.steerable.onnx`` into ``src/measnet/weights``. The
graphs keep their weights in the first. All three are tried before one of them appears under its name. The
same checkpoint and the same versions of PyTorch and ONNX give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import click

from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts
from measnet.command_line import HELP, RenamedOption, run_command
from measnet.config import variant_name
from measnet.errors import OutputError, ParityError, UsageError
from measnet.export.graph import traced_graph
from measnet.export.parity import network_answer, parity_with
from measnet.export.pictures import real_pictures
from measnet.export.shared_weights import share_weights
from measnet.export.trial import size_for_any
from measnet.metrics import FP32_TOLERANCE
from measnet.network import MEASNet
from measnet.onnx_file import check_graph_file, sealed
from measnet.weights import FOLDER, NAMES
from measnet.whole_file import write_whole


def write_bundle(checkpoint: Path, name: str, folder: Path = FOLDER) -> list[Path]:
    """Writes the three bundled files of ``name`` into ``folder``, and returns their paths.

    Raises ``CheckpointError`` for a checkpoint that cannot be read, ``UsageError`` when it is no ``name``,
    ``ParityError`` when a graph does not compute what the network does, ``OutputError`` when the files cannot
    be written; then those that were there stay.
    """
    if name not in NAMES:
        raise UsageError(f"weights are called as their variant, one of {', '.join(NAMES)}, not {name!r}")
    network = load_checkpoint(checkpoint)
    if (variant := variant_name(network.config)) != name:
        raise UsageError(f"{checkpoint} holds a network of the variant {variant}, not {name}")
    facts = stored_facts(checkpoint)
    models = [traced_graph(network, None, steerable=steerable)[0] for steerable in (False, True)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=folder) as made:
            aside = Path(made)
            weights, *graphs = (aside / (name + end) for end in (".safetensors", ".onnx", ".steerable.onnx"))
            if checkpoint.suffix == ".safetensors" and checkpoint.resolve().parent == folder.resolve():
                shutil.copyfile(checkpoint, weights)  # graphs made anew; the weights stay, to the byte
            else:
                save_checkpoint(network, weights, facts)
            for model, graph in zip(models, graphs, strict=True):
                share_weights(model, weights)
                write_whole(graph, sealed(model.SerializeToString()))
            _try(graphs, network)
            return [path.replace(folder / path.name) for path in (weights, *graphs)]
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from None


def _try(graphs: list[Path], network: MEASNet) -> None:
    """Holds the graphs against the network on two pictures. Raises ``ParityError``."""
    pictures, _ = real_pictures(None, 2, *network.config.size_rule.fit(*size_for_any(network)))
    expected = network_answer(network, pictures)
    for graph in graphs:
        check_graph_file(graph)
        breaches = parity_with(graph, expected, pictures).breaches(FP32_TOLERANCE)
        if breaches:
            raise ParityError(
                f"nothing was written, {graph.name} does not compute what the network does: "
                f"{'; '.join(breaches)}"
            )


@click.command(context_settings=HELP)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "-o",
    "--out",
    cls=RenamedOption,
    former="--folder",
    type=click.Path(path_type=Path),
    default=FOLDER,
    help="Where to.  [default: src/measnet/weights]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(checkpoint: Path, name: str, out: Path, debug: bool) -> None:
    """Write the bundled files of NAME (nano, small) from CHECKPOINT: its weights, and the graphs to run."""

    def write() -> None:
        for path in write_bundle(checkpoint, name, out):
            click.echo(f"{os.path.relpath(path)}: {path.stat().st_size / 1e3:.0f} kB")

    run_command(write, debug=debug, interrupted="stopped; the files that were there stay")


if __name__ == "__main__":
    main()
