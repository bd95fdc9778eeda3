"""Finds the configuration of a MEASNet from the names and shapes of its tensors.

Shapes do not tell K, the ensemble, or which published numbers rounded to the same hidden width; those
keep the published network's values, and of gated networks those of ``nano`` and ``small``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from measnet.config import MEASNetConfig
from measnet.errors import CheckpointError, UsageError

Shapes = Mapping[str, tuple[int, ...]]

GATED = r"tone\."
"""A part of names that only gated networks have."""

HIDDEN = r"\.feed_forward\.project\.weight$|^pixel_experts\d\.experts\.0\.project\.weight$"
"""Weights from a hidden width to the channels of their level."""


def config_from_shapes(shapes: Shapes) -> MEASNetConfig:
    """The configuration of a network whose tensors (our names) have these shapes.

    Raises ``CheckpointError`` when the names that decide it are absent or contradict each other.
    """
    published = MEASNetConfig()
    width = _shape(shapes, "stem.weight", rank=4)[0]
    gated = any(re.match(GATED, name) for name in shapes)
    scale = _stem_scale(_shape(shapes, "stem.weight", rank=4), gated)
    mese = any(name.startswith("pixel_experts") for name in shapes)
    fd = any(".decompose." in name for name in shapes)
    mee = any(re.match(r"fd_mee\d\.(high|low|whole)\.", name) for name in shapes)
    pixel_experts = _three(
        _count(shapes, rf"pixel_experts{level}\.experts\.(\d{{1,9}})\.") for level in (1, 2, 3)
    )
    if mee:
        image_experts = _three(
            _count(shapes, rf"fd_mee{level}\.\w+\.experts\.experts\.(\d{{1,9}})\.") for level in (1, 2, 3)
        )
    else:
        present = [any(name.startswith(f"fd_mee{level}.") for name in shapes) for level in (1, 2, 3)]
        image_experts = _three(
            n if here or not fd else 0 for n, here in zip(published.image_experts, present, strict=True)
        )
    try:
        return MEASNetConfig(
            width=width,
            blocks=(
                _count(shapes, r"encoder1\.(\d{1,9})\."),
                _count(shapes, r"encoder2\.(\d{1,9})\."),
                _count(shapes, r"encoder3\.(\d{1,9})\."),
                _count(shapes, r"latent\.(\d{1,9})\."),
            ),
            refinement_blocks=_count(shapes, r"refinement\.(\d{1,9})\."),
            heads=(
                _heads(shapes, "encoder1", published.heads[0]),
                _heads(shapes, "encoder2", published.heads[1]),
                _heads(shapes, "encoder3", published.heads[2]),
                _heads(shapes, "latent", published.heads[3]),
            ),
            ffn_expansion=_ffn_expansion(shapes),
            pixel_experts=pixel_experts if mese else published.pixel_experts,
            image_experts=image_experts,
            block="gated" if gated else "transformer",
            ensemble="weighted_sum" if gated else published.ensemble,
            tspg=any(name.startswith("prompt.") for name in shapes),
            mese=mese,
            fd=fd,
            mee=mee,
            frequency_blocks=any(name.startswith("frequency") for name in shapes),
            stem_scale=scale,
        )
    except CheckpointError:
        raise
    except UsageError as error:
        raise CheckpointError(f"not a MEASNet checkpoint: {error}") from None


def _stem_scale(stem: tuple[int, ...], gated: bool) -> int:
    """At which share of the image's resolution a stem of this shape works: 1, or 2 for one half."""
    if gated and stem[1] == 3 and stem[2:] in ((3, 3), (4, 4)):
        return 1 if stem[2] == 3 else 2
    scale = None if gated else {3: 1, 12: 2}.get(stem[1])
    if scale is None:
        must = "3, by 3x3 or 4x4" if gated else "3 or 12"
        raise CheckpointError(
            f"not a MEASNet checkpoint: its stem takes {stem[1]} channels by {stem[2]}x{stem[3]}, "
            f"must be {must}"
        )
    return scale


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise CheckpointError(
            f"not a MEASNet checkpoint: none of its {len(shapes)} tensors is '{name}' "
            "(patch_embed.proj.weight in the authors' names)"
        )
    if len(shape) != rank:
        raise CheckpointError(
            f"not a MEASNet checkpoint: '{name}' has shape {list(shape)}, must have {rank} dimensions"
        )
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    """Counts numbered modules: one more than the highest number."""
    matches = (re.match(pattern, name) for name in shapes)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _three(values: Iterable[int]) -> tuple[int, int, int]:
    first, second, third = values
    return first, second, third


def _heads(shapes: Shapes, module: str, published: int) -> int:
    shape = shapes.get(f"{module}.0.attention.temperature")
    return published if shape is None else shape[0]


def _ffn_expansion(shapes: Shapes) -> float:
    """The published factor where it gives the hidden widths found, else the plainest one that does."""
    found = []  # channels, hidden
    for name, shape in shapes.items():
        if re.search(HIDDEN, name) and len(shape) in (2, 4):
            found.append((shape[0], shape[1]))
    published = MEASNetConfig.ffn_expansion
    if not found:
        return published
    channels, hidden = max(found)
    if channels:
        for factor in (published, hidden / channels, (hidden + 0.5) / channels):
            if all(int(c * factor) == h for c, h in found):
                return factor
    raise CheckpointError(
        "not a MEASNet checkpoint: its feed-forward layers and pixel experts do not share one expansion "
        f"factor (channels and hidden widths: {sorted(set(found))})"
    )
