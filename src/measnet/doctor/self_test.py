"""Builds, runs, compares and times whatever this machine has: one JSON that can be sent to us.

Every step is a process of its own (``step.py``); one that fails becomes an entry. The report says what was
measured and with which versions, nothing of whose machine it is (no names, no paths).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measnet.config import VARIANTS
from measnet.doctor.machine import Machine, discreet
from measnet.doctor.step import Result, perform_apart
from measnet.errors import MEASNetError
from measnet.metrics import TOLERANCES, Choices, Parity, compare
from measnet.runtime.backends.choice import ENGINE_SUFFIXES
from measnet.weights import bundled

FORMAT = 2
SIZES = [(360, 640), (720, 1280)]
"""Height, width of the pictures."""

RUN_SECONDS = 900.0
BUILD_SECONDS = 1800.0
PACKAGES = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt-rtx-cu13-libs", "rtx")}
"""Flavour of TensorRT -> what ``Machine.loads`` calls it, and the extra that installs it."""

CARD_WITHOUT_GPU = "sm89"
"""A card that is built for, and not run on, where there is none."""

Perform = Callable[[str, dict[str, Any], float], Result]
Say = Callable[[str], None]


def self_test(machine: Machine, model: str, say: Say, perform: Perform = perform_apart) -> dict[str, Any]:
    """The report, ready for JSON. ``say`` hears of every step. Raises nothing, but for Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="measnet-doctor-") as folder:
        test = _SelfTest(machine, model, say, perform, Path(folder))
        for backend in _backends(machine, model):
            test.run(model, backend)
        graph = _graph(model)
        if graph is not None:
            test.engines(graph)
    entries = [*test.builds, *test.runs]
    compared = [run["parity"] for run in test.runs if run.get("parity")]
    report = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "model": model if model in VARIANTS else "a file",
        "builds": test.builds,
        "runs": test.runs,
        "passed": all(parity["passed"] for parity in compared)
        and any("milliseconds" in run for run in test.runs)
        and not any("error" in entry for entry in entries),
    }
    return {name: discreet(value) for name, value in report.items()}


class _SelfTest:
    """Account of all that was built and run."""

    def __init__(self, machine: Machine, model: str, say: Say, perform: Perform, folder: Path) -> None:
        self.machine = machine
        self.model = model
        self.say = say
        self.perform = perform
        self.folder = folder
        self.builds: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self._expected: list[_Frame] | None = None

    def run(self, model: str, backend: str, label: str = "") -> None:
        """Runs ``model`` and holds it against the first one that ran."""
        label = label or backend
        self.say(f"{label}: running")
        file = self.folder / "frames.npz"
        file.unlink(missing_ok=True)
        job = {"model": model, "backend": backend, "sizes": SIZES, "frames": str(file)}
        found = self._performed("run", job, RUN_SECONDS, label)
        entry = {"name": label, "backend": backend, **found}
        if "milliseconds" in found:
            frames = _frames(file)
            if self._expected is None:
                self._expected = frames
            else:
                entry["parity"] = _parity(frames, self._expected, found["precision"])
            for size, milliseconds in found["milliseconds"].items():
                alone = found["infer_milliseconds"][size]
                self.say(f"{label}: {size} in {milliseconds:.1f} ms, {alone:.1f} ms of it the network")
        self.runs.append(entry)

    def engines(self, graph: Path) -> None:
        """Builds what can be built here of ``graph``, and runs what can be run."""
        flavours = [flavour for flavour in PACKAGES if self._is_ready(flavour)]
        if not flavours:
            return
        graphs = {"fp32": graph}
        fp16 = self.folder / f"{graph.stem}.fp16.onnx"
        self.say("FP16 graph: writing")
        made = self._performed("fp16", {"graph": str(graph), "output": str(fp16)}, RUN_SECONDS, "FP16 graph")
        if made:
            self.builds.append({"name": "FP16 graph", "precision": "fp16", **made})
        else:
            graphs["fp16"] = fp16
            self.run(str(fp16), "onnxruntime", "onnxruntime, FP16 graph")
        for flavour in flavours:
            for precision, path in graphs.items():
                self._engine(flavour, precision, path)

    def _is_ready(self, flavour: str) -> bool:
        """Notes why not, where a flavour of TensorRT builds nothing here."""
        package, extra = PACKAGES[flavour]
        loads = self.machine.loads.get(package)
        if loads is None:
            why = {"skipped": f"it is not installed: pip install 'measnet[{extra}]'"}
        elif loads != "ok":
            why = {"error": f"it is installed and cannot be loaded: {loads}"}
        elif flavour == "tensorrt" and not self.machine.gpus:
            why = {"skipped": self.machine.gpu_note}
        else:
            return True
        self.builds.append({"name": flavour, **why})
        return False

    def _engine(self, flavour: str, precision: str, graph: Path) -> None:
        from measnet.export.target import RTX_CARDS

        here = f"sm{self.machine.gpus[0].compute_capability.replace('.', '')}" if self.machine.gpus else ""
        card = None
        if flavour == "tensorrt-rtx":
            card = here if here in RTX_CARDS else CARD_WITHOUT_GPU
        label = f"{flavour}, {precision.upper()}{f', {card}' if card else ''}"
        entry = {"name": label, "precision": precision}
        self.builds.append(entry)
        if card == "sm75" and precision == "fp32":
            entry["skipped"] = "Turing cards multiply no float32 matrices with TensorRT-RTX"
            return
        self.say(f"{label}: building")
        job = {"graph": str(graph), "flavour": flavour, "card": card, "folder": str(self.folder)}
        found = self._performed("build", job, BUILD_SECONDS, label)
        engine = found.pop("engine", None)
        entry |= found
        if engine is None:
            return
        self.say(f"{label}: built in {found['seconds']} s, {found['plan_mb']} MB")
        if card in (None, here):
            self.run(engine, "tensorrt", label)
        else:
            self.say(f"{label}: not run, there is no such GPU here")
        Path(engine).unlink(missing_ok=True)

    def _performed(self, step: str, job: dict[str, Any], seconds: float, label: str) -> Result:
        found = {
            name: value.replace(self.model, "the model") if self._is_told(name, value) else value
            for name, value in self.perform(step, job, seconds).items()
        }
        for name in ("skipped", "error"):
            if name in found:
                self.say(f"{label}: {name}: {found[name]}")
        return found

    def _is_told(self, name: str, value: Any) -> bool:
        return name in ("skipped", "error") and isinstance(value, str) and self.model not in VARIANTS


def _backends(machine: Machine, model: str) -> Iterator[str]:
    """The backends that take ``model``; the others are held against the first one that runs."""
    if model.lower().endswith(ENGINE_SUFFIXES):
        yield "tensorrt"
        return
    graph = model in VARIANTS or model.lower().endswith(".onnx")
    if graph:
        yield "onnxruntime"
        if machine.gpus and "TensorrtExecutionProvider" in machine.providers:
            yield "onnxruntime-tensorrt"
    if not model.lower().endswith(".onnx"):
        yield "torch"


def _graph(model: str) -> Path | None:
    """The float32 graph that engines are built from, if there is one."""
    if model.lower().endswith(".onnx"):
        return Path(model)
    if model in VARIANTS:
        try:
            return bundled(model, ".onnx")
        except MEASNetError:
            return None
    return None


class _Frame:
    """Result of a run for one picture."""

    def __init__(self, restored: NDArray[np.float32], choices: Choices) -> None:
        self.restored = restored
        self.choices = choices


def _frames(file: Path) -> list[_Frame]:
    with np.load(file, allow_pickle=False) as arrays:
        return [
            _Frame(
                arrays[f"restored{number}"],
                Choices(arrays.get(f"pixel_experts{number}"), arrays.get(f"image_experts{number}")),
            )
            for number in range(sum(name.startswith("restored") for name in arrays))
        ]


def _parity(frames: list[_Frame], expected: list[_Frame], precision: str) -> dict[str, Any]:
    """The worst parity of all pictures with the first run's, and the verdict."""
    pairs = zip(frames, expected, strict=True)
    found = [compare(a.restored, b.restored, a.choices, b.choices) for a, b in pairs]
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
