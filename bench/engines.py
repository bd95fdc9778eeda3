"""Builds every variant, precision and kind of size for every RTX card, and writes down what came of it.

    python bench/engines.py --variant nano --gpu sm89 --json engines.json

These are TensorRT-RTX builds, made ahead of time: no GPU is used, no plan is run, and nothing here says how
fast a plan is. Weights are random, but for nano's; a builder does not look at their values.

CPU seconds are user and system time of the builder's process, from its start on; they hardly depend on what
else the machine does. ``build_s`` is the clock's time of the build alone, and does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from measnet.checkpoint import load_checkpoint
from measnet.config import VARIANTS
from measnet.description import GraphDescription
from measnet.errors import MEASNetError
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.camera_bytes import camera_graph
from measnet.export.engine import build_engines
from measnet.export.graph import Graph
from measnet.export.precision import typed_graph
from measnet.export.target import RTX_CARDS, find_targets
from measnet.export.trace import exact_graph
from measnet.network import MEASNet
from measnet.weights import bundled

DYNAMIC = "64x64:720x1280:1080x1920"
PRECISIONS = ("fp32", "fp16", "bf16")

Described = tuple[onnx.ModelProto, GraphDescription]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    parser.add_argument("--size", action="append", help=f"HxW, or dynamic ({DYNAMIC})")
    parser.add_argument("--io", action="append", choices=["nchw", "uint8-nhwc"])
    parser.add_argument("--gpu", action="append", choices=list(RTX_CARDS))
    parser.add_argument("--optimization-level", type=int, default=BuildSettings.optimization_level)
    parser.add_argument("--json", type=Path, help="where the figures go; added to what is there")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for variant in options.variant or ["nano"]:
        for size in options.size or ["720x1280", "dynamic"]:
            began = time.process_time()
            height, _, width = size.partition("x")
            static = None if size == "dynamic" else (int(height), int(width))
            exact = exact_graph(_network(variant), static)
            head = {"variant": variant, "size": size, "trace_cpu_s": round(time.process_time() - began, 1)}
            for precision in options.precision or PRECISIONS:
                for io in options.io or ["nchw"]:
                    graph = _formed(_typed(exact, precision), io)
                    about = head | {
                        "precision": precision,
                        "io": io,
                        "operators": len(graph.model.graph.node),
                    }
                    for row in builds(graph, options.gpu or list(RTX_CARDS), options.optimization_level):
                        rows.append(about | row)
                        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=", ", flush=True)
                        if options.json:
                            options.json.write_text(json.dumps(rows, indent=1) + "\n")


def builds(made: Graph, cards: list[str], level: int) -> Iterator[dict[str, Any]]:
    """One graph built for every card: seconds, megabytes, and what went wrong."""
    profiles = (Profile.parse(DYNAMIC),) if made.description.static_size is None else ()
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / "graph.onnx"
        made.write(graph)
        for target in find_targets(("tensorrt-rtx",), tuple(cards)):
            row: dict[str, Any] = {"gpu": target.label.removeprefix("rtx-"), "level": level}
            row |= {"tensorrt_rtx": target.flavour_version}
            row |= {"graph_mb": round(graph.stat().st_size / 1e6, 1)}
            settings = BuildSettings(profiles, optimization_level=level)
            before = _builders()
            try:
                (built,) = build_engines([graph], [target], Path(name), settings, cache=None)
            except MEASNetError as error:
                row |= {"built": False, "why": str(error)}
            else:
                row |= {"built": True, "build_s": round(built.seconds or 0.0, 1)}
                row |= {"plan_mb": round(built.plan_bytes / 1e6, 1), "notes": list(built.notes)}
                built.path.unlink()
            after = _builders()
            row |= {"cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)}
            # KiB, of the largest builder so far
            row |= {"builder_peak_mb_so_far": round(after.ru_maxrss / 1024), "cores": os.cpu_count()}
            yield row | {"machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}


def _typed(graph: Graph, precision: str) -> Graph:
    """A float32 graph in another precision."""
    if precision == "fp32":
        return graph
    typed = typed_graph(graph.model, precision)  # type: ignore[arg-type]  # never fp32 here
    return graph.become(typed.model, precision=precision)


def _formed(graph: Graph, io: str) -> Graph:
    """A graph that takes ``nchw`` in the form of ``io``."""
    return camera_graph(graph) if io == "uint8-nhwc" else graph


def _builders() -> resource.struct_rusage:
    """Seconds that the builders' processes took so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def _network(variant: str) -> MEASNet:
    if variant == "nano":
        return load_checkpoint(bundled("nano", ".safetensors"))
    torch.manual_seed(0)
    return MEASNet(VARIANTS[variant]).eval()


if __name__ == "__main__":
    main()
