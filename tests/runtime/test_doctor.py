"""``measnet-doctor``: says what works, what is missing and what installs it."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
from docs.pages import ROOT, blocks

from measnet.doctor import machine as machine_module
from measnet.doctor.abilities import abilities
from measnet.doctor.machine import Machine, examine

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


def test_the_page_lists_what_the_doctor_lists() -> None:
    (shown,) = blocks(ROOT / "docs/doctor.md", "text")
    named = re.findall(r"^  (?:yes|no ) {1,2}(.+?)(?:  .*)?$", shown, re.MULTILINE)
    assert named == [ability.name for ability in abilities(BARE)]


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


def test_engines_run_where_a_flavour_of_tensorrt_cuda_python_and_a_gpu_are() -> None:
    gpu = machine_module.Gpu("NVIDIA L4", 23034, "570.86", "8.9")
    there = {"tensorrt-rtx-cu13-libs": "ok", "cuda-python": "ok"}
    whole = dataclasses.replace(BARE, gpus=[gpu], gpu_note="", loads=there)
    partly = dataclasses.replace(whole, loads={"tensorrt-rtx-cu13-libs": "ok"})
    said = {
        name: next(ability for ability in abilities(machine) if ability.name == "run engines")
        for name, machine in (("whole", whole), ("partly", partly), ("bare", BARE))
    }
    assert said["whole"].ready and not said["partly"].ready and not said["bare"].ready
    assert said["partly"].detail == "missing: cuda-python" and "measnet[tensorrt]" in said["partly"].remedy
    assert said["bare"].detail == "no NVIDIA driver" and said["bare"].remedy == ""


def test_gpus_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_driver(tmp_path, monkeypatch, "echo 'NVIDIA L4, 23034, 570.86, 8.9'")
    (gpu,), _ = machine_module._gpus()
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
