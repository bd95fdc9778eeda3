"""``measnet-doctor --self-test``: builds, runs, compares and times what is there; it fails, never aborts.

Engines are built by TensorRT-RTX where it is installed; what runs them is a fake (``fake_gpu.py``).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import thin_graph

from measnet.doctor.cli import Doctor, main
from measnet.doctor.machine import Gpu, Machine, discreet
from measnet.doctor.self_test import self_test
from measnet.doctor.step import Result, perform, perform_apart
from measnet.export.graph import read_graph
from measnet.metrics import TOLERANCES, Tolerance

from .engine_bench import FACTS, SMALL, write_fake_engine
from .fake_gpu import NAME, FakeGpu

SIZES = [(128, 160)]
MAKE_BELIEVE = Gpu(NAME, 16384, "580.1", "8.9")
RTX = [name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None]


def machine(gpus: list[Gpu], loads: dict[str, str]) -> Machine:
    return Machine(
        system="Linux", processor="a", cores=2, memory_gib=4.0, python="3.11", packages={}, gpus=gpus,
        gpu_note="" if gpus else "no NVIDIA driver", providers=["CPUExecutionProvider"],
        torch_cuda="none", loads=loads,
    )  # fmt: skip


def small(step: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of a run: a small picture, restored twice after one for warm-up."""
    return {**arguments, "sizes": SIZES, "warm_up": 1, "rounds": 2} if step == "run" else arguments


def in_this_process(step: str, arguments: dict[str, Any], seconds: float) -> Result:
    return perform(step, small(step, arguments))


def no_engines(step: str, arguments: dict[str, Any], seconds: float) -> Result:
    """Runs what there is, the first in a process of its own; engines have tests of their own."""
    if step != "run":
        return {"skipped": "not here"}
    if arguments["backend"] == "onnxruntime":
        return perform_apart(step, small(step, arguments), seconds)
    return in_this_process(step, arguments, seconds)


class Here:
    """Steps in this process, where the fake is; ``build`` makes what the fake TensorRT runs."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.spoilt = False

    def __call__(self, step: str, arguments: dict[str, Any], seconds: float) -> Result:
        self.steps.append((step, arguments.get("backend") or arguments.get("flavour") or ""))
        return self._build(**arguments) if step == "build" else in_this_process(step, arguments, seconds)

    def _build(self, graph: str, flavour: str, card: str | None, folder: str) -> Result:
        loaded = read_graph(Path(graph)).model
        if self.spoilt:
            loaded.graph.initializer[0].raw_data = bytes(len(loaded.graph.initializer[0].raw_data))
        path = Path(folder) / f"{Path(graph).stem}.trt-sm89.engine"
        write_fake_engine(
            path, loaded.SerializeToString(), [SMALL], flavour=flavour, gpu="" if card else NAME
        )
        told: Result = {"engine": str(path), "built_for": FACTS.built_for(), "seconds": 1.5, "plan_mb": 1.0}
        return told


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    gpu.install(monkeypatch)
    return gpu


def test_on_a_machine_with_tensorrt_both_engines_are_built_run_compared_and_timed(gpu: FakeGpu) -> None:
    here, said = Here(), list[str]()
    report = self_test(machine([MAKE_BELIEVE], {"tensorrt": "ok"}), "nano", said.append, here)
    assert report["passed"], json.dumps(report, indent=1)
    assert [build["name"] for build in report["builds"]] == [
        "tensorrt-rtx",
        "tensorrt, FP32",
        "tensorrt, FP16",
    ]
    assert "measnet[rtx]" in report["builds"][0]["skipped"]
    assert all(build["seconds"] == 1.5 for build in report["builds"][1:])
    runs = {run["name"]: run for run in report["runs"]}
    assert [*runs] == [
        "onnxruntime",
        "torch",
        "onnxruntime, FP16 graph",
        "tensorrt, FP32",
        "tensorrt, FP16",
    ]
    engine = runs["tensorrt, FP16"]
    assert engine["precision"] == "fp16" and engine["built_for"].startswith("TensorRT 10.16.1.11 on NVIDIA")
    assert engine["provider"] == MAKE_BELIEVE.name
    assert engine["parity"]["passed"] and engine["parity"]["experts_agree"] > 0.99
    assert engine["milliseconds"]["160x128"] >= engine["infer_milliseconds"]["160x128"] > 0
    assert engine["gpu_memory_mib"] >= 0 and engine["peak_memory_mib"] > 0
    assert runs["onnxruntime, FP16 graph"]["parity"]["psnr_db"] > 55
    assert any(line == "tensorrt, FP16: built in 1.5 s, 1.0 MB" for line in said)
    assert not gpu.alive()


def test_an_engine_that_computes_something_else_fails_the_self_test(gpu: FakeGpu) -> None:
    here = Here()
    here.spoilt = True
    report = self_test(machine([MAKE_BELIEVE], {"tensorrt": "ok"}), "nano", lambda _: None, here)
    verdicts = {run["name"]: run["parity"]["passed"] for run in report["runs"] if "parity" in run}
    assert not report["passed"]
    assert verdicts["torch"] and not verdicts["tensorrt, FP32"]


def test_a_build_that_fails_is_an_entry_and_the_rest_goes_on(gpu: FakeGpu) -> None:
    class Failing(Here):
        def _build(self, graph: str, flavour: str, card: str | None, folder: str) -> Result:
            if "fp16" in graph:
                return super()._build(graph, flavour, card, folder)
            return {"error": f"TensorRT does not take {graph}"}

    report = self_test(machine([MAKE_BELIEVE], {"tensorrt": "ok"}), "nano", lambda _: None, Failing())
    builds = {build["name"]: build for build in report["builds"]}
    assert builds["tensorrt, FP32"]["error"] == "TensorRT does not take …/nano.onnx"
    assert not report["passed"]
    assert [run["name"] for run in report["runs"]][-1] == "tensorrt, FP16"


@pytest.mark.parametrize(
    ("capability", "card", "runs"), [("8.6", "sm86", True), ("9.0", "sm89", False), (None, "sm89", False)]
)
def test_rtx_engines_are_for_this_card_or_only_built(capability: str | None, card: str, runs: bool) -> None:
    gpus = [] if capability is None else [Gpu("NVIDIA X", 16384, "580.1", capability)]
    asked: list[tuple[str, dict[str, Any]]] = []

    def record(step: str, arguments: dict[str, Any], seconds: float) -> Result:
        asked.append((step, arguments))
        built = {"engine": "x.engine", "seconds": 1.0, "plan_mb": 1.0}
        return {"build": built, "fp16": {}}.get(step, {"skipped": "not in this test"})

    self_test(machine(gpus, {"tensorrt-rtx-cu13-libs": "ok"}), "nano", lambda _: None, record)
    builds = [arguments for step, arguments in asked if step == "build"]
    assert [build["flavour"] for build in builds] == ["tensorrt-rtx"] * 2
    assert {build["card"] for build in builds} == {card}
    engines = [arguments for step, arguments in asked if arguments.get("backend") == "tensorrt"]
    assert len(engines) == (2 if runs else 0)


def test_a_package_that_does_not_load_is_an_error_and_one_that_is_absent_is_not() -> None:
    def nothing(step: str, arguments: dict[str, Any], seconds: float) -> Result:
        return {"skipped": "not in this test"}

    broken = machine([MAKE_BELIEVE], {"tensorrt": "ImportError: /opt/x/lib/libnvinfer.so.11: cannot open"})
    report = self_test(broken, "nano", lambda _: None, nothing)
    assert report["builds"][0]["error"].endswith("ImportError: …/libnvinfer.so.11: cannot open")
    assert "skipped" in report["builds"][1]


@pytest.mark.skipif(bool(RTX), reason=f"not installed: {', '.join(RTX)}; pip install 'measnet[rtx]'")
def test_a_step_builds_an_fp16_engine_with_tensorrt_rtx(tmp_path: Path) -> None:
    from measnet.engine_file import read_engine

    thin, graph = tmp_path / "thin.onnx", tmp_path / "thin.fp16.onnx"
    thin_graph().write(thin)
    assert perform("fp16", {"graph": str(thin), "output": str(graph)}) == {}
    job = {"graph": str(graph), "flavour": "tensorrt-rtx", "card": "sm89", "folder": str(tmp_path)}
    built = perform_apart("build", job, 600)
    facts, plan = read_engine(Path(built["engine"]))
    assert built["seconds"] > 0 and built["plan_mb"] == round(len(plan) / 1e6, 1), built
    assert facts.description.precision == "fp16" and facts.built_for() == built["built_for"]


def run_job(tmp_path: Path, model: str = "nano") -> dict[str, Any]:
    return {"model": model, "backend": "onnxruntime", "sizes": SIZES, "frames": str(tmp_path / "f.npz")}


def test_a_step_in_a_process_of_its_own_gives_what_it_gives_here(tmp_path: Path) -> None:
    apart = perform_apart("run", run_job(tmp_path), 300)
    with np.load(tmp_path / "f.npz") as arrays:
        theirs = arrays["restored0"]
    here = perform("run", run_job(tmp_path))
    with np.load(tmp_path / "f.npz") as arrays:
        assert np.abs(arrays["restored0"] - theirs).max() < 1e-5
    assert apart["weights_sha256"] == here["weights_sha256"] and apart["provider"] == "CPUExecutionProvider"
    assert apart["peak_memory_mib"] > 10 and set(apart) == set(here)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", r"the process was ended by signal 6 \(SIGABRT\)"),
        ("import sys; print('no driver', file=sys.stderr); sys.exit(3)", "with exit status 3: no driver"),
        ("import time; time.sleep(60)", r"did not end within 1\.5 s"),
    ],
)
def test_a_step_that_crashes_or_hangs_is_an_entry(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert re.search(said, perform_apart("run", run_job(tmp_path), 1.5 if "60" in code else 60)["error"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read /home/ada/work/x.onnx: gone", "cannot read …/x.onnx: gone"),
        (r"DLL C:\Users\ada\lib\nvinfer.dll failed", "DLL …/nvinfer.dll failed"),
        ("see ~/models/x.ckpt", "see …/x.ckpt"),
        ("60 dB/s at 1/2, 3x3", "60 dB/s at 1/2, 3x3"),
        ("pip install 'measnet[rtx]'", "pip install 'measnet[rtx]'"),
    ],
)
def test_paths_are_cut_down_to_their_last_part(text: str, shown: str) -> None:
    assert discreet({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


def test_names_of_the_user_and_the_machine_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "workhorse.example.org")
    monkeypatch.setenv("LOGNAME", "lovelace")
    assert discreet("lovelace@workhorse: no GPU on workhorse.example.org, lovelaces") == (
        "…@…: no GPU on …, lovelaces"
    )


def examined() -> Machine:
    """A machine that need not be examined, which imports every heavy package in a process of its own."""
    return machine([], {})


def test_the_command_writes_what_it_measured_and_nothing_of_the_owner(tmp_path: Path) -> None:
    test = Doctor(self_test=functools.partial(self_test, perform=no_engines))
    result = CliRunner().invoke(main, ["--self-test", "-o", str(tmp_path / "d.json")], obj=test)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "d.json").read_text()
    report = json.loads(text)
    assert report["passed"] and [run["backend"] for run in report["runs"]] == ["onnxruntime", "torch"]
    assert report["runs"][1]["parity"]["experts_agree"] > 0.999
    assert all(run["milliseconds"]["160x128"] > 0 for run in report["runs"])
    for private in (str(Path.home()), str(tmp_path), str(Path.cwd()), os.uname().nodename, "measnet-doctor-"):
        assert private not in text
    assert "run on ONNX Runtime, CPU" in report["abilities"]


def test_a_self_test_that_finds_a_difference_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCES, "fp32", Tolerance(400.0, 0.0, 1.0))
    test = Doctor(examine=examined, self_test=functools.partial(self_test, perform=in_this_process))
    result = CliRunner().invoke(main, ["--self-test", "-o", str(tmp_path / "d.json")], obj=test)
    assert result.exit_code == 1 and "DIFFERS" in result.output
    assert not json.loads((tmp_path / "d.json").read_text())["passed"]


def test_a_model_that_no_backend_can_run_fails_the_self_test(tmp_path: Path) -> None:
    test = Doctor(examine=examined, self_test=functools.partial(self_test, perform=in_this_process))
    words = ["--self-test", "--model", "/nowhere/secret.onnx", "-o", str(tmp_path / "d.json")]
    result = CliRunner().invoke(main, words, obj=test)
    assert result.exit_code == 1
    text = (tmp_path / "d.json").read_text()
    report = json.loads(text)
    assert all("error" in run for run in report["runs"]) and not report["passed"]
    assert report["model"] == "a file" and "secret" not in text
