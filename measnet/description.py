"""What a graph says of itself: written into its metadata, so that whoever opens it needs no side file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from measnet.config import MEASNetConfig, SizeRule, variant_name
from measnet.errors import GraphError, UsageError

FORMAT = "measnet-graph 1"


@dataclass(frozen=True)
class GraphDescription:
    """A graph takes ``image``, B 3 H W, RGB in [0, 1], and returns ``restored``, the same."""

    config: MEASNetConfig
    weights_sha256: str
    """``measnet.checkpoint.weights_sha256`` of the network that the graph computes."""

    static_size: tuple[int, int] | None
    """The only (height, width) it takes, or None for every size that ``size_rule`` allows."""

    precision: str = "fp32"
    """``fp32``, or ``fp16`` or ``bf16``: what its tensors are outside its float32 islands."""

    versions: tuple[tuple[str, str], ...] = ()
    """Packages that made it, by name."""

    @property
    def variant(self) -> str:
        return variant_name(self.config)

    @property
    def size_rule(self) -> SizeRule:
        return self.config.size_rule

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to pad an image of this size to. Raises ``UsageError`` if it cannot fit."""
        if self.static_size is None:
            return self.size_rule.fit(height, width)
        if height > self.static_size[0] or width > self.static_size[1]:
            raise UsageError(
                f"this graph takes {self.static_size[0]}x{self.static_size[1]} pixels (height x width), "
                f"the frame has {height}x{width}; export one with --shape {height}x{width} or --dynamic"
            )
        return self.static_size

    def to_metadata(self) -> dict[str, str]:
        size = "dynamic" if self.static_size is None else "{}x{}".format(*self.static_size)
        rule = self.size_rule
        return {
            "measnet.format": FORMAT,
            "measnet.variant": self.variant,
            "measnet.config": self.config.to_json(),
            "measnet.weights_sha256": self.weights_sha256,
            "measnet.size": size,
            "measnet.size_rule": f"multiple of {rule.multiple}, at least {rule.minimum}",
            "measnet.input": "image: B 3 H W, RGB, 0 to 1",
            "measnet.output": "restored: B 3 H W, RGB, about 0 to 1, not clipped",
            "measnet.precision": self.precision,
            "measnet.versions": json.dumps(dict(self.versions)),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], origin: str) -> GraphDescription:
        """Reads what ``to_metadata`` wrote. Raises ``GraphError``, naming ``origin``, on anything else."""
        found = metadata.get("measnet.format")
        if found != FORMAT:
            what = "has no MEASNet description" if found is None else f"is of format {found!r}"
            raise GraphError(f"{origin} {what}; export it with this version's measnet-export")
        try:
            size = metadata["measnet.size"]
            static = None if size == "dynamic" else _parse_size(size)
            versions = json.loads(metadata["measnet.versions"])
            return cls(
                config=MEASNetConfig.from_json(metadata["measnet.config"]),
                weights_sha256=metadata["measnet.weights_sha256"],
                static_size=static,
                precision=metadata["measnet.precision"],
                versions=tuple((str(name), str(version)) for name, version in versions.items()),
            )
        except (KeyError, ValueError, AttributeError, UsageError) as error:
            raise GraphError(
                f"{origin} has a damaged MEASNet description ({error}); export it again"
            ) from None


def _parse_size(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    if height < 1 or width < 1:
        raise ValueError(f"size {text}")
    return height, width
