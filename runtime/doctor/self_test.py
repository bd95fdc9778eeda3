"""Runs whatever this machine has, holds it against the rest, and times it: one JSON that can be sent to us.

It says what was measured and with which versions; nothing of whose machine it is (no names, no paths).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from measnet.errors import MEASNetError
from measnet.image import Pixels
from measnet.metrics import TOLERANCES, Parity, compare
from measnet.runtime.doctor.machine import Machine
from measnet.runtime.restorer import RestoredFrame, Restorer

FORMAT = 1
BACKENDS = ("onnxruntime", "torch")
SIZES = ((360, 640), (720, 1280))  # height, width
ROUNDS = 5
KEPT_FACTS = ("variant", "weights_sha256", "precision", "backend", "version", "provider", "device")


def self_test(machine: Machine, model: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Restores made-up pictures with every backend that starts, and compares each with the first.

    ``say`` hears of every step. A backend that fails is reported, not raised. Ready for JSON.
    """
    runs: list[dict[str, Any]] = []
    expected: list[RestoredFrame] | None = None
    pictures = [made_up_picture(height, width) for height, width in SIZES]
    for backend in BACKENDS:
        say(f"{backend}: starting")
        try:
            with Restorer(model, backend, tile="off") as restorer:
                run: dict[str, Any] = dict(restorer.description)
                run = {name: fact for name, fact in run.items() if name in KEPT_FACTS}
                frames = [restorer.restore(picture) for picture in pictures]
                run["parity"] = None if expected is None else _parity(frames, expected, run["precision"])
                run["milliseconds"] = _times(restorer, pictures, say, backend)
        except MEASNetError as error:
            say(f"{backend}: {error}")
            runs.append({"backend": backend, "error": _without_home(error)})
            continue
        expected = expected or frames
        runs.append(run)
    compared = [run["parity"] for run in runs if run.get("parity")]
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "model": Path(model).name,
        "peak_memory_mib": _peak_memory(),
        "runs": runs,
        "passed": all(parity["passed"] for parity in compared) and any("error" not in run for run in runs),
    }


def _without_home(error: Exception) -> str:
    return str(error).replace(str(Path.home()), "~")


def _peak_memory() -> int | None:
    """The most that this process held at one moment, MiB; ``None`` where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def made_up_picture(height: int, width: int) -> Pixels:
    """H W 3, uint8: edges, slopes and noise, the same on every machine."""
    rng = np.random.default_rng(0)
    blocks = rng.random((6, 8, 3))
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
    picture = blocks[rows][:, columns] * 0.7 + np.linspace(0, 0.3, width)[None, :, None]
    noisy = picture * 255 + rng.standard_normal(picture.shape) * 20
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _parity(frames: list[RestoredFrame], expected: list[RestoredFrame], precision: str) -> dict[str, Any]:
    """The worst parity of all pictures with the first backend's, and the verdict."""
    pairs = zip(frames, expected, strict=True)
    found = [compare(a.image, b.image, a.choices[0], b.choices[0]) for a, b in pairs]
    worst = Parity(
        min(parity.psnr_db for parity in found),
        max(parity.largest_difference for parity in found),
        min(parity.experts_agree for parity in found),
    )
    return {
        "psnr_db": worst.psnr_db if np.isfinite(worst.psnr_db) else None,
        "largest_difference": worst.largest_difference,
        "experts_agree": worst.experts_agree,
        "passed": not worst.breaches(TOLERANCES.get(precision, TOLERANCES["fp32"])),
    }


def _times(
    restorer: Restorer, pictures: list[Pixels], say: Callable[[str], None], backend: str
) -> dict[str, float]:
    """Median time of a whole restoration, from uint8 to uint8, per size."""
    found = {}
    for picture in pictures:
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            restorer(picture)
            seconds.append(time.perf_counter() - began)
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        found[size] = round(1000 * statistics.median(seconds), 2)
        say(f"{backend}: {size} in {found[size]:.0f} ms")
    return found
