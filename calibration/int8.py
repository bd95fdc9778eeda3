"""Network + frames -> INT8 graph: exact, calibrated, quantised where that is safe, 16-bit elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx

from measnet.calibration.frames import Frames
from measnet.calibration.placement import Placement, place
from measnet.calibration.quantise import quantised_graph
from measnet.description import GraphDescription
from measnet.export.graph import exact_graph
from measnet.export.precision import TypedGraph, typed_graph
from measnet.export.ranges import Magnitudes
from measnet.network import MEASNet


@dataclass(frozen=True)
class Int8Graph:
    """An INT8 graph, and what it came from."""

    typed: TypedGraph
    """The operators that stayed float32, with the reasons, as in a 16-bit graph."""

    placement: Placement

    fp16: TypedGraph
    """The same graph without INT8."""

    description: GraphDescription

    float32_bytes: int
    """The bytes of the same graph in float32."""

    @property
    def model(self) -> onnx.ModelProto:
        return self.typed.model


def int8_network(
    network: MEASNet,
    size: tuple[int, int] | None,
    frames: Frames,
    progress: Callable[[], None] = lambda: None,
    *,
    steerable: bool = False,
) -> Int8Graph:
    """The INT8 graph of ``network``, calibrated on ``frames``; a ``steerable`` one while nobody steers.

    ``size`` and ``steerable`` are as in ``export_graph``; the frames must be of a size that the graph takes.
    ``progress`` is called after each frame. Raises as ``export_graph``, ``Frames`` and ``Magnitudes`` do.
    """
    model, description = exact_graph(network, size, steerable=steerable)
    magnitudes = Magnitudes(model)
    for image in frames.to_calibrate():
        magnitudes.see(image)
        progress()
    placement = place(model, magnitudes.found)
    quantised = quantised_graph(model, placement, magnitudes.found)
    typed = typed_graph(quantised, "fp16", ranges=magnitudes.found)
    description = replace(description, precision="int8")
    onnx.helper.set_model_props(typed.model, description.to_metadata())
    return Int8Graph(
        typed=typed,
        placement=placement,
        fp16=typed_graph(model, "fp16", ranges=magnitudes.found),
        description=description,
        float32_bytes=model.ByteSize(),
    )


def add_origin(model: onnx.ModelProto, frames: Frames) -> None:
    """Writes into the graph's metadata what it was calibrated on."""
    facts = {"source": frames.source.name, "frames": len(frames.calibrated), "sha256": frames.sha256}
    model.metadata_props.add(key="measnet.calibration", value=json.dumps(facts))
