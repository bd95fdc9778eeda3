"""The program that builds one plan, in a process of its own: ``python -m measnet.export.builder FOLDER``.

A process of its own, because TensorRT may end the whole process, because it hears no Ctrl-C while it builds,
and because Polygraphy serves one flavour of TensorRT per process. ``export/builder_process.py`` starts it.

The folder holds ``job.json`` and ``graph.onnx``, perhaps ``timing``; ``plan`` and ``timing`` are written
there. Lines of JSON on stdout say how it goes; what TensorRT prints goes to stderr.

    {"phase": name, "parent": name or null, "steps": n}    a phase began
    {"phase": name, "step": n}                             a step of it was done
    {"ended": name}                                        it is over
    {"warning": text}
    {"flavour_version": text}                              what imported
    {"fault": {"kind": "import" | "parse" | "build", "messages": [...], "nodes": [...]}}
    {"seconds": number}                                    the plan is written
    {"ready": true}, {"parsed": [faults]}                  the parser was asked, and what it said
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt as trt

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

Send = Callable[[dict[str, Any]], bool]
"""Sends an event to the parent process; False where that no longer listens."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    with os.fdopen(os.dup(1), "w", buffering=1) as events:
        os.dup2(2, 1)

        def say(event: dict[str, Any]) -> bool:
            try:
                events.write(json.dumps(event) + "\n")
            except OSError:  # whoever listened is gone; TensorRT must not see an exception
                return False
            return True

        try:
            trt = importlib.import_module(MODULES[job["flavour"]])
        except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
            absent = isinstance(error, ModuleNotFoundError) and error.name == MODULES[job["flavour"]]
            say({"fault": {"kind": "absent" if absent else "import", "messages": [str(error)]}})
            return
        say({"flavour_version": trt.__version__})
        if job["step"] == "parse":
            ask(trt, folder, say)
        elif job["step"] == "build":
            write_plan(trt, folder, job, say)


def ask(trt: Any, folder: Path, say: Send) -> None:
    """Graph in, what the parser says of it out; ``ready`` before it sees the graph."""
    logger = _logger(trt, [], lambda event: True)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    say({"ready": True})
    say({"parsed": parse(trt, network, logger, (folder / "graph.onnx").read_bytes())})


def write_plan(trt: Any, folder: Path, job: dict[str, Any], say: Send) -> None:
    """Graph in, plan out, with the names that TensorRT 10.12 to 11 and TensorRT-RTX share."""
    from polygraphy.backend.trt import EngineBytesFromNetwork
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    errors: list[str] = []
    logger = _logger(trt, errors, say)
    builder = trt.Builder(logger)
    # Said by name: it has another number in 11 than in 10, where leaving it out loses the graph's types.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    faults = parse(trt, network, logger, (folder / "graph.onnx").read_bytes())
    if faults:
        say({"fault": {"kind": "parse", "messages": errors, "nodes": faults}})
        return
    timing = str(folder / "timing") if job["timing_cache"] else None

    def config(builder: trt.Builder, network: trt.INetworkDefinition) -> trt.IBuilderConfig:
        loader = _config_loader(trt, job, _progress_monitor(trt, say), timing)
        created: trt.IBuilderConfig = loader(builder, network)
        if not job["settings"]["tf32"]:  # on by default, in the one loader of Polygraphy but not the other
            created.clear_flag(trt.BuilderFlag.TF32)
        return created

    started = time.monotonic()
    try:
        plan = EngineBytesFromNetwork((builder, network), config=config, save_timing_cache=timing)()
    except PolygraphyException as error:
        say({"fault": {"kind": "build", "messages": errors or [str(error)]}})
        return
    seconds = time.monotonic() - started
    try:
        (folder / "plan").write_bytes(memoryview(plan))
    except OSError as error:
        say({"fault": {"kind": "write", "messages": [error.strerror or str(error)]}})
        return
    say({"seconds": seconds})


def parse(
    trt: Any, network: trt.INetworkDefinition, logger: trt.ILogger, graph: bytes
) -> list[dict[str, str]]:
    """Parses an ONNX file into ``network``. Returns the parser's errors, one per operator; none is well."""
    parser = trt.OnnxParser(network, logger)
    if parser.parse(graph):
        return []
    faults = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        faults.append(
            {
                "name": error.node_name(),
                "operator": error.node_operator(),
                "text": error.desc(),
                "code": str(error.code()).rpartition(".")[2],
            }
        )
    return faults or [{"name": "", "operator": "", "text": "the parser gave no reason", "code": ""}]


def _config_loader(
    trt: Any, job: dict[str, Any], monitor: trt.IProgressMonitor, timing: str | None
) -> Callable[[trt.Builder, trt.INetworkDefinition], trt.IBuilderConfig]:
    """Polygraphy's loader of a builder configuration, with our settings."""
    from polygraphy.backend.trt import CreateConfig, Profile

    settings = job["settings"]
    profiles = []
    for shapes in job["profiles"]:
        profile = Profile()
        for name, (smallest, usual, largest) in shapes.items():
            profile.add(name, min=smallest, opt=usual, max=largest)
        profiles.append(profile)
    limits = {}
    if settings["workspace_mib"] is not None:
        limits[trt.MemoryPoolType.WORKSPACE] = settings["workspace_mib"] << 20
    shared = {
        "profiles": profiles,
        "memory_pool_limits": limits,
        "builder_optimization_level": settings["optimization_level"],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "max_aux_streams": settings["aux_streams"],
        "load_timing_cache": timing if timing and Path(timing).exists() else None,
        "progress_monitor": monitor,
    }
    if job["flavour"] == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        ahead = [tuple(capability) for capability in job["capabilities"]] if job["ahead_of_time"] else None
        return CreateConfigRTX(compute_capabilities=ahead, use_gpu=ahead is None, **shared)
    levels = {
        "none": trt.HardwareCompatibilityLevel.NONE,
        "ampere-plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "same-compute-capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
    }
    return CreateConfig(
        tf32=settings["tf32"],
        version_compatible=settings["version_compatible"],
        hardware_compatibility_level=levels[settings["hardware_compatible"]],
        **shared,
    )


def _logger(trt: Any, errors: list[str], say: Send) -> trt.ILogger:
    """Keeps TensorRT's errors, passes its warnings on, once each."""
    warned: set[str] = set()

    class Logger(trt.ILogger):  # type: ignore[misc]  # TensorRT has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(msg)
            elif severity == trt.ILogger.WARNING and msg not in warned:
                warned.add(msg)
                say({"warning": msg})

    return Logger()


def _progress_monitor(trt: Any, say: Send) -> trt.IProgressMonitor:
    """Says where the build is, and ends it when nobody listens any more."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # TensorRT has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            say({"phase": phase_name, "parent": parent_phase, "steps": num_steps})

        def phase_finish(self, phase_name: str) -> None:
            say({"ended": phase_name})

        def step_complete(self, phase_name: str, step: int) -> bool:
            return say({"phase": phase_name, "step": step})

    return Monitor()


if __name__ == "__main__":
    main()
