"""What an engine is built for: this machine's GPU, or RTX cards that are elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from measnet.errors import MissingPackageError, UsageError
from measnet.export.build_settings import Flavour
from measnet.export.builder_process import flavour_version
from measnet.gpu import first_gpu

RTX_CARDS = {
    "sm75": "GeForce RTX 20, GTX 16, T4",
    "sm80": "A100, A30",
    "sm86": "GeForce RTX 30, A10, A40",
    "sm89": "GeForce RTX 40, L4, L40",
    "sm120": "GeForce RTX 50",
    "sm121": "DGX Spark",
}
"""The compute capabilities that TensorRT-RTX 1.7 builds for without a GPU, and cards that have them."""


@dataclass(frozen=True)
class Target:
    """A flavour of TensorRT, and a GPU or a kind of GPU."""

    flavour: Flavour
    flavour_version: str
    compute_capability: str
    gpu: str = ""
    driver: str = ""
    cuda: str = ""

    @property
    def ahead_of_time(self) -> bool:
        return not self.gpu

    @property
    def label(self) -> str:
        """For file names: ``rtx-sm89``, ``trt-sm90``."""
        short = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}[self.flavour]
        return f"{short}-sm{self.compute_capability.replace('.', '')}"


def find_targets(flavours: tuple[str, ...], cards: tuple[str, ...]) -> list[Target]:
    """The targets of ``--engine`` (``flavours``) and ``--gpu`` (``cards``, such as sm89; none: this GPU).

    Raises ``UsageError`` with every mistake at once, ``MissingPackageError`` without a package.
    """
    problems = [_unknown(card) for card in cards if card.lower() not in RTX_CARDS]
    if cards and "tensorrt-rtx" not in flavours:
        problems.append(
            "--gpu goes with --engine tensorrt-rtx: TensorRT itself builds only for the GPU it runs on"
        )
    if problems:
        raise UsageError("; ".join(problems))
    targets: list[Target] = []
    for flavour in dict.fromkeys(flavours):
        if flavour == "tensorrt-rtx":
            version = flavour_version("tensorrt-rtx")
            ahead = [
                Target("tensorrt-rtx", version, _capability(card))
                for card in dict.fromkeys(card.lower() for card in cards)
            ]
            targets.extend(ahead or [_this_machine("tensorrt-rtx", version)])
        else:
            targets.append(_this_machine("tensorrt", flavour_version("tensorrt")))
    return targets


def _this_machine(flavour: Flavour, version: str) -> Target:
    try:
        gpu = first_gpu()
    except MissingPackageError:
        if flavour == "tensorrt":
            raise
        gpu = None
    if gpu is None and flavour == "tensorrt-rtx":
        raise UsageError(
            f"no GPU is seen here (or cuda-python, which looks for it, is not installed); "
            f"name the card to build for: {_choices()}"
        )
    if gpu is None:
        raise UsageError(
            "this machine shows no GPU, and TensorRT builds only for the one it runs on; run the same "
            "command on the target machine, or take --engine tensorrt-rtx --gpu for an RTX card"
        )
    return Target(flavour, version, gpu.compute_capability, gpu.name, gpu.driver, gpu.cuda)


def _unknown(card: str) -> str:
    return f"TensorRT-RTX builds for no GPU called {card[:40]!r}; it knows {_choices()}"


def _choices() -> str:
    return ", ".join(f"--gpu {name} ({cards})" for name, cards in RTX_CARDS.items())


def _capability(card: str) -> str:
    """sm89 -> 8.9, sm120 -> 12.0."""
    found = re.fullmatch(r"sm(\d+)(\d)", card)
    assert found is not None
    return f"{found[1]}.{found[2]}"
