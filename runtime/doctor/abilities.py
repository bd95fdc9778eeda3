"""What the project can do on a machine: ready or not, why not, and the command that changes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from measnet.runtime.doctor.machine import Machine


@dataclass(frozen=True)
class Ability:
    """One thing that a user may want to do here."""

    name: str
    ready: bool
    detail: str
    """With what, or why not."""

    remedy: str = ""
    """What to type, when it is not ready and typing helps."""


def abilities(machine: Machine) -> list[Ability]:
    """Every ability, ready or not."""
    return list(_all(machine))


def _all(machine: Machine) -> Iterator[Ability]:
    packages = machine.packages
    runtime = packages.get("onnxruntime-gpu") or packages.get("onnxruntime")
    yield Ability(
        "run on ONNX Runtime, CPU",
        "CPUExecutionProvider" in machine.providers,
        f"onnxruntime {runtime}" if machine.providers else _not_installed("onnxruntime", runtime),
        "pip install 'measnet[cpu]'",
    )
    cuda = "CUDAExecutionProvider" in machine.providers
    yield Ability(
        "run on ONNX Runtime, CUDA",
        cuda and bool(machine.gpus),
        machine.gpu_note if not machine.gpus else ("" if cuda else "onnxruntime has no CUDA provider"),
        "pip uninstall -y onnxruntime && pip install 'measnet[gpu]'" if machine.gpus and not cuda else "",
    )
    yield from _torch(machine)
    yield _packages(machine, "export graphs", ("torch", "safetensors", "onnx", "onnxscript"), "export")
    yield _packages(machine, "train", ("torch", "safetensors"), "train")
    yield _packages(machine, "evaluate", ("scikit-image",), "eval")
    yield _tensorrt(machine)
    rtx = machine.loads.get("tensorrt-rtx-cu13-libs")
    yield Ability(
        "build TensorRT-RTX engines",
        rtx == "ok",
        "needs no GPU" if rtx == "ok" else rtx or "tensorrt_rtx_cu13_libs is not installed",
        "pip install tensorrt_rtx_cu13_libs tensorrt_rtx_cu13_bindings",
    )
    yield Ability(
        "write H.264",
        "libx264" in machine.encoders,
        "libx264" if "libx264" in machine.encoders else "this PyAV has no libx264",
        "pip install --force-reinstall av",
    )
    yield Ability(
        "open cameras",
        bool(machine.cameras),
        ", ".join(machine.cameras) or "no /dev/video* here",
    )


def _torch(machine: Machine) -> Iterator[Ability]:
    version = machine.packages.get("torch")
    complete = version and "safetensors" in machine.packages
    yield Ability(
        "run and verify on PyTorch",
        bool(complete),
        f"torch {version}" if complete else "torch or safetensors is not installed",
        "pip install 'measnet[train]'",
    )
    there = bool(version) and not machine.torch_cuda.startswith("none")
    yield Ability("train on a GPU", there, machine.torch_cuda)


def _packages(machine: Machine, name: str, needed: tuple[str, ...], extra: str) -> Ability:
    missing = [package for package in needed if package not in machine.packages]
    detail = f"missing: {', '.join(missing)}" if missing else ", ".join(needed)
    return Ability(name, not missing, detail, f"pip install 'measnet[{extra}]'")


def _tensorrt(machine: Machine) -> Ability:
    loaded = machine.loads.get("tensorrt")
    if loaded is None:
        return Ability(
            "build TensorRT engines", False, "tensorrt is not installed", "pip install 'measnet[tensorrt]'"
        )
    if loaded != "ok":
        return Ability("build TensorRT engines", False, loaded)
    detail = f"tensorrt {machine.packages['tensorrt']}" if machine.gpus else machine.gpu_note
    return Ability("build TensorRT engines", bool(machine.gpus), detail)


def _not_installed(package: str, version: str | None) -> str:
    return f"{package} {version} is installed but does not load" if version else f"{package} is not installed"
