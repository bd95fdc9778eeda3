"""Runs one backend on made-up pictures: what came out, how long it took, how much memory it held."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from measnet.gpu import free_memory
from measnet.image import Pixels, pad, to_image, to_pixels
from measnet.runtime.backends import Backend
from measnet.runtime.backends.choice import choose_backend

KEPT_FACTS = ("backend", "version", "provider", "fallback", "driver", "built_for", "cuda_graphs")
"""Of a backend's facts; the others are paths."""

WARM_UP = 8  # frames: TensorRT's launches become CUDA graphs meanwhile
WARM_UP_SECONDS = 1.0
ROUNDS = 20
ROUNDS_SECONDS = 3.0  # enough for a median on a machine that takes half a second for a picture


def try_backend(model: str, backend: str, sizes: list[tuple[int, int]], frames: str) -> dict[str, Any]:
    """Restores one picture of each size (height, width) and times it; results go to the file ``frames``.

    Returns facts ready for JSON; times are medians in milliseconds: ``infer_milliseconds`` of the backend
    alone (for a GPU with both copies), ``milliseconds`` from uint8 to uint8. Raises as backends do.
    """
    chosen = choose_backend(model, backend)
    free = free_memory()
    chosen.activate()
    try:
        run: dict[str, Any] = {"infer_milliseconds": {}, "milliseconds": {}}
        arrays: dict[str, Any] = {}
        for number, (height, width) in enumerate(sizes):
            picture = made_up_picture(height, width)
            arrays |= {f"{name}{number}": value for name, value in _restored(chosen, picture).items()}
            size = f"{width}x{height}"
            run["infer_milliseconds"][size], run["milliseconds"][size] = _times(chosen, picture)
        left = free_memory()
        description, facts = chosen.description, chosen.facts
    finally:
        chosen.deactivate()
    with Path(frames).open("wb") as file:
        np.savez(file, **arrays)
    of_gpu = None if free is None or left is None else round((free - left) / 2**20)
    return {
        "variant": description.variant,
        "weights_sha256": description.weights_sha256,
        "precision": description.precision,
        **{name: facts[name] for name in KEPT_FACTS if name in facts},
        **run,
        "gpu_memory_mib": of_gpu,
        "peak_memory_mib": _peak_memory(),
    }


def made_up_picture(height: int, width: int) -> Pixels:
    """H W 3, uint8: edges, slopes and noise, the same on every machine."""
    rng = np.random.default_rng(0)
    blocks = rng.random((6, 8, 3))
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
    picture = blocks[rows][:, columns] * 0.7 + np.linspace(0, 0.3, width)[None, :, None]
    noisy = picture * 255 + rng.standard_normal(picture.shape) * 20
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _restored(backend: Backend, picture: Pixels) -> dict[str, Any]:
    image = to_image(picture)
    done = backend.infer(pad(image, backend.description.fit(*image.shape[2:])))
    found = {
        "restored": done.restored,
        "pixel_experts": done.choices.pixel_experts,
        "image_experts": done.choices.image_experts,
    }
    return {name: value for name, value in found.items() if value is not None}


def _times(backend: Backend, picture: Pixels) -> tuple[float, float]:
    """Milliseconds of the backend alone, and of a whole restoration: medians after a warm-up."""
    infer: list[float] = []
    whole: list[float] = []
    size = backend.description.fit(*picture.shape[:2])

    def repeat(rounds: int, seconds: float) -> None:
        until = time.perf_counter() + seconds
        for done in range(rounds):
            if done and time.perf_counter() > until:
                break
            began = time.perf_counter()
            image = pad(to_image(picture), size)
            ready = time.perf_counter()
            restored = backend.infer(image).restored
            returned = time.perf_counter()
            to_pixels(restored)
            infer.append(returned - ready)
            whole.append(time.perf_counter() - began)

    repeat(WARM_UP, WARM_UP_SECONDS)
    infer.clear()
    whole.clear()
    repeat(ROUNDS, ROUNDS_SECONDS)
    return round(1000 * statistics.median(infer), 2), round(1000 * statistics.median(whole), 2)


def _peak_memory() -> int | None:
    """The most that this process held at one moment, MiB; ``None`` where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)
