"""Fit of an engine: to this machine, and of its optimisation profiles to a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from measnet.engine_file import EngineFacts, Range, Shape
from measnet.errors import UsageError
from measnet.gpu import GPU

BRAND = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def misfit(facts: EngineFacts, gpu: GPU | None, version: str) -> str | None:
    """Says why the engine cannot run here, or None. ``version`` is that of the installed TensorRT (or -RTX).

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


@dataclass(frozen=True)
class Fit:
    """A profile, and the shape to feed it: the frame's own, or a larger one to pad it to."""

    profile: int
    shape: Shape


def fit(shape: Shape, profiles: Sequence[Range]) -> Fit:
    """The profile for B 3 H W that needs the least padding, at the bottom and the right.

    Raises ``UsageError`` naming the sizes that the engine takes when all are too small.
    """
    found = [
        Fit(index, (*shape[:2], max(shape[2], smallest[2]), max(shape[3], smallest[3])))
        for index, (smallest, _, largest) in enumerate(profiles)
        if smallest[0] <= shape[0] <= largest[0]
        and shape[1] == largest[1]
        and all(side <= most for side, most in zip(shape[2:], largest[2:], strict=True))
    ]
    if found:
        return min(found, key=lambda f: f.shape[2] * f.shape[3])
    raise UsageError(f"{_refusal(shape, profiles)}, or add --tile {_tile(profiles)}")


def exact_profile(shape: Shape, profiles: Sequence[Range]) -> int:
    """The first profile that takes ``shape`` as it is. Raises ``UsageError`` as ``fit``."""
    for index, (smallest, _, largest) in enumerate(profiles):
        if len(shape) == len(largest) and all(
            low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True)
        ):
            return index
    raise UsageError(_refusal(shape, profiles))


def _refusal(shape: Shape, profiles: Sequence[Range]) -> str:
    ranges = [f"{_text(low)} to {_text(high)}" if low != high else _text(low) for low, _, high in profiles]
    return (
        f"this engine takes frames of {' or '.join(dict.fromkeys(ranges))}, this is one of {_text(shape)} "
        "(a batch's dimensions); build one for it with measnet-export engine"
    )


def _tile(profiles: Sequence[Range]) -> int:
    return max(min(largest[2:]) for _, _, largest in profiles)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
