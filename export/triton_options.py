"""The options of ``measnet-export`` about Triton, and what is done for them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from measnet.export.engine import Built

IMAGE = "nvcr.io/nvidia/tritonserver:YY.MM-py3"

OPTIONS = (
    click.option(
        "--triton",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Write a model repository for Triton Inference Server: of the graphs, or of --engine tensorrt.",
    ),
    click.option(
        "--triton-batch",
        type=int,
        metavar="N",
        help="Most frames that Triton batches.  [default: 8; of an engine, its profile's]",
    ),
    click.option("--triton-instances", type=int, metavar="N", help="Copies per GPU.  [default: 1]"),
)


def triton_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options about Triton to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


class TritonWish:
    """The folder of models that the options ask for, checked before any work. Raises ``UsageError``."""

    def __init__(self, options: dict[str, Any]) -> None:
        from measnet.errors import UsageError

        self.folder: Path | None = options["triton"]
        self.batch: int | None = options["triton_batch"]
        self.instances: int = 1 if options["triton_instances"] is None else options["triton_instances"]
        if self.folder is None:
            if self.batch is not None or options["triton_instances"] is not None:
                raise UsageError("--triton-batch and --triton-instances go with --triton DIR")
            return
        if "tensorrt-rtx" in options["flavours"]:
            raise UsageError(
                "Triton loads plans of TensorRT, not of TensorRT-RTX; leave --engine away to serve the ONNX "
                "graph, or build with --engine tensorrt on the machine that serves"
            )
        if options["steerable"]:
            raise UsageError(
                "--triton does not go with --steerable: a client of Triton would have to hold every frame's "
                "decisions itself; leave one of them away"
            )
        if self.instances < 1 or (self.batch is not None and self.batch < 1):
            raise UsageError("--triton-batch and --triton-instances are at least 1")

    def serve(self, graphs: Sequence[Path], engines: Sequence[Built]) -> None:
        """Writes the repository, if one is wished for, of ``engines`` if there are any, and says so."""
        if self.folder is None:
            return
        from measnet.export.triton import write_repository

        models = [(graph, None) for graph in graphs] if not engines else _with_graphs(engines, graphs)
        for graph, engine in models:
            home = write_repository(
                graph, self.folder, engine=engine, max_batch=self.batch, instances=self.instances
            )
            click.echo(f"{home}: a model for Triton")
        click.echo(f"  serve it (untried here): {_command(self.folder)}")
        if engines:
            version = engines[0].facts.flavour_version
            click.echo(f"  YY.MM: a release with TensorRT {version}, no other loads the plan")


def _with_graphs(engines: Sequence[Built], graphs: Sequence[Path]) -> list[tuple[Path, Path | None]]:
    """Each engine file with the graph that it was built from, which comes first."""
    import hashlib

    from measnet.export.whole_graph import read_graph

    of = {hashlib.sha256(read_graph(graph)[0]).hexdigest(): graph for graph in graphs}
    return [(of[built.facts.graph_sha256], built.path) for built in engines]


def _command(folder: Path) -> str:
    mount = shlex.quote(f"{folder.resolve()}:/models")
    return (
        f"docker run --rm --gpus all -p 8000:8000 -p 8001:8001 -v {mount} {IMAGE} "
        "tritonserver --model-repository=/models"
    )
