"""The configuration of a MEASNet, and three named variants.

Levels are counted from full resolution: level 1 works at the stem's resolution, level 4 (the
latent) at one eighth of it. A tuple of three holds levels 1, 2 and 3, a tuple of four also the
latent.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import msgspec

from measnet.errors import UsageError

T = TypeVar("T")

Ensemble = Literal["logsumexp", "weighted_sum"]
Block = Literal["transformer", "gated"]

TONE_LEVELS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
"""Brightnesses that say how dark or milky a picture is: by how much, on average, it lies above each."""

TONE_STATISTICS = 3 + 4 * len(TONE_LEVELS) + 7  # numbers by which a gated network's tone is judged
TONE_TASKS = ("dehaze", "lowlight")  # those that change the tone of a whole picture

# Fixed by the paper's released network and common to every variant.
PROMPT_BASIS = 32  # how many task-related basic prompts (rows of P_t, eq. 1)
PROMPT_LENGTH = 256  # values in one prompt
FILTER_GROUPS = 8  # channel groups that share one low-pass filter (FD)
FILTER_SIZE = 3  # side of that filter
FREQUENCY_HEADS = 4  # heads of the frequency blocks' attention
NARROWEST_EXPERT = 2  # inner width of the first image-level expert; each next one is 1 wider
AGGREGATION = 16  # FD-MEE's context pools by 4, twice

WIDEST = 1024  # channels at level 1; a checkpoint that claims more is not sound
MOST_MODULES = 64  # blocks or experts in one place; a checkpoint that claims more is not sound


@dataclass(frozen=True)
class SizeRule:
    """A rule for image sizes: sides are at least ``minimum``, and multiples of ``multiple``."""

    multiple: int
    minimum: int

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The smallest allowed ``(height, width)`` that holds an image of this size, in pixels."""
        return self._fit_side(height), self._fit_side(width)

    def _fit_side(self, side: int) -> int:
        least = max(side, self.minimum)
        return -(-least // self.multiple) * self.multiple


@dataclass(frozen=True)
class MEASNetConfig:
    """Everything that decides which tensors a MEASNet has and what it does with them.

    The defaults are the published network. Raises ``UsageError`` with every contradiction at once.
    """

    width: int = 48
    """C, channels at level 1; levels 2, 3 and 4 have 2C, 4C and 8C."""

    blocks: tuple[int, int, int, int] = (4, 4, 6, 8)
    """Transformer blocks per level, the same in encoder and decoder."""

    refinement_blocks: int = 4
    """Transformer blocks after the decoder."""

    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Attention heads per level."""

    ffn_expansion: float = 2.66
    """Hidden width of feed-forward layers and of pixel experts, over their input's."""

    pixel_experts: tuple[int, int, int] = (6, 6, 6)
    """N of MESE at levels 1-3; 0 leaves it out. Only level 1 restores; 2 and 3 only balance."""

    pixel_top_k: tuple[int, int, int] = (2, 2, 2)
    """K of MESE at levels 1-3: how many experts each pixel chooses."""

    image_experts: tuple[int, int, int] = (5, 5, 5)
    """N of MEE at levels 1-3; 0 leaves FD-MEE out at that level."""

    image_top_k: tuple[int, int, int] = (2, 2, 2)
    """K of MEE at levels 1-3: how many experts each image chooses, per band."""

    block: Block = "transformer"
    """The block of every level: the paper's transformer block, or convolutions and products alone
    (``measnet/network/gated.py``), between levels that join by sums, with pixel experts on ReLU."""

    ensemble: Ensemble = "logsumexp"
    """The sum in which MESE joins its experts: the released code's exponential one, or eq. 3's plain one."""

    tspg: bool = True
    """Table VI: task-specific prompt generation."""

    mese: bool = True
    """Table VI: experts per pixel."""

    fd: bool = True
    """Table VI: low and high frequencies apart."""

    mee: bool = True
    """Table VI: experts per image."""

    frequency_blocks: bool = True
    """The released code's frequency blocks between decoder levels (not in the paper)."""

    stem_scale: int = 1
    """1, or 2 for a stem and an output head that work at half resolution."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("this MEASNet configuration cannot be built: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        found = []
        if self.stem_scale not in (1, 2):
            found.append(f"stem_scale is {self.stem_scale}, must be 1 or 2")
        if self.block not in ("transformer", "gated"):
            found.append(f"block is {self.block!r}, must be 'transformer' or 'gated'")
        if self.block == "gated" and self.frequency_blocks:
            found.append("frequency_blocks go with transformer blocks alone")
        if self.ensemble not in ("logsumexp", "weighted_sum"):
            found.append(f"ensemble is {self.ensemble!r}, must be 'logsumexp' or 'weighted_sum'")
        if not 4 <= self.width <= WIDEST:
            found.append(f"width is {str(self.width)[:20]}, must be 4 to {WIDEST}")
            return found  # all else is told in multiples of it
        for level, heads in enumerate(self.heads, start=1):
            if heads < 1 or self.channels(level) % heads:
                found.append(f"{heads} heads do not divide {self.channels(level)} channels at level {level}")
        if self.fd and any(self.fd_mee_channels(level) % FILTER_GROUPS for level in self.fd_mee_levels):
            found.append(f"width is {self.width}, FD needs channels in multiples of {FILTER_GROUPS}")
        for name, experts, chosen in (
            ("pixel", self.pixel_experts, self.pixel_top_k),
            ("image", self.image_experts, self.image_top_k),
        ):
            for level, (n, k) in enumerate(zip(experts, chosen, strict=True), start=1):
                if n and not 1 <= k < n:
                    found.append(f"{name}_top_k is {k} of {n} at level {level}, must be 1 to {n - 1}")
        if not all(0 <= count <= MOST_MODULES for count in (*self.blocks, self.refinement_blocks)):
            found.append(f"a count of blocks is not within 0 to {MOST_MODULES}")
        if not all(0 <= n <= MOST_MODULES for n in (*self.pixel_experts, *self.image_experts)):
            found.append(f"a count of experts is not within 0 to {MOST_MODULES}")
        if not 0 < self.ffn_expansion <= 16:
            found.append(f"ffn_expansion is {self.ffn_expansion}, must be above 0 and at most 16")
        return found

    def channels(self, level: int) -> int:
        """Channels at ``level`` (1-4)."""
        return self.width << (level - 1)

    def fd_mee_channels(self, level: int) -> int:
        """Channels that FD-MEE sees at decoder ``level``."""
        return self.decoder_channels(level)

    def decoder_channels(self, level: int) -> int:
        """Channels in the decoder at ``level``: level 1 keeps the concatenated 2C of transformer blocks."""
        return self.width * 2 if level == 1 and self.block == "transformer" else self.channels(level)

    @property
    def fd_mee_levels(self) -> tuple[int, ...]:
        """Decoder levels that have an FD-MEE (or the part of it that is on), deepest first."""
        if not (self.fd or self.mee):
            return ()
        return tuple(level for level in (3, 2, 1) if self.image_experts[level - 1])

    def hidden(self, channels: int) -> int:
        """Hidden width of a feed-forward layer or pixel expert on ``channels`` channels."""
        return int(channels * self.ffn_expansion)

    @property
    def size_rule(self) -> SizeRule:
        """Sizes the network takes: three halvings, and FD-MEE's context pool at the deepest level."""
        context = 4 * AGGREGATION if self.mee and self.fd_mee_levels else 16
        return SizeRule(multiple=8 * self.stem_scale, minimum=context * self.stem_scale)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MEASNetConfig:
        """The configuration that ``to_json`` wrote. Raises ``UsageError`` on anything else."""
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError("the stored MEASNet configuration is not JSON") from None
        return cls.from_dict(stored)

    @classmethod
    def from_dict(cls, stored: Any) -> MEASNetConfig:
        """The configuration of these entries, which are checked. Raises ``UsageError``."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(stored, dict) or not set(stored) <= known:
            raise UsageError(
                "the stored MEASNet configuration has unknown entries; was it written by a newer version?"
            )
        return filled(cls, stored)


def filled(kind: type[T], entries: dict[str, Any]) -> T:
    """The dataclass ``kind`` with these entries, each of the type that it should have. Raises UsageError."""
    try:
        return msgspec.convert(entries, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).replace("`", "").partition(" - at $.")
        allowed = get_args(get_type_hints(kind).get(place))
        if said.startswith("Invalid enum"):
            said = f"{entries[place]!r}, must be one of {list(allowed)}"
        raise UsageError(f"{place} is not of the right kind: {said}") from None


VARIANTS: dict[str, MEASNetConfig] = {
    "base": MEASNetConfig(),
    "small": MEASNetConfig(
        width=48,
        blocks=(1, 3, 4, 1),
        refinement_blocks=1,
        ffn_expansion=1.0,
        pixel_experts=(4, 0, 0),
        image_experts=(0, 0, 5),
        block="gated",
        ensemble="weighted_sum",
        frequency_blocks=False,
        stem_scale=2,
    ),
    "nano": MEASNetConfig(
        width=32,
        blocks=(0, 1, 2, 1),
        refinement_blocks=1,
        ffn_expansion=0.5,
        pixel_experts=(4, 0, 0),
        image_experts=(0, 0, 5),
        block="gated",
        ensemble="weighted_sum",
        frequency_blocks=False,
        stem_scale=2,
    ),
}
"""``base`` is the published network; ``small`` and ``nano`` are ours, sized in docs/network.md."""

FORMER_VARIANTS: dict[str, MEASNetConfig] = {
    "small": MEASNetConfig(
        width=32,
        blocks=(2, 2, 1, 1),
        refinement_blocks=0,
        ffn_expansion=1.5,
        pixel_experts=(4, 0, 0),
        image_experts=(0, 5, 5),
        frequency_blocks=False,
        stem_scale=2,
    ),
    "nano": MEASNetConfig(
        width=16,
        blocks=(1, 1, 1, 2),
        refinement_blocks=0,
        ffn_expansion=1.5,
        pixel_experts=(4, 0, 0),
        image_experts=(0, 5, 5),
        frequency_blocks=False,
        stem_scale=2,
    ),
}
"""Configurations of ``small`` and ``nano`` before they had gated blocks, for weights of that time."""


def variant_name(config: MEASNetConfig) -> str:
    """The name of the variant with this configuration, now or formerly, or ``custom``."""
    variants = (*VARIANTS.items(), *FORMER_VARIANTS.items())
    return next((name for name, known in variants if known == config), "custom")
