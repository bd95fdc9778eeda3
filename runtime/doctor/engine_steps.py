"""What the self-test does with the export stage: the FP16 form of a graph, and engines. No PyTorch is needed.

Imported in processes of steps alone, which have the time to import onnx.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measnet.image import pad, to_image
from measnet.runtime.doctor.trial import made_up_picture


def write_fp16(graph: str, output: str) -> dict[str, Any]:
    """Writes the FP16 form of one of our float32 graphs. Raises as the export stage does."""
    _needs_onnx()
    from measnet.errors import UsageError
    from measnet.export.graph import read_graph
    from measnet.export.precision import typed_graph
    from measnet.export.ranges import largest_magnitudes

    given = read_graph(Path(graph))
    description = given.description
    if description.precision != "fp32":
        raise UsageError(f"the graph is {description.precision} already")
    height, width = description.fit(256, 320) if description.static_size is None else description.static_size
    picture = pad(to_image(made_up_picture(height, width)), (height, width))
    typed = typed_graph(given.model, "fp16", ranges=largest_magnitudes(given.model, picture))
    given.become(typed.model, precision="fp16").write(Path(output))
    return {}


def build(graph: str, flavour: str, card: str | None, folder: str) -> dict[str, Any]:
    """Builds the engine of ``graph`` for an RTX ``card`` (``sm89``), or for this GPU with None.

    Raises as ``build_engines`` does.
    """
    _needs_onnx()
    from measnet.export.build_settings import BuildSettings
    from measnet.export.engine import build_engines
    from measnet.export.target import find_targets

    targets = find_targets((flavour,), () if card is None else (card,))
    (built,) = build_engines([Path(graph)], targets, Path(folder), BuildSettings(), cache=None)
    return {
        "engine": str(built.path),
        "built_for": built.facts.built_for(),
        "seconds": round(built.seconds or 0.0, 1),
        "plan_mb": round(built.plan_bytes / 1e6, 1),
        "notes": list(built.notes),
    }


def _needs_onnx() -> None:
    from measnet.errors import MissingPackageError

    try:
        import filelock  # noqa: F401 - only to find out whether it is there
        import onnx  # noqa: F401 - only that
    except ModuleNotFoundError as error:
        raise MissingPackageError("building engines", error.name or "onnx", "rtx") from None
