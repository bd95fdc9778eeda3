"""The description of a graph, stored in its metadata, so that a graph is usable without another file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

import msgspec

from measnet import damage, task_prompts
from measnet.config import MEASNetConfig, SizeRule, variant_name
from measnet.decision_layout import DecisionLayout
from measnet.errors import GraphError, UsageError
from measnet.image import LARGEST_SIDE, ChannelOrder
from measnet.printable import LONGEST_VALUE, printable
from measnet.task_prompts import TaskPrompts

FORMAT = "measnet-graph 1"

IO = Literal["nchw", "uint8-nhwc"]
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
FORMS = (("nchw", "rgb"), ("uint8-nhwc", "rgb"), ("uint8-nhwc", "bgr"))
ANY_SIZE = SizeRule(multiple=1, minimum=1)


@dataclass(frozen=True)
class Calibration:
    """The frames that an INT8 graph was calibrated on."""

    source: str
    """The name of the file or folder."""

    frames: int
    sha256: str
    """SHA-256 of their pixels, as they were seen."""


@dataclass(frozen=True)
class GraphDescription:
    """A graph takes ``image`` and returns ``restored``, both B 3 H W, RGB in [0, 1], or as ``io`` says."""

    config: MEASNetConfig
    weights_sha256: str
    """``measnet.checkpoint.weights_sha256`` of the network that the graph computes."""

    static_size: tuple[int, int] | None
    """The only (height, width) it takes, or None for every size that ``frame_rule`` allows."""

    precision: str = "fp32"
    """``fp32``, or ``fp16`` or ``bf16``: what its tensors are outside its float32 islands. ``int8``: most
    convolutions are INT8, and all else is as in ``fp16``."""

    versions: tuple[tuple[str, str], ...] = ()
    """Packages that made it, by name."""

    io: IO = "nchw"
    """``uint8-nhwc``: ``image`` and ``restored`` are camera bytes, uint8, B H W 3; padding is inside."""

    channel_order: ChannelOrder = "rgb"
    """Channel order of ``image`` and ``restored``; ``bgr`` is for camera bytes alone."""

    steerable: bool = False
    """True for a graph that takes image-level decisions and returns its own (``DecisionLayout``)."""

    decisions: DecisionLayout = field(default_factory=DecisionLayout)
    """Their layout; empty where it is not steerable."""

    calibration: Calibration | None = None
    """Calibration of an INT8 graph; None in those from before it was told apart."""

    task_prompts: TaskPrompts = field(default_factory=dict)
    """Scores of the prompt for each task, where the weights know tasks."""

    taught: bool = False
    """True where the prompt weights tell the kinds of damage (``measnet/damage.py``)."""

    @property
    def variant(self) -> str:
        return variant_name(self.config)

    @property
    def size_rule(self) -> SizeRule:
        """The sizes that the network inside takes."""
        return self.config.size_rule

    @property
    def takes_bytes(self) -> bool:
        return self.io == "uint8-nhwc"

    @property
    def frame_rule(self) -> SizeRule:
        """The sizes of frames that the graph takes: the network's, or all where the graph pads."""
        return ANY_SIZE if self.takes_bytes else self.size_rule

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to pad an image of this size to. Raises ``UsageError`` if it cannot fit."""
        if self.static_size is None:
            return self.frame_rule.fit(height, width)
        if height > self.static_size[0] or width > self.static_size[1]:
            raise UsageError(
                f"this graph takes {self.static_size[0]}x{self.static_size[1]} pixels (height x width), "
                f"the frame has {height}x{width}; export one with --shape {height}x{width} or --dynamic"
            )
        return self.static_size

    def to_metadata(self) -> dict[str, str]:
        size = "dynamic" if self.static_size is None else "{}x{}".format(*self.static_size)
        rule = self.frame_rule
        order = self.channel_order.upper()
        takes = f"B H W 3, {order}, uint8" if self.takes_bytes else "B 3 H W, RGB, 0 to 1"
        gives = takes if self.takes_bytes else "B 3 H W, RGB, about 0 to 1, not clipped"
        return {
            "measnet.format": FORMAT,
            "measnet.variant": self.variant,
            "measnet.config": self.config.to_json(),
            "measnet.weights_sha256": self.weights_sha256,
            "measnet.size": size,
            "measnet.size_rule": "any"
            if rule == ANY_SIZE
            else f"multiple of {rule.multiple}, at least {rule.minimum}",
            "measnet.io": self.io,
            "measnet.channel_order": self.channel_order,
            "measnet.input": f"image: {takes}",
            "measnet.output": f"restored: {gives}",
            "measnet.precision": self.precision,
            "measnet.versions": json.dumps(dict(self.versions)),
            **({"measnet.steerable": "yes"} if self.steerable else {}),
            **({"measnet.decisions": self.decisions.to_json()} if self.steerable else {}),
            **({"measnet.calibration": json.dumps(asdict(self.calibration))} if self.calibration else {}),
            **task_prompts.to_metadata(self.task_prompts),
            **damage.to_metadata(self.taught),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], origin: str) -> GraphDescription:
        """Reads what ``to_metadata`` wrote. Raises ``GraphError``, naming ``origin``, on anything else."""
        found = metadata.get("measnet.format")
        if found != FORMAT:
            what = "has no MEASNet description"
            if found is not None:
                what = f"is of format '{printable(found, LONGEST_VALUE)}'"
            raise GraphError(f"{origin} {what}; export it with this version's measnet-export")
        try:
            size = metadata["measnet.size"]
            static = None if size == "dynamic" else _parse_size(size)
            versions = msgspec.json.decode(metadata["measnet.versions"], type=dict[str, str])
            # Graphs from before there was a choice say nothing of it.
            io = metadata.get("measnet.io", "nchw")
            order = metadata.get("measnet.channel_order", "rgb")
            if (io, order) not in FORMS:
                raise ValueError(f"{printable(io, LONGEST_VALUE)}, {printable(order, LONGEST_VALUE)}")
            precision = metadata["measnet.precision"]
            if precision not in PRECISIONS:
                raise ValueError(f"precision '{printable(precision, LONGEST_VALUE)}'")
            steerable = metadata.get("measnet.steerable") == "yes"
            return cls(
                config=MEASNetConfig.from_json(metadata["measnet.config"]),
                weights_sha256=metadata["measnet.weights_sha256"],
                static_size=static,
                precision=precision,
                versions=tuple(versions.items()),
                io=cast(IO, io),
                channel_order=cast(ChannelOrder, order),
                steerable=steerable,
                decisions=DecisionLayout.from_json(metadata["measnet.decisions"] if steerable else "[]"),
                calibration=msgspec.json.decode(
                    metadata.get("measnet.calibration", "null"), type=Calibration | None
                ),
                task_prompts=task_prompts.from_metadata(metadata),
                taught=damage.from_metadata(metadata),
            )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
            why = printable(error, 4 * LONGEST_VALUE)
            raise GraphError(f"{origin} has a damaged MEASNet description ({why}); export it again") from None


def _parse_size(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise ValueError(f"size {text[:40]}")
    return height, width
