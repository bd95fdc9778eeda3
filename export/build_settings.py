"""Settings of an engine's builder: every one of ours, its default and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from measnet.config import SizeRule
from measnet.errors import UsageError
from measnet.image import LARGEST_SIDE

Flavour = Literal["tensorrt", "tensorrt-rtx"]
HardwareCompatibility = Literal["none", "ampere-plus", "same-compute-capability"]

LARGEST_BATCH = 256


@dataclass(frozen=True)
class BatchShape:
    """A batch of frames: how many, their height and width in pixels."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Profile:
    """A range of batches that an engine takes; it is fastest at ``usual``."""

    smallest: BatchShape
    usual: BatchShape
    largest: BatchShape

    @classmethod
    def parse(cls, text: str) -> Profile:
        """``MIN:OPT:MAX``, each HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH; one alone stands for all three.

        Raises ``UsageError`` on anything else.
        """
        parts = text.lower().split(":")
        if len(parts) not in (1, 3):
            raise _not_a_profile(text)
        frames = [_frames(part, text) for part in parts]
        return cls(frames[0], frames[len(frames) // 2], frames[-1])

    def __str__(self) -> str:
        return f"{self.smallest}:{self.usual}:{self.largest}"

    def fitted(self, rule: SizeRule) -> Profile:
        """The same for frames padded to the sizes that the network takes."""
        return Profile(*(BatchShape(f.batch, *rule.fit(f.height, f.width)) for f in self.all()))

    def all(self) -> tuple[BatchShape, BatchShape, BatchShape]:
        return self.smallest, self.usual, self.largest

    def problems(self) -> list[str]:
        problems = []
        for frames in self.all():
            sides_fit = all(1 <= side <= LARGEST_SIDE for side in (frames.height, frames.width))
            if not (sides_fit and 1 <= frames.batch <= LARGEST_BATCH):
                problems.append(
                    f"frames of {frames} are not within 1 to {LARGEST_SIDE} pixels a side "
                    f"and {LARGEST_BATCH} in a batch"
                )
        for name in ("batch", "height", "width"):
            low, usual, high = (getattr(frames, name) for frames in self.all())
            if not low <= usual <= high:
                problems.append(f"the {name} of profile {self} does not grow from MIN over OPT to MAX")
        return problems


DYNAMIC_PROFILE = Profile(BatchShape(1, 64, 64), BatchShape(1, 720, 1280), BatchShape(1, 1080, 1920))
"""Sizes of an engine for any size, unless others are given: frames of up to 1920x1080, one at a time."""


@dataclass(frozen=True)
class BuildSettings:
    """All that a builder can be told, by the names of ``measnet-export``'s options.

    There is no precision among them: it lives in the graph. Raises ``UsageError`` with every
    contradiction at once.
    """

    profiles: tuple[Profile, ...] = ()
    """Empty: one frame at a time, of the graph's size or of ``DYNAMIC_PROFILE``."""

    workspace_mib: int | None = None
    """The most scratch memory an operator may take, MiB; None is TensorRT's own limit, all the GPU has."""

    optimization_level: int = 3
    """0 builds fastest, 5 searches longest; 3 is TensorRT's own default."""

    tf32: bool = False
    """Float32 products with 10 bits of mantissa: as coarse as FP16, in front of routers too."""

    version_compatible: bool = False
    """A plan that later versions of TensorRT load; it holds a runtime, so it is larger and is code."""

    hardware_compatible: HardwareCompatibility = "none"
    """Other GPUs that may load the plan; costs speed."""

    aux_streams: int | None = None
    """Streams besides the caller's that a plan may use; None leaves it to TensorRT, 0 needs least memory."""

    def __post_init__(self) -> None:
        problems = [problem for profile in self.profiles for problem in profile.problems()]
        if self.workspace_mib is not None and self.workspace_mib < 1:
            problems.append(f"a workspace of {self.workspace_mib} MiB is nothing to work in")
        if not 0 <= self.optimization_level <= 5:
            problems.append(f"an optimisation level is 0 to 5, not {self.optimization_level}")
        if self.hardware_compatible not in ("none", "ampere-plus", "same-compute-capability"):
            problems.append(
                f"hardware compatibility is none, ampere-plus or same-compute-capability, "
                f"not {self.hardware_compatible!r}"
            )
        if self.aux_streams is not None and self.aux_streams < 0:
            problems.append(f"{self.aux_streams} auxiliary streams cannot be")
        if problems:
            raise UsageError("; ".join(problems))

    def problems_with(self, flavour: Flavour) -> list[str]:
        """Lists which of these settings a flavour of TensorRT does not support."""
        problems = []
        if flavour == "tensorrt-rtx":
            if self.version_compatible:
                problems.append("TensorRT-RTX builds no version-compatible plans: it has no lean runtime")
            if self.hardware_compatible != "none":
                problems.append(
                    "TensorRT-RTX has no hardware compatibility: --gpu rtx builds one engine for most cards"
                )
        return problems

    def as_facts(self) -> dict[str, Any]:
        """The settings that decide what a plan is, for its header; the profiles stand there on their own."""
        return {name: value for name, value in vars(self).items() if name != "profiles"}


def _frames(part: str, text: str) -> BatchShape:
    numbers = part.split("x")
    if len(numbers) not in (2, 3) or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise _not_a_profile(text)
    batch, height, width = (int(number[:9]) for number in (["1", *numbers] if len(numbers) == 2 else numbers))
    return BatchShape(batch, height, width)


def _not_a_profile(text: str) -> UsageError:
    return UsageError(
        f"a profile is MIN:OPT:MAX with sizes as HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH, "
        f"such as 128x128:720x1280:1080x1920, not {text[:80]!r}"
    )
