"""Starts ``export/builder.py``, listens to it, ends it: what it says becomes a plan or an error of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measnet.engine_file import Range
from measnet.errors import BuildError, GraphError, MissingPackageError, OutputError
from measnet.export.build_settings import BuildSettings, Flavour
from measnet.export.builder import MODULES
from measnet.export.builder_messages import BRAND, build_failed, parse_failed

PARSER_SECONDS = 120  # the longest that it may take over a graph

EXTRA = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}

TellProgress = Callable[[str], None]
"""Takes a few words on the progress of a build."""


@dataclass(frozen=True)
class Plan:
    """A plan, and how it was built."""

    plan: bytes
    timing_cache: bytes
    """The times that TensorRT measured of its kernels; b"" if none were asked for."""

    seconds: float
    """Time of the build itself, without starting and parsing."""

    warnings: tuple[str, ...]


def flavour_version(flavour: Flavour) -> str:
    """The version of the installed package.

    Raises ``MissingPackageError`` without it, ``BuildError`` when it cannot be loaded.
    """
    version = ""
    with tempfile.TemporaryDirectory(prefix="measnet-") as folder:
        _write(Path(folder) / "job.json", json.dumps({"flavour": flavour, "step": "version"}).encode())
        with _started(Path(folder), flavour) as (process, events):
            for event in events:
                version = event.get("flavour_version", version)
                _raise_fault(event, flavour, "")
            process.wait()
        if not version:
            raise _died(process.returncode, Path(folder), flavour)
    return version


def build_plan(
    graph: bytes,
    flavour: Flavour,
    capabilities: Sequence[str],
    *,
    ahead_of_time: bool,
    profiles: tuple[Mapping[str, Range], ...],
    settings: BuildSettings,
    timing_cache: bytes | None,
    progress: TellProgress,
) -> Plan:
    """Builds one plan for GPUs of these compute ``capabilities`` (``8.9``) from the bytes of an ONNX file.

    More than one is for TensorRT-RTX ahead of time; each of them has to take the graph.

    ``timing_cache`` is b"" to begin one, None to keep none; TensorRT ends its process over a damaged one.
    Ctrl-C ends the build at once. Raises ``GraphError`` when TensorRT does not take the graph,
    ``BuildError`` when it takes it and builds nothing, ``MissingPackageError`` without the package.
    """
    job = {
        "flavour": flavour,
        "step": "build",
        "capabilities": [[int(part) for part in capability.split(".")] for capability in capabilities],
        "ahead_of_time": ahead_of_time,
        "profiles": [dict(profile) for profile in profiles],
        "settings": settings.as_facts(),
        "timing_cache": timing_cache is not None,
    }
    target = f"{BRAND[flavour]} for compute capability {', '.join(capabilities)}"
    with tempfile.TemporaryDirectory(prefix="measnet-") as name:
        folder = Path(name)
        _write(folder / "job.json", json.dumps(job).encode())
        _write(folder / "graph.onnx", graph)
        if timing_cache:
            _write(folder / "timing", timing_cache)
        seconds, warnings = None, []
        phases = _Phases(progress)
        with _started(folder, flavour) as (process, events):
            for event in events:
                _raise_fault(event, flavour, target)
                phases.follow(event)
                if "warning" in event:
                    warnings.append(event["warning"])
                seconds = event.get("seconds", seconds)
            process.wait()
        if seconds is None or process.returncode != 0:
            raise _died(process.returncode, folder, flavour)
        return Plan(
            (folder / "plan").read_bytes(),
            (folder / "timing").read_bytes() if timing_cache is not None else b"",
            seconds,
            tuple(warnings),
        )


@dataclass(frozen=True)
class ParserAnswer:
    """The answer of NVIDIA's parser about a graph."""

    asked: str
    """The parser: ``TensorRT-RTX 1.7.1.116``."""

    faults: tuple[dict[str, str], ...]
    """Each fault's node, operator, text and code."""


def ask_parser(graph: bytes, seconds: float = PARSER_SECONDS) -> ParserAnswer | None:
    """Asks NVIDIA's parser, of whichever flavour works here, about an ONNX file; None where there is none.

    It is native code and the file may be hostile, so it runs apart, and is ended when it takes too
    long.
    """
    flavours: tuple[Flavour, ...] = ("tensorrt-rtx", "tensorrt")
    for flavour in flavours:
        if find_spec(MODULES[flavour]) is None:
            continue
        with tempfile.TemporaryDirectory(prefix="measnet-") as name:
            folder, said = Path(name), dict[str, Any]()
            _write(folder / "job.json", json.dumps({"flavour": flavour, "step": "parse"}).encode())
            _write(folder / "graph.onnx", graph)
            with _started(folder, flavour) as (process, events):
                late = threading.Timer(seconds, process.kill)
                late.start()
                for event in events:
                    said |= event
                late.cancel()
        if "ready" in said:
            died = [{"name": "", "operator": "", "text": "the parser did not survive it", "code": ""}]
            return ParserAnswer(
                f"{BRAND[flavour]} {said['flavour_version']}", tuple(said.get("parsed", died))
            )
    return None


class _Phases:
    """TensorRT's nested phases as a few words."""

    def __init__(self, progress: TellProgress) -> None:
        self.progress = progress
        self.open: list[tuple[str, int]] = []

    def follow(self, event: dict[str, Any]) -> None:
        if "steps" in event:
            self.open.append((event["phase"], event["steps"]))
            self.progress(event["phase"].lower())
        elif "step" in event and self.open and self.open[-1][0] == event["phase"]:
            name, steps = self.open[-1]
            self.progress(f"{name.lower()} {event['step'] + 1}/{steps}")
        elif "ended" in event:
            self.open = [phase for phase in self.open if phase[0] != event["ended"]]
            if self.open:
                self.progress(self.open[-1][0].lower())


class _started:  # noqa: N801 - reads as a verb at its only places
    """The builder's process and its events; it never outlives the block."""

    def __init__(self, folder: Path, flavour: Flavour) -> None:
        self.folder = folder
        # Ours are not for it: a test's warning filters would turn TensorRT's own warnings into errors.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        rtx = "1" if flavour == "tensorrt-rtx" else "0"
        self.environment = {**inherited, "POLYGRAPHY_USE_TENSORRT_RTX": rtx}

    def __enter__(self) -> tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]:
        with (self.folder / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                # -P: no module is taken from the folder that somebody happens to stand in.
                [sys.executable, "-P", "-m", "measnet.export.builder", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self.environment,
                text=True,
            )
        assert self.process.stdout is not None
        return self.process, (json.loads(line) for line in self.process.stdout if line.startswith("{"))

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _raise_fault(event: dict[str, Any], flavour: Flavour, target: str) -> None:
    fault = event.get("fault")
    if fault is None:
        return
    messages = fault["messages"]
    if fault["kind"] == "absent":
        raise MissingPackageError(f"building {BRAND[flavour]} engines", flavour, EXTRA[flavour])
    if fault["kind"] == "import":
        raise BuildError(f"{BRAND[flavour]} is installed and cannot be loaded: {messages[0][:300]}")
    if fault["kind"] == "parse":
        raise GraphError(parse_failed(target, fault["nodes"]))
    if fault["kind"] == "write":
        raise OutputError(f"the plan cannot be written to {tempfile.gettempdir()}: {messages[0]}")
    raise BuildError(build_failed(target, messages))


def _died(code: int, folder: Path, flavour: Flavour) -> BuildError:
    lines = (folder / "stderr").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    how = f"with exit status {code}"
    if code < 0:
        how = f"by signal {-code} ({signal.Signals(-code).name})"
        if -code == signal.SIGKILL:
            how += ", as a machine does that runs out of memory"
    return BuildError(f"{BRAND[flavour]}'s builder was ended {how}: {lines[-1][:300]}")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}") from None
