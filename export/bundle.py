"""Writes the bundled files of a name from a checkpoint; for those who train new weights.

    python -m measnet.export.bundle runs/mine/weights.safetensors nano

writes ``nano.safetensors``, ``nano.onnx`` and ``nano.steerable.onnx`` into ``src/measnet/weights``. The
graphs keep their weights in the first: ONNX lets a tensor's data lie in another file of the same folder, at
an offset, and a safetensors file holds its tensors as they are in memory. Weights are rounded to 16 bits, of
which the network itself is then made, so that all three files compute the same; a graph widens them again
when it is loaded. Constants that the exporter computed from weights (padded, folded) are in no checkpoint and
stay inside. All three files are tried before one of them appears under its name. The same checkpoint and
the same versions of PyTorch and ONNX give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import TensorProto

from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts
from measnet.command_line import HELP, run_command, say
from measnet.config import variant_name
from measnet.errors import OutputError, ParityError, UsageError
from measnet.export.graph import widen
from measnet.export.graph_session import GraphSession
from measnet.export.make import Making, size_for_any
from measnet.export.measure import network_answer, parity_with
from measnet.export.pictures import real_pictures
from measnet.export.trace import traced_graph
from measnet.metrics import FP32_TOLERANCE
from measnet.network import MEASNet
from measnet.onnx_file import DATA_SEAL, check_graph_file, sealed
from measnet.weights import FOLDER, NAMES
from measnet.whole_file import write_whole

SMALL = 256  # bytes; below this saying where a tensor lies takes about as much as the tensor
MOST_INSIDE = 0.25
"""The largest share of the weights' bytes that a graph may store itself (the bundled ones: 2 %). One with
more is not of that checkpoint."""


TRACED = Making(graph_of=traced_graph)
"""Bundled graphs are not made of those that are bundled."""


def write_bundle(checkpoint: Path, name: str, folder: Path = FOLDER, making: Making = TRACED) -> list[Path]:
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
    again = checkpoint.suffix == ".safetensors" and checkpoint.resolve().parent == folder.resolve()
    if not again:
        network = network.half().float()
    models = [making.graph_of(network, None, steerable=steerable).model for steerable in (False, True)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=folder) as made:
            aside = Path(made)
            weights, *graphs = (aside / (name + end) for end in (".safetensors", ".onnx", ".steerable.onnx"))
            if again:
                shutil.copyfile(checkpoint, weights)  # graphs made anew; the weights stay, to the byte
            else:
                save_checkpoint(network, weights, facts, half=True)
            for model, graph in zip(models, graphs, strict=True):
                share_weights(model, weights)
                write_whole(graph, sealed(model.SerializeToString()))
            _try(graphs, network, making)
            return [path.replace(folder / path.name) for path in (weights, *graphs)]
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from None


def _try(graphs: list[Path], network: MEASNet, making: Making) -> None:
    """Holds the graphs against the network on two pictures. Raises ``ParityError``."""
    pictures, _ = real_pictures(None, 2, *network.config.size_rule.fit(*size_for_any(network, making)))
    expected = network_answer(network, pictures)
    for graph in graphs:
        check_graph_file(graph)
        breaches = parity_with(GraphSession(graph), expected, pictures).breaches(FP32_TOLERANCE)
        if breaches:
            raise ParityError(
                f"nothing was written, {graph.name} does not compute what the network does: "
                f"{'; '.join(breaches)}"
            )


def share_weights(model: onnx.ModelProto, holder: Path) -> None:
    """Lets the tensors of ``model`` point into the safetensors file ``holder``, which must lie beside it.

    The graph says the SHA-256 of ``holder``: rewritten, even with the same tensors, it is refused.
    Raises ``UsageError`` when more than ``MOST_INSIDE`` of the weights is not in there.
    """
    stored = holder.read_bytes()
    offsets = _offsets(stored)
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= SMALL]
    held = {}
    for tensor in large:
        forms = (tensor.raw_data, _in_16_bits(tensor))
        held[tensor.name] = next((form for form in forms if form in offsets), None)
    inside = sum(len(tensor.raw_data) for tensor in large if held[tensor.name] is None)
    if inside > MOST_INSIDE * sum(len(tensor.raw_data) for tensor in large):
        raise UsageError(
            f"{holder} does not hold the weights of the graph: {inside} bytes of them are not in there; "
            "export the graph from that file"
        )
    widened = []
    for tensor in large:
        data = held[tensor.name]
        if data is None:
            continue
        if len(data) < len(tensor.raw_data):
            widened.append(widen(tensor))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", holder.name), ("offset", offsets[data]), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.metadata_props.add(key=DATA_SEAL, value=hashlib.sha256(stored).hexdigest())


def _in_16_bits(tensor: TensorProto) -> bytes | None:
    """The bytes of a float32 tensor as float16; None where that is not the same numbers."""
    if tensor.data_type != TensorProto.FLOAT:
        return None
    values = np.frombuffer(tensor.raw_data, np.float32)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float16)
    return narrow.tobytes() if np.array_equal(narrow.astype(np.float32), values) else None


def _offsets(stored: bytes) -> dict[bytes, int]:
    """The bytes of every tensor of a safetensors file -> where in the file they begin."""
    length = int.from_bytes(stored[:8], "little")
    start = 8 + length
    entries = json.loads(stored[8:start])
    spans = [entry["data_offsets"] for name, entry in entries.items() if name != "__metadata__"]
    return {stored[start + first : start + last]: start + first for first, last in spans}


@click.command(context_settings=HELP)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("name")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=FOLDER,
    help="Where to.  [default: src/measnet/weights]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.pass_obj
def main(making: Making | None, /, checkpoint: Path, name: str, out: Path, debug: bool) -> None:
    """Write the bundled files of NAME (nano, small) from CHECKPOINT: its weights, and the graphs to run."""

    def write() -> None:
        for path in write_bundle(checkpoint, name, out, making or TRACED):
            say(f"{os.path.relpath(path)}: {path.stat().st_size / 1e3:.0f} kB")

    run_command(write, debug=debug, interrupted="stopped; the files that were there stay")


if __name__ == "__main__":
    main()
