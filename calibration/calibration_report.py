"""The report of ``measnet-calibrate``: lines for people, the same as JSON for programs."""

from __future__ import annotations

from pathlib import Path

from measnet.calibration.frames import Frames
from measnet.calibration.int8 import Int8Graph
from measnet.export.export_report import by_module, counted, figures, finite_figures, table, write_json
from measnet.export.measure import Measured

WAYS = {
    "rounded": "INT8 and FP16, rounded",
    "onnxruntime": "in ONNX Runtime on this CPU",
    "without_int8": "FP16 alone, rounded",
}
"""The ways in which graphs are run to measure the loss by INT8, in words."""


def lines(graph: Int8Graph, frames: Frames, graph_bytes: int, loss: Measured | None) -> list[str]:
    """The report as lines of text."""
    reasons = graph.placement.reasons
    stayed = [reason for reason in reasons.values() if reason]
    found = [
        f"  {graph_bytes / 1e6:.1f} MB, {graph.float32_bytes / 1e6:.1f} MB in float32; "
        f"{len(reasons) - len(stayed)} of {len(reasons)} convolutions and products are INT8",
        f"  not INT8: {counted(stayed)}; all else as with --fp16",
        f"  calibrated on {_frames(len(frames.calibrated))} of {frames.source.name}, "
        f"{frames.size[0]}x{frames.size[1]} of each",
    ]
    if loss is None:
        return [*found, "  its loss was not measured"]
    others = _frames(len(frames.held_out), "other ")
    found.append(f"  loss against PyTorch in float32, on {others} of the same source:")
    found += table(loss, WAYS)
    assert loss.effect_db is not None
    found.append(f"  {'the frames unrestored':30} {loss.effect_db:6.1f} dB")
    if loss.breaches:
        found.append(
            f"  A LARGE LOSS: {'; '.join(loss.breaches)}. Calibrate on more frames, and on such as will be "
            "restored, or take measnet-export --fp16"
        )
    return found


def _frames(count: int, which: str = "") -> str:
    return f"{count} {which}frame{'s' if count > 1 else ''}"


def write_report(
    path: Path, graph: Int8Graph, frames: Frames, graph_bytes: int, loss: Measured | None
) -> None:
    """Writes the report as JSON; the file is there whole or not at all. Raises ``OutputError``.

    ``modules`` counts convolutions and products by precision, ``not_int8`` says why each that did not become
    INT8 did not, ``float32`` why each operator that stayed float32 did.
    """
    products, wide = graph.placement.reasons, graph.reasons
    precisions = {
        name: ("fp32" if wide.get(name) else "fp16") if reason else "int8"
        for name, reason in products.items()
    }
    content = {
        "graph": graph.graph.description.to_metadata(),
        "bytes": {"graph": graph_bytes, "float32": graph.float32_bytes},
        "calibration": {
            "method": "largest magnitude",
            "source": str(frames.source),
            "height": frames.size[0],
            "width": frames.size[1],
            "frames": frames.calibrated,
            "sha256": frames.calibration.sha256,
        },
        "loss": loss
        and {
            "frames": [name for name, _ in frames.held_out],
            **figures(loss),
            **finite_figures({"effect_db": loss.effect_db or 0.0}),
        },
        "modules": by_module(precisions),
        "not_int8": {name: reason for name, reason in products.items() if reason},
        "float32": {name: reason for name, reason in wide.items() if reason},
    }
    write_json(path, content)
