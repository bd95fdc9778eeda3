"""The options that all commands share which make graphs: which network, which sizes, which form."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from measnet.errors import MissingPackageError, UsageError, need
from measnet.weights import NAMES, bundled
from measnet.whole_file import check_not_read

if TYPE_CHECKING:
    from measnet.description import IO
    from measnet.image import ChannelOrder

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Form:
    """``nchw``: B 3 H W, float32, RGB, 0 to 1. ``uint8-nhwc``: camera bytes, B H W 3, in ``channel_order``.

    Raises ``UsageError`` for an order of channels where there is no choice.
    """

    io: IO = "nchw"
    channel_order: ChannelOrder | None = None

    def __post_init__(self) -> None:
        if self.channel_order is not None and not self.takes_bytes:
            raise UsageError("--channel-order goes with --io uint8-nhwc; with --io nchw it is RGB")

    @property
    def takes_bytes(self) -> bool:
        return self.io == "uint8-nhwc"

    @property
    def ending(self) -> str:
        """For names of files: ``.bytes``, ``.bytes-bgr`` or nothing."""
        if not self.takes_bytes:
            return ""
        return ".bytes-bgr" if self.channel_order == "bgr" else ".bytes"


PLANES = Form()


@dataclass(frozen=True)
class GraphOptions:
    """The graphs that a command is to make, and where."""

    source: Path
    """The checkpoint."""

    name: str
    """The beginning of its graphs' names."""

    sizes: tuple[tuple[int, int] | None, ...]
    """The (height, width) of the frames of each graph; None is any."""

    steerable: bool
    form: Form
    out: Path
    """A folder, or the name of a single graph."""

    @classmethod
    def of(
        cls,
        checkpoint: str,
        shapes: tuple[str, ...],
        *,
        dynamic: bool,
        steerable: bool,
        io: IO,
        channel_order: ChannelOrder | None,
        out: Path,
    ) -> GraphOptions:
        """Reads the options as they are typed. Raises ``UsageError``, ``MissingPackageError``."""
        sizes = tuple(_size(shape) for shape in shapes)
        every = (None,) if dynamic or not sizes else ()
        need("exporting", "export", "onnx", "torch")
        if importlib.util.find_spec("onnxscript") is None:  # it takes a second to load: where one traces
            raise MissingPackageError("exporting", "onnxscript", "export")
        source, name = _source(checkpoint)
        return cls(source, name, (*sizes, *every), steerable, Form(io, channel_order), out)

    def path(self, size: tuple[int, int] | None, precision: str) -> Path:
        """The file of one graph: ``nano-dynamic.fp16.bytes.onnx``."""
        if self.is_one_file:
            return self.out
        suffix = "dynamic" if size is None else f"{size[0]}x{size[1]}"
        kinds = "" if precision == "fp32" else f".{precision}"
        steerable = ".steerable" if self.steerable else ""
        return self.out / f"{self.name}-{suffix}{kinds}{self.form.ending}{steerable}.onnx"

    @property
    def is_one_file(self) -> bool:
        return self.out.suffix == ".onnx"

    def check_places(self, precisions: Sequence[str], read: Sequence[str | None]) -> None:
        """Raises ``UsageError`` where graphs of these precisions would share one file, or where they or their
        reports would replace the checkpoint or another file that is ``read``."""
        paths = [self.path(size, precision) for size in self.sizes for precision in precisions]
        if self.is_one_file and len(paths) > 1:
            raise UsageError(f"{len(paths)} graphs cannot share the name {self.out}; give -o a folder")
        for path in paths:
            for written in (path, path.with_suffix(".json")):
                check_not_read(written, "--out", [self.source, *read])


OPTIONS = (
    click.option("--shape", "shapes", multiple=True, metavar="HxW", help="Frame size; may be repeated."),
    click.option("--dynamic", is_flag=True, help="One graph for every size; what is done without --shape."),
    click.option(
        "--steerable",
        is_flag=True,
        help="Takes image-level decisions from outside: for measnet-run's --steady, and tiles that agree.",
    ),
    click.option(
        "--io",
        default="nchw",
        show_default=True,
        type=click.Choice(["nchw", "uint8-nhwc"]),
        help="uint8-nhwc takes and returns camera bytes: scaling, padding, rounding are in the graph.",
    ),
    click.option("--channel-order", type=click.Choice(["rgb", "bgr"]), help="Of bytes.  [default: rgb]"),
    click.option(
        "-o",
        "--out",
        default=".",
        type=click.Path(path_type=Path),
        help="Folder for the graphs, or the name of a single .onnx file.  [default: this folder]",
    ),
)


def graph_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds these options to a click command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"a size is HEIGHTxWIDTH in pixels, such as 360x640, not {text!r}")
    return int(height), int(width)


def _source(checkpoint: str) -> tuple[Path, str]:
    """The file of a checkpoint, which may be the name of bundled weights, and what it is called."""
    if re.fullmatch(r"\d+x[\dx]+(:[\dx]+)*", checkpoint):
        raise UsageError(
            f"{checkpoint} is no checkpoint: one size is --shape, and a range is for an engine, "
            "measnet-export engine GRAPH --profile MIN:OPT:MAX"
        )
    path = Path(checkpoint)
    if checkpoint in NAMES or not (path.exists() or path.suffix or len(path.parts) > 1):
        return bundled(checkpoint, ".safetensors"), checkpoint
    return path, path.stem
