"""The reports on graphs: lines for people, the same as JSON for programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measnet.export.make import Made
from measnet.export.measure import WAYS, Measured
from measnet.export.precision import modules_of
from measnet.whole_file import write_whole


def lines(made: Made, graph_bytes: int) -> list[str]:
    """The report on a graph as lines of text."""
    measured = made.measured
    if made.graph.description.precision == "fp32":
        return [] if measured is None else [_in_one_line(measured)]
    stayed = [reason for reason in made.reasons.values() if reason]
    low, name = len(made.reasons) - len(stayed), made.graph.description.precision.upper()
    found = [
        f"  {graph_bytes / 1e6:.1f} MB, {made.float32_bytes / 1e6:.1f} MB in float32; "
        f"{low} of {len(made.reasons)} operators are {name}",
        f"  float32: {counted(stayed)}",
    ]
    if measured is not None:
        height, width = measured.size
        found.append(f"  against PyTorch in float32, {measured.pictures} at {height}x{width}:")
        found += table(measured, WAYS)
    return found


def counted(reasons: list[str]) -> str:
    """``norms 20, softmax 16``."""
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())


def table(measured: Measured, ways: Mapping[str, str]) -> list[str]:
    """The figures by how a graph was run, as lines."""
    rows = [f"  {'':30} {'PSNR':>9} {'largest':>9} {'experts agree':>14}"]
    for way, parity in measured.parity.items():
        rows.append(
            f"  {ways[way]:30} {parity.psnr_db:6.1f} dB {parity.largest_difference:9.2g} "
            f"{parity.experts_agree:14.4%}"
        )
    return rows


def _in_one_line(measured: Measured) -> str:
    parity = measured.parity["exact"]
    height, width = measured.size
    return (
        f"  parity with PyTorch on {height}x{width} ({measured.pictures}): PSNR {parity.psnr_db:.1f} dB, "
        f"largest difference {parity.largest_difference:.2g}, experts agree on {parity.experts_agree:.4%} "
        "of pixels"
    )


def write_report(path: Path, made: Made, graph_bytes: int) -> None:
    """Writes the report on a 16-bit graph as JSON; the file is there whole or not at all.

    ``modules`` counts operators by precision, ``float32`` says why each operator that stayed float32 did.
    Raises ``OutputError``.
    """
    low = made.graph.description.precision
    measured = made.measured
    content = {
        "graph": made.graph.description.to_metadata(),
        "bytes": {"graph": graph_bytes, "float32": made.float32_bytes},
        "parity": measured and {"pictures": measured.pictures, **figures(measured)},
        "modules": by_module({name: "fp32" if why else low for name, why in made.reasons.items()}),
        "float32": {name: reason for name, reason in made.reasons.items() if reason},
    }
    write_json(path, content)


def figures(measured: Measured) -> dict[str, Any]:
    """The measurements, as JSON."""
    return {
        "height": measured.size[0],
        "width": measured.size[1],
        "figures": {way: finite_figures(asdict(parity)) for way, parity in measured.parity.items()},
        "tolerance": asdict(measured.tolerance),
        "breaches": measured.breaches,
    }


def by_module(precisions: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Counts the precisions of nodes by the part of the network that each node belongs to."""
    module_of = modules_of(precisions)
    modules: dict[str, Counter[str]] = {}
    for name, precision in precisions.items():
        modules.setdefault(module_of[name], Counter())[precision] += 1
    return modules


def finite_figures(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: the PSNR of equal pictures is null."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
