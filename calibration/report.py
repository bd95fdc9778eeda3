"""The report of ``measnet-export --int8``: lines for people, the same as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measnet.calibration.frames import Frames
from measnet.calibration.int8 import Int8Graph
from measnet.calibration.loss import WAYS, Loss
from measnet.description import GraphDescription
from measnet.export.precision import modules_of
from measnet.export.report import finite
from measnet.whole_file import write_whole


def lines(graph: Int8Graph, frames: Frames, graph_bytes: int, loss: Loss | None) -> list[str]:
    """The report as lines of text."""
    reasons = graph.placement.reasons
    stayed = Counter(reason for reason in reasons.values() if reason)
    in_words = ", ".join(f"{reason} {count}" for reason, count in stayed.most_common())
    found = [
        f"  {graph_bytes / 1e6:.1f} MB, {graph.float32_bytes / 1e6:.1f} MB in float32; "
        f"{len(reasons) - stayed.total()} of {len(reasons)} convolutions and products are INT8",
        f"  not INT8: {in_words}; all else as with --fp16",
        f"  calibrated on {len(frames.calibrated)} frame{'s' if len(frames.calibrated) > 1 else ''} of "
        f"{frames.source.name}, {frames.size[0]}x{frames.size[1]} of each",
    ]
    if loss is None:
        return [*found, "  its loss was not measured"]
    others = f"{len(loss.frames)} other frame{'s' if len(loss.frames) > 1 else ''}"
    found.append(f"  loss against PyTorch in float32, on {others} of the same source:")
    found.append(f"  {'':30} {'PSNR':>9} {'largest':>9} {'experts agree':>14}")
    for way, parity in loss.parity.items():
        found.append(
            f"  {WAYS[way]:30} {parity.psnr_db:6.1f} dB {parity.largest_difference:9.2g} "
            f"{parity.experts_agree:14.4%}"
        )
    found.append(f"  {'the frames unrestored':30} {loss.effect_db:6.1f} dB")
    if loss.breaches:
        found.append(
            f"  A LARGE LOSS: {'; '.join(loss.breaches)}. Calibrate on more frames, and on such as will be "
            "restored, or take --fp16"
        )
    return found


def write_report(
    path: Path,
    graph: Int8Graph,
    description: GraphDescription,
    frames: Frames,
    graph_bytes: int,
    loss: Loss | None,
) -> None:
    """Writes the report as JSON; the file is there whole or not at all. Raises ``OutputError``.

    ``modules`` counts convolutions and products by precision, ``not_int8`` says why each that did not become
    INT8 did not, ``float32`` why each operator that stayed float32 did.
    """
    reasons, wide = graph.placement.reasons, graph.typed.reasons
    module_of = modules_of(reasons)
    modules: dict[str, Counter[str]] = {}
    for name, reason in reasons.items():
        precision = ("fp32" if wide.get(name) else "fp16") if reason else "int8"
        modules.setdefault(module_of[name], Counter())[precision] += 1
    content = {
        "graph": description.to_metadata(),
        "bytes": {"graph": graph_bytes, "float32": graph.float32_bytes},
        "calibration": {
            "method": "largest magnitude",
            "source": str(frames.source),
            "height": frames.size[0],
            "width": frames.size[1],
            "frames": frames.calibrated,
            "sha256": frames.sha256,
        },
        "loss": None if loss is None else _loss(loss),
        "modules": modules,
        "not_int8": {name: reason for name, reason in reasons.items() if reason},
        "float32": {name: reason for name, reason in wide.items() if reason},
    }
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "frames": loss.frames,
        "height": loss.size[0],
        "width": loss.size[1],
        "figures": {way: finite(asdict(parity)) for way, parity in loss.parity.items()},
        **finite({"effect_db": loss.effect_db}),
        "tolerance": asdict(loss.tolerance),
        "breaches": loss.breaches,
    }
