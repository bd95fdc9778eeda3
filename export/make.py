"""Network -> the graph that was asked for: exact, typed, in its form, and held against the network.

made = make(load_checkpoint(path), Wanted(size=(360, 640), precision="fp16"), real_pictures)
made.graph.write(Path("mine.onnx"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from measnet.export.camera_bytes import camera_graph
from measnet.export.emulation import emulated
from measnet.export.exact import ExactMEASNet
from measnet.export.graph import Graph
from measnet.export.measure import Measured, graph_parity, measure
from measnet.export.options import PLANES, Form, Precision
from measnet.export.precision import typed_graph
from measnet.export.ranges import largest_magnitudes, magnitudes_by_operator, magnitudes_from_operators
from measnet.export.trace import exact_graph
from measnet.image import Image
from measnet.metrics import TOLERANCES, Tolerance
from measnet.network import MEASNet

SMALLER = (128, 160)
"""Height and width that are tried instead. From 128 on the frequency blocks' masks are not empty."""

Pictures = Callable[[int, int, int], tuple[Image, str]]
"""Gives so many pictures of a height and width (B 3 H W), and says in words which they are."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """The parts that graphs are made with, and how hard these are tried."""

    graph_of: Callable[..., Graph] = exact_graph
    """Makes a network's graph, as ``exact_graph`` does."""

    bytes_of: Callable[..., Graph] = camera_graph
    """Gives a graph camera bytes, as ``camera_graph`` does."""

    tolerances: Mapping[str, Tolerance] = field(default_factory=lambda: TOLERANCES)
    """By precision, for 16-bit graphs."""

    any_size: tuple[int, int] = (256, 320)
    """Height and width on which a graph for any size is tried."""

    most_operations: float = 400e9
    """For a frame to be tried (a multiply and an add are two): seconds on a small machine."""


USUAL = Making()


@dataclass(frozen=True)
class Wanted:
    """A graph to be made."""

    size: tuple[int, int] | None
    """The (height, width) of the frames it is for; None is any."""

    precision: Precision = "fp32"
    form: Form = PLANES
    steerable: bool = False


@dataclass(frozen=True)
class Made:
    """A graph, and how it turned out."""

    graph: Graph

    reasons: dict[str, str]
    """For every operator of a 16-bit graph, by name: why it is float32; "" where it is not."""

    float32_bytes: int
    """The bytes of the same graph in float32."""

    measured: Measured | None
    """None where nothing was tried."""

    magnitudes: dict[str, float]
    """The largest magnitudes seen, as ``magnitudes_by_operator``."""


def make(network: MEASNet, wanted: Wanted, pictures: Pictures | None, making: Making = USUAL) -> Made:
    """Makes one graph of ``network``, and compares both on ``pictures``. With None nothing is compared, and
    no operator stays float32 for its range.

    Where a frame of the wanted size takes too long, as of ``base``, a smaller graph of the same network is
    made and tried instead. Raises as ``exact_graph`` and ``measure``.
    """
    trial, size = None, wanted.size
    large = size is not None and size != SMALLER and is_too_large(network, size, making)
    if pictures is not None and large:
        trial, pictures = make(network, replace(wanted, size=SMALLER), pictures, making), None
    exact = making.graph_of(network, size, steerable=wanted.steerable)
    magnitudes: dict[str, float] = {}
    images, which = None, ""
    if pictures is not None and wanted.precision != "fp32":
        images, which = pictures(2, *network.config.size_rule.fit(*(size or size_for_any(network, making))))
    inner, reasons = exact, {}
    if wanted.precision != "fp32":
        if trial is not None:
            magnitudes = magnitudes_from_operators(exact.model, trial.magnitudes)
        elif images is not None:
            magnitudes = largest_magnitudes(exact.model, images[:1])
        typed = typed_graph(exact.model, wanted.precision, ranges=magnitudes)
        inner, reasons = exact.become(typed.model, precision=wanted.precision), typed.reasons
    graph = in_form(inner, wanted.form, size, making.bytes_of)
    measured = None
    if trial is not None and trial.measured is not None:
        measured = replace(trial.measured, pictures=f"{trial.measured.pictures}, {INSTEAD}")
    elif pictures is not None and images is None:
        measured = _in_its_form(graph, network, pictures, making)
    elif pictures is not None and images is not None:
        tolerance = making.tolerances[wanted.precision]
        measured = measure(_runs(inner), network, [("the pictures", images)], tolerance, pictures=which)
        if wanted.form.takes_bytes:
            bytes_too = _in_its_form(graph, network, pictures, making).parity["exact"]
            parity = {**measured.parity, "bytes": bytes_too}
            measured = replace(measured, parity=parity, judged=(*measured.judged, "bytes"))
    by_operator = magnitudes_by_operator(exact.model, magnitudes)
    return Made(graph, reasons, exact.model.ByteSize(), measured, by_operator)


INSTEAD = "on a smaller graph of the same network"


def in_form(
    graph: Graph,
    form: Form,
    size: tuple[int, int] | None,
    bytes_of: Callable[..., Graph] = camera_graph,
) -> Graph:
    """``graph`` (of the form ``nchw``, for frames of ``size`` or, with None, of any) in this form."""
    if not form.takes_bytes:
        return graph
    return bytes_of(graph, frame_size=size, channel_order=form.channel_order or "rgb")


def _runs(graph: Graph) -> dict[str, bytes]:
    """A 16-bit graph as it is run to be measured: FP16 twice, rounded everywhere and as ONNX Runtime does it;
    BF16 once, because ONNX Runtime has no BF16 convolution on the CPU."""
    rounded = {"rounded": emulated(graph.model).SerializeToString()}
    return rounded if graph.description.precision == "bf16" else {**rounded, "onnxruntime": graph.content}


def _in_its_form(graph: Graph, network: MEASNet, pictures: Pictures, making: Making) -> Measured:
    """Measures a graph as whoever runs it would, to float32's tolerance; with camera bytes on frames of an
    odd size, so that padding and cropping are tried too."""
    description = graph.description
    if description.precision == "bf16":
        graph = graph.become(emulated(graph.model))
    if description.static_size is not None:
        height, width = description.static_size
    else:
        odd = 1 if description.takes_bytes else 0
        height, width = (side - odd for side in size_for_any(network, making))
    images, which = pictures(2, *description.frame_rule.fit(height, width))
    parity = {"exact": graph_parity(graph, network, images)}
    return Measured(which, (images.shape[2], images.shape[3]), parity, TOLERANCES["fp32"], None, ("exact",))


def is_too_large(network: MEASNet, size: tuple[int, int], making: Making = USUAL) -> bool:
    """Tells whether a frame of this (height, width) is too large to try a graph on."""
    height, width = least = network.config.size_rule.fit(1, 1)
    per_pixel = operations(network, least) / (height * width)
    return per_pixel * size[0] * size[1] > making.most_operations


def operations(network: MEASNet, size: tuple[int, int]) -> int:
    """Counts the operations of convolutions and products in the export form, for a frame of ``size``."""
    with torch.no_grad(), _Counted() as counted:
        ExactMEASNet(network.eval())(torch.zeros(1, 3, *size))
    return counted.operations


class _Counted(TorchFunctionMode):
    """Counts what is computed meanwhile. PyTorch's own counter loads its compiler, which takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        name = getattr(function, "__name__", "")
        if name == "conv2d":
            self.operations += _multiplied(result, arguments[1][0].numel())
        elif name in ("linear", "matmul"):
            self.operations += _multiplied(result, arguments[0].shape[-1])
        return result


def _multiplied(result: Tensor, summands: int) -> int:
    """Counts the operations of a result whose every number is a sum of so many products."""
    return 2 * result.numel() * summands


def size_for_any(network: MEASNet, making: Making = USUAL) -> tuple[int, int]:
    """The (height, width) on which a graph for any size is tried."""
    return SMALLER if is_too_large(network, making.any_size, making) else making.any_size
