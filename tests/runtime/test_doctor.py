"""``measnet-doctor``: says what works, what is missing and what installs it; its self-test can fail."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from measnet.metrics import Tolerance
from measnet.runtime.doctor import machine as machine_module
from measnet.runtime.doctor import self_test as self_test_module
from measnet.runtime.doctor.abilities import abilities
from measnet.runtime.doctor.cli import main
from measnet.runtime.doctor.machine import Machine, examine

BARE = Machine(
    system="Linux", processor="a", cores=2, memory_gib=4.0, python="3.11", packages={}, gpus=[],
    gpu_note="no NVIDIA driver", providers=[], torch_cuda="PyTorch is not installed",
)  # fmt: skip


def fake_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_this_machine_is_described_and_runs_onnx_runtime() -> None:
    machine = examine()
    assert machine.packages["measnet"] and "CPUExecutionProvider" in machine.providers
    assert "libx264" in machine.encoders and machine.cores >= 1 and machine.memory_gib > 0
    ready = {ability.name for ability in abilities(machine) if ability.ready}
    assert {"run on ONNX Runtime, CPU", "run and verify on PyTorch", "write H.264"} <= ready


def test_what_is_missing_comes_with_the_command_that_installs_it() -> None:
    found = {ability.name: ability for ability in abilities(BARE)}
    assert not any(ability.ready for ability in found.values())
    assert found["run on ONNX Runtime, CPU"].remedy == "pip install 'measnet[cpu]'"
    assert found["export graphs"].remedy == "pip install 'measnet[export]'"
    assert found["build TensorRT engines"].remedy == "pip install 'measnet[tensorrt]'"
    assert found["run on ONNX Runtime, CUDA"].remedy == ""  # no package gives a machine a GPU


def test_a_package_that_is_there_but_does_not_load_is_not_called_ready() -> None:
    broken = dataclasses.replace(
        BARE,
        packages={"tensorrt": "11.4", "onnxruntime": "1.2"},
        loads={"tensorrt": "OSError: libnvinfer.so.11: cannot open shared object file"},
    )
    found = {ability.name: ability for ability in abilities(broken)}
    assert "libnvinfer" in found["build TensorRT engines"].detail
    assert not found["build TensorRT engines"].ready
    assert found["run on ONNX Runtime, CPU"].detail == "onnxruntime 1.2 is installed but does not load"


def test_gpus_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(tmp_path, monkeypatch, "echo 'NVIDIA L4, 23034, 570.86, 8.9'")
    (gpu,) = examine().gpus
    assert (gpu.name, gpu.memory_mib, gpu.driver, gpu.compute_capability) == (
        "NVIDIA L4",
        23034,
        "570.86",
        "8.9",
    )


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("echo driver/library version mismatch >&2; exit 18", "version mismatch"),
        ("exec sleep 30", "did not answer"),
    ],
)
def test_a_driver_that_fails_or_hangs_is_said(
    script: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_driver(tmp_path, monkeypatch, script)
    monkeypatch.setattr(machine_module, "PROBE_SECONDS", 0.5)
    gpus, said = machine_module._gpus()
    assert gpus == [] and note in said


def test_the_self_test_writes_what_it_measured_and_nothing_of_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test_module, "SIZES", ((128, 160),))
    result = CliRunner().invoke(main, ["--self-test", "-o", str(tmp_path / "d.json")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "d.json").read_text()
    report = json.loads(text)
    assert report["passed"] and [run["backend"] for run in report["runs"]] == ["onnxruntime", "torch"]
    assert report["runs"][1]["parity"]["experts_agree"] == 1.0
    assert all(run["milliseconds"]["160x128"] > 0 for run in report["runs"])
    assert str(Path.home()) not in text and os.uname().nodename not in text
    assert "run on ONNX Runtime, CPU" in report["abilities"]


def test_a_self_test_that_finds_a_difference_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test_module, "SIZES", ((128, 160),))
    monkeypatch.setitem(self_test_module.TOLERANCES, "fp32", Tolerance(400.0, 0.0, 1.0))
    result = CliRunner().invoke(main, ["--self-test", "-o", str(tmp_path / "d.json")])
    assert result.exit_code == 1 and "DIFFERS" in result.output
    assert not json.loads((tmp_path / "d.json").read_text())["passed"]


def test_a_model_that_no_backend_can_run_fails_the_self_test(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["--self-test", "--model", "/nowhere.onnx", "-o", str(tmp_path / "d.json")]
    )
    assert result.exit_code == 1
    report = json.loads((tmp_path / "d.json").read_text())
    assert all("error" in run for run in report["runs"]) and not report["passed"]
