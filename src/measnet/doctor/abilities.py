"""Abilities of a machine: ready or not, why not, and the command that changes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from measnet.doctor.machine import Machine


@dataclass(frozen=True)
class Ability:
    """One thing that a user may want to do here."""

    name: str
    ready: bool
    detail: str
    """With what, or why not."""

    remedy: str = ""
    """A command to type, when it is not ready and typing helps."""


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
    tensorrt = "TensorrtExecutionProvider" in machine.providers
    yield Ability(
        "run on ONNX Runtime, TensorRT",
        tensorrt and bool(machine.gpus) and machine.loads.get("tensorrt") == "ok",
        machine.gpu_note
        or ("onnxruntime links TensorRT 10" if tensorrt else "onnxruntime has no TensorRT provider"),
        "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt>=10.12,<11'"
        if machine.gpus
        else "",
    )
    yield from _torch(machine)
    yield _packages(machine, "export graphs", ("torch", "safetensors", "onnx", "onnxscript"), "export")
    yield _packages(machine, "train", ("torch", "safetensors"), "train")
    yield _tensorrt(machine)
    yield _engines(machine)
    rtx = machine.loads.get("tensorrt-rtx-cu13-libs")
    missing = [package for package in ("onnx", "polygraphy", "filelock") if package not in packages]
    yield Ability(
        "build TensorRT-RTX engines",
        rtx == "ok" and not missing,
        rtx or "tensorrt_rtx is not installed"
        if rtx != "ok"
        else (f"missing: {', '.join(missing)}" if missing else "needs no GPU"),
        "pip install 'measnet[rtx]'",
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


def _engines(machine: Machine) -> Ability:
    """Running engine files."""
    flavours = [name for name in ("tensorrt", "tensorrt-rtx-cu13-libs") if machine.loads.get(name) == "ok"]
    missing = [] if flavours else ["tensorrt or tensorrt_rtx"]
    if machine.loads.get("cuda-python") != "ok":
        missing.append("cuda-python")
    ready = bool(machine.gpus) and not missing
    detail = machine.gpu_note or (f"missing: {', '.join(missing)}" if missing else ", ".join(flavours))
    return Ability("run engines", ready, detail, "pip install 'measnet[tensorrt]'" if machine.gpus else "")


def _not_installed(package: str, version: str | None) -> str:
    return f"{package} {version} is installed but does not load" if version else f"{package} is not installed"
