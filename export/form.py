"""The form in which graphs take and return frames: ``--io`` and ``--channel-order``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from measnet.description import IO, GraphDescription
from measnet.errors import UsageError
from measnet.image import ChannelOrder

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Form:
    """``nchw``: B 3 H W, float32, RGB, 0 to 1. ``uint8-nhwc``: camera bytes, B H W 3, in ``channel_order``.

    Raises ``UsageError`` for an order of channels where there is no choice.
    """

    io: IO = "nchw"
    channel_order: ChannelOrder | None = None

    def __post_init__(self) -> None:
        if self.channel_order is not None and not self.takes_bytes:
            raise UsageError("--channel-order goes with --io uint8-nhwc; with --io nchw it is RGB")

    @property
    def takes_bytes(self) -> bool:
        return self.io == "uint8-nhwc"

    @property
    def ending(self) -> str:
        """For names of files: ``.bytes``, ``.bytes-bgr`` or nothing."""
        if not self.takes_bytes:
            return ""
        return ".bytes-bgr" if self.channel_order == "bgr" else ".bytes"

    def given_to(
        self, model: onnx.ModelProto, description: GraphDescription, size: tuple[int, int] | None
    ) -> tuple[onnx.ModelProto, GraphDescription]:
        """``model`` (of the form ``nchw``, for frames of ``size`` or, with None, of any) in this form."""
        if not self.takes_bytes:
            return model, description
        from measnet.export.camera_bytes import camera_graph

        return camera_graph(model, description, frame_size=size, channel_order=self.channel_order or "rgb")

    def tried_size(self, description: GraphDescription) -> tuple[int, int]:
        """The (height, width) of frames to hold a graph of this form against the network on."""
        # Odd, so that padding and cropping are tried too.
        return description.static_size or description.frame_rule.fit(255, 319)


def takes(description: GraphDescription, size: tuple[int, int] | None) -> str:
    """``any size``, ``72x104 pixels (...)``; and of which bytes, where it takes bytes."""
    order = description.channel_order.upper()
    form = f", {order} bytes in and out" if description.takes_bytes else ""
    taken = description.static_size
    if taken is None or size is None:
        return f"any size{form}"
    padded = f" (frames of {size[0]}x{size[1]} are padded by reflection)" if taken != size else ""
    return f"{taken[0]}x{taken[1]} pixels{padded}{form}"
