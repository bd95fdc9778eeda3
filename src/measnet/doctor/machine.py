"""A machine: its processor, GPUs, packages, codecs and cameras, and nothing that says whose machine it is."""

from __future__ import annotations

import contextlib
import getpass
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = (
    "measnet",
    "numpy",
    "av",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "safetensors",
    "onnx",
    "onnxscript",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
    "polygraphy",
    "filelock",
    "cuda-python",
    "tensorboard",
)
ENCODERS = ("libx264", "libx265", "libsvtav1", "libaom-av1", "libvpx-vp9", "prores_ks", "mpeg4", "mjpeg")
HARDWARE_ENCODERS = (
    "h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv", "h264_vaapi", "hevc_vaapi",
    "h264_videotoolbox", "hevc_videotoolbox",
)  # fmt: skip
PROBE_SECONDS = 60  # a driver that hangs must not hang us


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver describes it."""

    name: str
    memory_mib: int
    driver: str
    compute_capability: str


@dataclass(frozen=True)
class Machine:
    """Facts of a machine. Ready for JSON by ``facts``."""

    system: str
    processor: str
    cores: int
    memory_gib: float
    python: str
    packages: dict[str, str]
    """Name -> version, of those that are installed."""

    gpus: list[Gpu]
    gpu_note: str
    """The reason why there is no GPU, where there is none."""

    providers: list[str]
    """ONNX Runtime's, in its order of preference; empty without ONNX Runtime."""

    torch_cuda: str
    """The GPU that PyTorch would use, or why it uses none."""

    loads: dict[str, str] = field(default_factory=dict)
    """Installed packages that may still fail to load -> ``ok`` or their error."""

    encoders: list[str] = field(default_factory=list)
    hardware_encoders: list[str] = field(default_factory=list)
    """Compiled into PyAV; whether the machine has the hardware shows only when they run."""

    cameras: list[str] = field(default_factory=list)
    ffmpeg: str = ""

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> Machine:
    """Looks at this machine. Whatever may crash or hang is tried in a process of its own."""
    packages = _versions()
    gpus, note = _gpus()
    encoders, hardware = _encoders()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        if hasattr(os, "sysconf")
        else 0.0,
        python=platform.python_version(),
        packages=packages,
        gpus=gpus,
        gpu_note=note,
        providers=_providers(),
        torch_cuda=_torch_cuda() if "torch" in packages else "PyTorch is not installed",
        loads={
            name: _try_import(module)
            for name, module in (
                ("tensorrt", "tensorrt"),
                ("tensorrt-rtx-cu13-libs", "tensorrt_rtx"),
                ("cuda-python", "cuda.bindings.driver"),
            )
            if name in packages
        },
        encoders=encoders,
        hardware_encoders=hardware,
        cameras=[str(path) for path in sorted(Path("/dev").glob("video*"))],
        ffmpeg=shutil.which("ffmpeg") or "",
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _gpus() -> tuple[list[Gpu], str]:
    """NVIDIA GPUs, or none and why."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], "no NVIDIA driver (there is no nvidia-smi)"
    query = ["--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi did not answer: {type(error).__name__}"
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
        return [], f"nvidia-smi failed: {lines[0]}"
    gpus = []
    for line in done.stdout.strip().splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4:
            memory = int(parts[1]) if parts[1].isdecimal() else 0
            gpus.append(Gpu(parts[0], memory, parts[2], parts[3]))
    return gpus, "" if gpus else "the driver knows of no GPU"


def _providers() -> list[str]:
    try:
        import onnxruntime
    except Exception:  # a broken installation may raise anything
        return []
    return list(onnxruntime.get_available_providers())


def _torch_cuda() -> str:
    return _ask(
        "import torch\n"
        "print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'none: '"
        " + ('this build of PyTorch has no CUDA' if torch.version.cuda is None else 'CUDA finds no GPU'))"
    )


def _try_import(module: str) -> str:
    return _ask(f"import {module}\nprint('ok')")


def _ask(program: str) -> str:
    """The last line that a small Python program prints, or the last line of its complaint."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1][:300] if lines else f"ended with {done.returncode}"


def _encoders() -> tuple[list[str], list[str]]:
    import av

    there = av.codecs_available
    return [e for e in ENCODERS if e in there], [e for e in HARDWARE_ENCODERS if e in there]


# Two folders at least, so that fractions, versions and option pairs stay as they are.
PATH = re.compile(r"(?:[A-Za-z]:|~|\\)?(?:[\\/][^\s\\/'\":;,()<>|]+)+[\\/]([^\s\\/'\":;,()<>|]*)")

SHORTEST_NAME = 3


def discreet(value: Any) -> Any:
    """``value``, made of what JSON is made of, with every path cut down to its last part and no names."""
    if isinstance(value, str):
        return _discreet_text(value)
    if isinstance(value, dict):
        return {name: discreet(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [discreet(inner) for inner in value]
    return value


def _discreet_text(text: str) -> str:
    text = PATH.sub(lambda found: f"…/{found[1]}", text)
    for name in _names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text


def _names() -> list[str]:
    """Finds the names of the machine and of its user, the longer first."""
    names = {platform.node(), platform.node().partition(".")[0]}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name, as in containers
        names.add(getpass.getuser())
    return sorted((name for name in names if len(name) >= SHORTEST_NAME), key=len, reverse=True)
