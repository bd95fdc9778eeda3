"""Network + frames -> INT8 graph: exact, calibrated, quantised where that is safe, 16-bit elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from measnet.calibration.frames import Frames
from measnet.calibration.placement import Placement, place
from measnet.calibration.quantise import quantised_graph
from measnet.export.emulation import emulated
from measnet.export.graph import Graph
from measnet.export.measure import Measured, measure
from measnet.export.precision import TypedGraph, typed_graph
from measnet.export.ranges import Magnitudes
from measnet.export.trace import exact_graph
from measnet.metrics import TOLERANCES
from measnet.network import MEASNet


@dataclass(frozen=True)
class Int8Graph:
    """An INT8 graph, and what it came from."""

    graph: Graph

    reasons: dict[str, str]
    """For the operators that are not INT8, by name: why they are float32; "" for those that are not."""

    placement: Placement

    fp16: TypedGraph
    """The same graph without INT8."""

    float32_bytes: int
    """The bytes of the same graph in float32."""


def int8_network(
    network: MEASNet,
    size: tuple[int, int] | None,
    frames: Frames,
    progress: Callable[[], None] = lambda: None,
    *,
    steerable: bool = False,
    quantise: Callable[..., onnx.ModelProto] = quantised_graph,
) -> Int8Graph:
    """The INT8 graph of ``network``, calibrated on ``frames``; a ``steerable`` one while nobody steers.

    ``size`` and ``steerable`` are as in ``exact_graph``; the frames must be of a size that the graph takes.
    ``progress`` is called after each frame; ``quantise`` is as ``quantised_graph``. Raises as
    ``exact_graph``, ``Frames`` and ``Magnitudes`` do.
    """
    exact = exact_graph(network, size, steerable=steerable)
    model = exact.model
    magnitudes = Magnitudes(model)
    for image in frames.to_calibrate():
        magnitudes.see(image)
        progress()
    placement = place(model, magnitudes.found)
    quantised = quantise(model, placement, magnitudes.found)
    typed = typed_graph(quantised, "fp16", ranges=magnitudes.found)
    return Int8Graph(
        graph=exact.become(typed.model, precision="int8", calibration=frames.calibration),
        reasons=typed.reasons,
        placement=placement,
        fp16=typed_graph(model, "fp16", ranges=magnitudes.found),
        float32_bytes=model.ByteSize(),
    )


def measure_loss(
    made: Int8Graph, network: MEASNet, frames: Frames, progress: Callable[[], None] = lambda: None
) -> Measured:
    """Holds an INT8 graph, and the same without INT8, against ``network`` on the frames that were held out.

    ``progress`` is called after each. Raises as ``measure``.
    """
    runs = {
        "rounded": emulated(made.graph.model).SerializeToString(),
        "onnxruntime": made.graph.content,
        "without_int8": emulated(made.fp16.model).SerializeToString(),
    }
    return measure(
        runs,
        network,
        frames.held_out,
        TOLERANCES["int8"],
        pictures=f"{len(frames.held_out)} of {frames.source.name}",
        unjudged=["without_int8"],
        progress=progress,
    )
