"""Whether an engine is for this machine; if not, one sentence with what it was built for and what is here."""

from __future__ import annotations

from measnet.engine_file import EngineFacts
from measnet.gpu import GPU

BRAND = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def misfit(facts: EngineFacts, gpu: GPU | None, version: str) -> str | None:
    """Why the engine cannot run here, or None. ``version`` is that of the installed TensorRT (or -RTX).

    Drivers may be newer than at build time, so they are not compared.
    """
    brand = BRAND.get(facts.flavour, facts.flavour)
    if gpu is None:
        here = "this machine shows no GPU, or its driver does not answer"
    else:
        here = (
            f"this machine has {brand} {version} on {gpu.name}, compute capability {gpu.compute_capability}"
        )
    if gpu is not None and _runs_on(facts, gpu) and _loads_in(facts, version):
        return None
    command = f"measnet-export engine GRAPH --with {facts.flavour}"
    return f"the engine was built for {facts.built_for()}; {here}; build it here with: {command}"


def _runs_on(facts: EngineFacts, gpu: GPU) -> bool:
    level = facts.settings.get("hardware_compatible", "none")
    if level == "ampere-plus":
        return _capability(gpu.compute_capability) >= (8, 0)
    if gpu.compute_capability not in facts.compute_capabilities:
        return False
    # TensorRT times its kernels on one model of GPU; TensorRT-RTX chooses them when the engine is loaded.
    return facts.flavour == "tensorrt-rtx" or level != "none" or facts.gpu in ("", gpu.name)


def _loads_in(facts: EngineFacts, version: str) -> bool:
    """Exactly the same version, unless built to be version-compatible.

    Source: NVIDIA's pages on engine compatibility of TensorRT 11.1 and TensorRT-RTX.
    """
    if facts.flavour_version == version:
        return True
    if facts.flavour != "tensorrt" or not facts.settings.get("version_compatible"):
        return False
    built, here = _numbers(facts.flavour_version), _numbers(version)
    return here >= built and (here[0] == built[0] or (built[0], here[0]) == (10, 11))


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _numbers(version: str) -> tuple[int, ...]:
    """10.16.1.11 -> (10, 16, 1, 11); what is not a number ends it."""
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found) or (0,)
