"""The figures for programs: one JSON file."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from measnet.evaluation.measure import Likeness, PictureFigures, Quality, SetFigures, gained
from measnet.evaluation.protocol import Protocol
from measnet.evaluation.published import published
from measnet.whole_file import write_whole

SCHEMA = 2
PACKAGES = (
    "measnet",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "tensorrt",
)


@dataclass(frozen=True)
class Conditions:
    """The conditions of a run's figures, besides the pictures."""

    models: Sequence[dict[str, Any]]
    """Each as ``Restorer.description`` says it."""

    protocol: Protocol
    seed: int


def write_report(
    path: Path, sets: Sequence[SetFigures], conditions: Conditions, video: dict[str, Any] | None = None
) -> None:
    """Writes the report; the file is there whole or not at all. Raises ``OutputError``.

    ``video`` is what ``video_report`` gives. ``null`` stands for a figure that is infinite (PSNR of equal
    pictures) or does not exist.
    """
    text = json.dumps(
        report(sets, conditions) | {"video": video}, indent=2, ensure_ascii=False, allow_nan=False
    )
    write_whole(path, text + "\n")


def report(sets: Sequence[SetFigures], conditions: Conditions) -> dict[str, Any]:
    """The report as it is written."""
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "protocol": {**asdict(conditions.protocol), "seed": conditions.seed},
        "models": list(conditions.models),
        "sets": [_set(one, len(conditions.models)) for one in sets],
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures may depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _set(one: SetFigures, models: int) -> dict[str, Any]:
    restored = [one.restored(number) for number in range(models)]
    comparison = None
    if models == 2:
        comparison = {
            "difference_db": finite(gained(restored[0].psnr_db, restored[1].psnr_db)),
            "worst_picture_db": finite(one.worst_loss_db),
            "likeness": _likeness(one.likeness),
        }
    return {
        "name": one.name,
        "task": one.task,
        "sigma": one.sigma,
        "pictures": len(one.pictures),
        "in_tiles": one.tiled,
        "before": quality_for_report(one.before),
        "restored": [quality_for_report(quality) for quality in restored],
        "gain_db": finite(gained(one.before.psnr_db, restored[0].psnr_db)),
        "improved": one.improved,
        "classical": _qualities(one.classical),
        "published": _qualities(published(one.task, one.name, one.sigma)),
        "comparison": comparison,
        "per_picture": [_picture(picture) for picture in one.pictures],
    }


def _picture(picture: PictureFigures) -> dict[str, Any]:
    return {
        "name": picture.name,
        "tiles": picture.tiles,
        "before": quality_for_report(picture.before),
        "restored": [quality_for_report(quality) for quality in picture.restored],
        "classical": _qualities(picture.classical),
        "likeness": _likeness(picture.likeness),
    }


def _qualities(found: Mapping[str, Quality]) -> dict[str, dict[str, float | None]]:
    return {name: quality_for_report(quality) for name, quality in found.items()}


def quality_for_report(quality: Quality) -> dict[str, float | None]:
    """PSNR and SSIM, ready for JSON."""
    return {"psnr_db": finite(quality.psnr_db), "ssim": quality.ssim}


def _likeness(alike: Likeness | None) -> dict[str, float | None] | None:
    return None if alike is None else {**asdict(alike), "psnr_db": finite(alike.psnr_db)}


def finite(value: float | None) -> float | None:
    """A figure as JSON has it: null for what is infinite or does not exist."""
    return value if value is not None and math.isfinite(value) else None
