"""Targets of engines: this machine's GPU, or RTX cards that are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
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

PORTABLE = "rtx"
"""Stands for ``PORTABLE_CARDS`` in one engine."""

PORTABLE_CARDS = ("sm80", "sm86", "sm89", "sm120")
"""Compute capabilities of NVIDIA's portable engines. sm75 takes graphs of another form and so has its own."""


@dataclass(frozen=True)
class EngineTarget:
    """A flavour of TensorRT, and a GPU or a kind of GPU."""

    flavour: Flavour
    flavour_version: str
    compute_capability: str
    """Such as ``8.9``; of a portable engine several, ``8.6 8.9``."""

    gpu: str = ""
    driver: str = ""
    cuda: str = ""

    @property
    def ahead_of_time(self) -> bool:
        return not self.gpu

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        return tuple(self.compute_capability.split())

    @property
    def turing_rtx(self) -> bool:
        """Tells whether it takes graphs of Turing's form (``export/turing.py``)."""
        return self.flavour == "tensorrt-rtx" and self.compute_capability == "7.5"

    @property
    def label(self) -> str:
        """For file names: ``rtx-sm89``, ``rtx-sm86-sm89``, ``trt-sm90``."""
        short = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}[self.flavour]
        return "-".join([short, *(f"sm{c.replace('.', '')}" for c in self.compute_capabilities)])


def find_targets(
    flavours: tuple[str, ...],
    cards: tuple[str, ...],
    version_of: Callable[[Flavour], str] = flavour_version,
) -> list[EngineTarget]:
    """The targets of ``--with`` (``flavours``) and ``--gpu`` (``cards``; none: this GPU).

    A card is called sm89; sm86+sm89 is one target for both, ``rtx`` one for all of ``PORTABLE_CARDS``.
    ``version_of`` asks what is installed.
    Raises ``UsageError`` with every mistake at once, ``MissingPackageError`` without a package.
    """
    wanted = [_cards(text) for text in cards]
    problems = [_unknown(name) for names in wanted for name in names if name not in RTX_CARDS]
    if any(len(set(names)) > 1 and "sm75" in names for names in wanted):
        problems.append("sm75 takes graphs of another form and shares no engine: give it a --gpu of its own")
    if cards and "tensorrt-rtx" not in flavours:
        problems.append(
            "--gpu goes with --with tensorrt-rtx: TensorRT itself builds only for the GPU it runs on"
        )
    if problems:
        raise UsageError("; ".join(problems))
    targets: list[EngineTarget] = []
    for flavour in dict.fromkeys(flavours):
        if flavour == "tensorrt-rtx":
            version = version_of("tensorrt-rtx")
            ahead = [
                EngineTarget("tensorrt-rtx", version, capability)
                for capability in dict.fromkeys(_capabilities(names) for names in wanted)
            ]
            targets.extend(ahead or [_this_machine("tensorrt-rtx", version)])
        else:
            targets.append(_this_machine("tensorrt", version_of("tensorrt")))
    return targets


def _this_machine(flavour: Flavour, version: str) -> EngineTarget:
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
            "command on the target machine, or take --gpu for an RTX card"
        )
    return EngineTarget(flavour, version, gpu.compute_capability, gpu.name, gpu.driver, gpu.cuda)


def _unknown(card: str) -> str:
    return f"TensorRT-RTX builds for no GPU called {card[:40]!r}; it knows {_choices()}"


def _choices() -> str:
    each = ", ".join(f"--gpu {name} ({cards})" for name, cards in RTX_CARDS.items())
    return f"{each}, --gpu {PORTABLE} (one engine for {', '.join(PORTABLE_CARDS)})"


def _cards(text: str) -> list[str]:
    """The cards of one ``--gpu``."""
    lower = text.lower()
    return list(PORTABLE_CARDS) if lower == PORTABLE else lower.split("+")


def _capabilities(names: list[str]) -> str:
    """sm120+sm89 -> "8.9 12.0"."""
    return " ".join(f"{name[2:-1]}.{name[-1]}" for name in RTX_CARDS if name in names)
