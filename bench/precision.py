"""Measures what 16-bit tensors cost, part by part of the network.

    python bench/precision.py [--checkpoint FILE] [--precision fp16|bf16] [--pictures 4] [--size 352x640]
                              [--frames VIDEO_OR_FOLDER] [--islands-only] [--report FILE.json]

Two tables against the same graph in float32, on frames of examples/car-park.mp4 unless --frames says
otherwise: each part of the network alone in 16 bits, and everything but it; then the graph as
``measnet-export`` writes it, and with each float32 island given up. Every 16-bit tensor is rounded
(``export/emulation.py``), sums inside an operator are float32. PSNR is over all pictures; its peak is 1, or
the span of the network's output where that is beyond 2 (an untrained network's). ``pixels`` and ``images``
are the shares of choices that changed, per pixel and per image and branch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto

from measnet.checkpoint import load_checkpoint
from measnet.export.emulation import emulated
from measnet.export.graph_session import run_graph
from measnet.export.islands import ISLANDS, Island, island_of
from measnet.export.pictures import real_pictures
from measnet.export.precision import HalfPrecision, modules_of, typed_graph
from measnet.export.trace import exact_graph
from measnet.image import Image
from measnet.metrics import Choices, experts_agree, largest_difference, psnr
from measnet.weights import bundled

Outputs = list[dict[str, np.ndarray]]
Row = dict[str, float | int | str]
FLOAT32 = "float32 by choice"


def answers(model: onnx.ModelProto, pictures: Image) -> Outputs:
    graph = model.SerializeToString()
    return [run_graph(graph, picture[None]) for picture in pictures]


def peak_of(expected: Outputs) -> float:
    span = max(float(np.ptp(outputs["restored"])) for outputs in expected)
    return span if span > 2 else 1.0


def row(name: str, got: Outputs, expected: Outputs, operators: int) -> Row:
    restored = [np.concatenate([outputs["restored"] for outputs in side]) for side in (got, expected)]
    pixels, images = [], []
    for ours, theirs in zip(got, expected, strict=True):
        a, b = (Choices(side.get("pixel_experts"), None) for side in (ours, theirs))
        pixels.append(1 - experts_agree(a, b))
        if "image_experts" in ours:
            same = np.sort(ours["image_experts"], axis=2) == np.sort(theirs["image_experts"], axis=2)
            images.append(1 - float(same.all(axis=2).mean()))
    return {
        "part": name,
        "operators in 16 bits": operators,
        "psnr_db": round(psnr(restored[0], restored[1], peak_of(expected)), 1),
        "largest_difference": float(f"{largest_difference(restored[0], restored[1]):.2g}"),
        "pixels_changed": float(np.mean(pixels)),
        "images_changed": float(np.mean(images)) if images else 0.0,
    }


def tables(
    model: onnx.ModelProto, precision: HalfPrecision, pictures: Image, islands_only: bool
) -> tuple[float, dict[str, list[Row]]]:
    """The peak of the PSNR; and ``alone``, ``all but`` and ``islands``, rows of one part each."""
    expected = answers(model, pictures)
    module_of = modules_of(node.name for node in model.graph.node)
    modules = [] if islands_only else list(dict.fromkeys(module_of.values()))

    def measure(name: str, keep: Callable[[NodeProto], str | None]) -> Row:
        typed = typed_graph(model, precision, keep=keep)
        low = sum(not reason for reason in typed.reasons.values())
        return row(name, answers(emulated(typed.model), pictures), expected, low)

    def kept(module: str, alone: bool) -> Callable[[NodeProto], str | None]:
        return lambda node: FLOAT32 if (module_of[node.name] != module) is alone else None

    alone = [measure(module, kept(module, True)) for module in modules]
    all_but = [measure("none", lambda node: None)]
    all_but += [measure(module, kept(module, False)) for module in modules]
    islands = [measure("none: as exported", default)]
    for island in ISLANDS:

        def but(node: NodeProto, island: Island = island) -> str | None:
            return None if island_of(node) is island else default(node)

        without = measure(island.name, but)
        if without["operators in 16 bits"] != islands[0]["operators in 16 bits"]:
            islands.append(without)
    return peak_of(expected), {"alone": alone, "all but": all_but, "islands": islands}


def default(node: NodeProto) -> str | None:
    island = island_of(node)
    return None if island is None else island.name


def print_parts(alone: list[Row], all_but: list[Row]) -> None:
    print("\n| part | operators | only it: PSNR, dB | pixels | images | all but it: dB | pixels | images |")
    print("|---|---|---|---|---|---|---|---|")
    print(f"| none | | | | | {figures(all_but[0])} |")
    for low, full in zip(alone, all_but[1:], strict=True):
        if low["operators in 16 bits"]:
            print(f"| {low['part']} | {low['operators in 16 bits']} | {figures(low)} | {figures(full)} |")


def print_islands(rows: list[Row]) -> None:
    print("\n| island given up | 16-bit operators | PSNR, dB | pixels | images | largest difference |")
    print("|---|---|---|---|---|---|")
    for entry in rows:
        print(
            f"| {entry['part']} | {entry['operators in 16 bits']} | {figures(entry)} | "
            f"{entry['largest_difference']:g} |"
        )


def figures(entry: Row) -> str:
    decibels, pixels, images = (entry[name] for name in ("psnr_db", "pixels_changed", "images_changed"))
    return f"{decibels} | {pixels:.3%} | {images:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--precision", choices=["fp16", "bf16"], default="fp16")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--size", default="352x640")
    parser.add_argument("--frames")
    parser.add_argument("--islands-only", action="store_true")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    pictures, where = real_pictures(options.frames, options.pictures, height, width)
    network = load_checkpoint(options.checkpoint or bundled("nano", ".safetensors"))
    graph = exact_graph(network, None)
    description = graph.description
    peak, found = tables(graph.model, options.precision, pictures, options.islands_only)
    what = f"{description.variant} {description.weights_sha256[:12]}, {options.precision}, peak {peak:.3g}"
    print(f"{what}, {where} at {height}x{width}")
    if not options.islands_only:
        print_parts(found["alone"], found["all but"])
    print_islands(found["islands"])
    if options.report:
        options.report.write_text(json.dumps({"what": what, "pictures": where, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
