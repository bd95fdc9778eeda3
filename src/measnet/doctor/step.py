"""A step of the self-test in a process of its own: what crashes or hangs there takes nothing else with it.

``python -m measnet.doctor.step FOLDER`` is that process: ``job.json`` in, ``result.json`` out."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measnet.errors import MEASNetError, MissingPackageError, first_line, need
from measnet.gpu import free_memory
from measnet.image import Pixels, pad, to_image, to_pixels
from measnet.runtime.backends import Backend
from measnet.runtime.backends.choice import choose_backend

KEPT_FACTS = ("backend", "version", "provider", "fallback", "driver", "built_for", "cuda_graphs")
"""Facts of a backend that are told; the others are paths."""

WARM_UP_SECONDS = 1.0
ROUNDS_SECONDS = 3.0  # enough for a median on a machine that takes half a second for a picture


def try_backend(
    model: str,
    backend: str,
    sizes: list[tuple[int, int]],
    frames: str,
    warm_up: int = 8,
    rounds: int = 20,
) -> dict[str, Any]:
    """Restores one picture of each size (height, width) and times it; results go to the file ``frames``.

    ``rounds`` are timed, at most, after as many for ``warm_up``: TensorRT's launches become CUDA graphs
    meanwhile.

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
            run["infer_milliseconds"][size], run["milliseconds"][size] = _times(
                chosen, picture, warm_up, rounds
            )
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


def _times(backend: Backend, picture: Pixels, warm_up: int, most: int) -> tuple[float, float]:
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

    repeat(warm_up, WARM_UP_SECONDS)
    infer.clear()
    whole.clear()
    repeat(most, ROUNDS_SECONDS)
    return round(1000 * statistics.median(infer), 2), round(1000 * statistics.median(whole), 2)


def _peak_memory() -> int | None:
    """The most that this process held at one moment, MiB; ``None`` where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write_fp16(graph: str, output: str) -> dict[str, Any]:
    """Writes the FP16 form of one of our float32 graphs. Raises as the export stage does."""
    need("building engines", "rtx", "filelock", "onnx")
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
    need("building engines", "rtx", "filelock", "onnx")
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


Result = dict[str, Any]
"""Facts of a step, or ``error``, or ``skipped`` with the package that is missing. Ready for JSON."""


def perform(step: str, arguments: dict[str, Any]) -> Result:
    """Does a step in this process. Never raises: what failed is said in the result."""
    steps: dict[str, Callable[..., Result]] = {
        "fp16": write_fp16,
        "build": build,
        "run": try_backend,
    }
    try:
        return steps[step](**arguments)
    except MissingPackageError as error:
        return {"skipped": str(error)}
    except MEASNetError as error:
        return {"error": str(error)}
    except Exception as error:  # a broken driver or package may raise anything
        return {"error": f"{type(error).__name__}: {first_line(error)}"}


def perform_apart(step: str, arguments: dict[str, Any], seconds: float) -> Result:
    """Does a step in a process of its own that has ``seconds``. Never raises, but for Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="measnet-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"step": step, "arguments": arguments}))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        with (folder / "stderr").open("wb") as stderr:
            try:
                ended = subprocess.run(
                    # -P: no module is taken from the folder that somebody happens to stand in.
                    [sys.executable, "-P", "-m", "measnet.doctor.step", name],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=environment,
                    timeout=seconds,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return {"error": f"it did not end within {seconds:g} s and was stopped"}
        try:
            result: Result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError):
            return {"error": _death(ended, (folder / "stderr").read_text(errors="replace"))}
        return result


def _death(code: int, said: str) -> str:
    how = f"with exit status {code}"
    if code < 0:
        how = f"by signal {-code} ({signal.Signals(-code).name})"
    lines = said.strip().splitlines()
    return f"the process was ended {how}" + (f": {lines[-1][:300]}" if lines else "")


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    result = perform(job["step"], job["arguments"])
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
