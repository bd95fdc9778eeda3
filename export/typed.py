"""Network -> 16-bit graph: exact, typed where the pictures say it is safe, and held against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx

from measnet.description import GraphDescription
from measnet.export.emulation import emulated
from measnet.export.graph import exact_graph
from measnet.export.parity import camera_parity, network_answer, parity_with
from measnet.export.precision import Precision, TypedGraph, typed_graph
from measnet.export.report import Measured
from measnet.image import Image
from measnet.metrics import TOLERANCES, Parity
from measnet.network import MEASNet


def typed_network(
    network: MEASNet,
    size: tuple[int, int] | None,
    precision: Precision,
    *,
    steerable: bool = False,
    ranges: Callable[[onnx.ModelProto], Mapping[str, float]] | None,
) -> tuple[TypedGraph, GraphDescription, int]:
    """The 16-bit graph of ``network``, what it says of itself, and the bytes it would have in float32.

    ``size`` and ``steerable`` are as in ``export_graph``. ``ranges`` says of the float32 graph how large each
    tensor gets; with None no operator stays float32 for its range. Raises as ``export_graph`` and ``ranges``.
    """
    model, description = exact_graph(network, size, steerable=steerable)
    typed = typed_graph(model, precision, ranges=ranges(model) if ranges else None)
    description = replace(description, precision=precision)
    onnx.helper.set_model_props(typed.model, description.to_metadata())
    return typed, description, model.ByteSize()


def measure(typed: TypedGraph, network: MEASNet, pictures: Image, which: str) -> Measured:
    """Runs a typed graph on ``pictures`` (B 3 H W, called ``which``) and holds it against ``network``.

    FP16 is run twice, rounded everywhere and as ONNX Runtime does it; BF16 once, because ONNX Runtime
    has no BF16 convolution on the CPU. Raises as ``graph_parity``.
    """
    expected = network_answer(network, pictures)
    parity: dict[str, Parity] = {
        "rounded": parity_with(emulated(typed.model).SerializeToString(), expected, pictures)
    }
    if typed.precision == "fp16":
        parity["onnxruntime"] = parity_with(typed.model.SerializeToString(), expected, pictures)
    span = float(expected.restored.max() - expected.restored.min())
    tolerance = TOLERANCES[typed.precision]
    # What restores pictures spans about 0 to 1; only beyond that the tolerance is relative.
    return Measured(
        pictures=which,
        size=(pictures.shape[2], pictures.shape[3]),
        parity=parity,
        tolerance=tolerance.scaled(span) if span > 2 else tolerance,
    )


def measure_bytes(
    model: onnx.ModelProto, network: MEASNet, description: GraphDescription, pictures: Image
) -> Parity:
    """Parity in bytes of a typed graph that takes camera bytes, on ``pictures``, B 3 H W of any size.

    It is run as it is where ONNX Runtime can, which has no BF16 convolution, and rounded elsewhere.
    Raises as ``graph_parity``.
    """
    run = emulated(model) if description.precision == "bf16" else model
    return camera_parity(run.SerializeToString(), network, description, pictures)
