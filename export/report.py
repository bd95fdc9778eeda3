"""The report of `measnet-export` on a typed graph: a table for people, the same as JSON for programs."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from measnet.description import GraphDescription
from measnet.export.precision import TypedGraph, modules_of
from measnet.metrics import Parity, Tolerance
from measnet.whole_file import write_whole


@dataclass(frozen=True)
class Measured:
    """A typed graph held against the network in float32."""

    pictures: str
    """The pictures, in words."""

    size: tuple[int, int]
    """Their (height, width)."""

    parity: dict[str, Parity]
    """By how the graph was run: ``rounded``, every 16-bit tensor rounded, or ``onnxruntime``, as it is.
    ``bytes``: with camera bytes in and out, both sides rounded to them, on frames of an odd size."""

    tolerance: Tolerance

    @property
    def breaches(self) -> list[str]:
        """Lists what lies outside the tolerance, in words, of any way it was run."""
        found = [breach for parity in self.parity.values() for breach in parity.breaches(self.tolerance)]
        return list(dict.fromkeys(found))


WAYS = {
    "rounded": "every 16-bit tensor rounded",
    "onnxruntime": "in ONNX Runtime on this CPU",
    "bytes": "camera bytes in and out",
}


def lines(typed: TypedGraph, bytes_before: int, bytes_after: int, measured: Measured | None) -> list[str]:
    """The report as lines of text."""
    islands = Counter(reason for reason in typed.reasons.values() if reason)
    low, name = len(typed.reasons) - islands.total(), typed.precision.upper()
    islands_in_words = ", ".join(f"{reason} {count}" for reason, count in islands.most_common())
    found = [
        f"  {bytes_after / 1e6:.1f} MB, {bytes_before / 1e6:.1f} MB in float32; "
        f"{low} of {len(typed.reasons)} operators are {name}",
        f"  float32: {islands_in_words}",
    ]
    if measured is None:
        return found
    height, width = measured.size
    found.append(f"  against PyTorch in float32, {measured.pictures} at {height}x{width}:")
    found.append(f"  {'':30} {'PSNR':>9} {'largest':>9} {'experts agree':>14}")
    for way, parity in measured.parity.items():
        found.append(
            f"  {WAYS[way]:30} {parity.psnr_db:6.1f} dB {parity.largest_difference:9.2g} "
            f"{parity.experts_agree:14.4%}"
        )
    return found


def write_report(
    path: Path,
    typed: TypedGraph,
    description: GraphDescription,
    sizes: dict[str, int],
    measured: Measured | None,
) -> None:
    """Writes the report as JSON; the file is there whole or not at all. Raises ``OutputError``.

    ``sizes`` are in bytes, by what has them. ``modules`` counts operators by precision, ``float32`` says
    why each operator that stayed float32 did.
    """
    module_of = modules_of(typed.reasons)
    modules: dict[str, Counter[str]] = {}
    for name, reason in typed.reasons.items():
        modules.setdefault(module_of[name], Counter())["fp32" if reason else typed.precision] += 1
    parity = None
    if measured is not None:
        parity = {
            "pictures": measured.pictures,
            "height": measured.size[0],
            "width": measured.size[1],
            "figures": {way: finite(asdict(figures)) for way, figures in measured.parity.items()},
            "tolerance": asdict(measured.tolerance),
            "breaches": measured.breaches,
        }
    content = {
        "graph": description.to_metadata(),
        "bytes": sizes,
        "parity": parity,
        "modules": modules,
        "float32": {name: reason for name, reason in typed.reasons.items() if reason},
    }
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def finite(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: the PSNR of equal pictures is null."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
