"""Builds every variant, precision and kind of size for every RTX card, and writes down what came of it.

    python bench/engines.py --variant nano --gpu sm89 --json engines.json

These are TensorRT-RTX builds, made ahead of time: no GPU is used, no plan is run, and nothing here says how
fast a plan is. Weights are random, but for nano's; a builder does not look at their values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch

from measnet.checkpoint import load_checkpoint
from measnet.config import VARIANTS
from measnet.errors import MEASNetError
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.engine import build_engines
from measnet.export.graph import exact_graph, write_graph
from measnet.export.precision import Precision
from measnet.export.target import RTX_CARDS, find_targets
from measnet.export.typed import typed_network
from measnet.network import MEASNet
from measnet.weights import bundled

DYNAMIC = "64x64:720x1280:1080x1920"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--precision", action="append", choices=["fp32", *get_args(Precision)])
    parser.add_argument("--size", action="append", help=f"HxW, or dynamic ({DYNAMIC})")
    parser.add_argument("--gpu", action="append", choices=list(RTX_CARDS))
    parser.add_argument("--json", type=Path, help="where the figures go; added to what is there")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for variant in options.variant or ["nano"]:
        for size in options.size or ["720x1280", "dynamic"]:
            for precision in options.precision or ["fp32", "fp16", "bf16"]:
                for row in builds(variant, precision, size, options.gpu or list(RTX_CARDS)):
                    rows.append(row)
                    print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def builds(variant: str, precision: str, size: str, cards: list[str]) -> list[dict[str, Any]]:
    """One graph built for every card: seconds, megabytes, and what went wrong."""
    started = time.monotonic()
    static = None if size == "dynamic" else tuple(int(side) for side in size.split("x"))
    network = _network(variant)
    if precision == "fp32":
        model, _ = exact_graph(network, static)
    else:
        typed, _, _ = typed_network(network, static, precision, pictures=None)  # type: ignore[arg-type]
        model = typed.model
    graph_seconds = time.monotonic() - started
    operators = len(model.graph.node)
    profiles = () if static else (Profile.parse(DYNAMIC),)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / f"{variant}-{size}.{precision}.onnx"
        write_graph(graph, model)
        for target in find_targets(("tensorrt-rtx",), tuple(cards)):
            row: dict[str, Any] = {"variant": variant, "precision": precision, "size": size}
            row |= {"gpu": target.label.removeprefix("rtx-"), "tensorrt_rtx": target.flavour_version}
            row |= {"operators": operators, "graph_s": round(graph_seconds, 1)}
            row |= {"graph_mb": round(graph.stat().st_size / 1e6, 1)}
            try:
                (built,) = build_engines([graph], [target], Path(name), BuildSettings(profiles), cache=None)
            except MEASNetError as error:
                row |= {"built": False, "why": str(error)}
            else:
                row |= {"built": True, "build_s": round(built.seconds or 0.0, 1)}
                row |= {"plan_mb": round(built.plan_bytes / 1e6, 1), "notes": list(built.notes)}
                built.path.unlink()
            most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, the largest so far
            row |= {"builder_peak_mb_so_far": round(most / 1024), "cores": os.cpu_count()}
            rows.append(row | {"machine": platform.machine(), "load": round(os.getloadavg()[0], 1)})
    return rows


def _network(variant: str) -> MEASNet:
    if variant == "nano":
        return load_checkpoint(bundled("nano", ".safetensors"))
    torch.manual_seed(0)
    return MEASNet(VARIANTS[variant]).eval()


if __name__ == "__main__":
    main()
