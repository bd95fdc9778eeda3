"""Camera bytes in, camera bytes out: wraps a graph, so that whoever feeds it has nothing to convert.

    image      uint8, B H W 3 -> 0 to 1 -> padded by reflection -> B 3 H' W', what the network takes
    restored   B 3 H' W' -> cropped to H W -> clipped to 0-1 -> rounded -> uint8, B H W 3
    window     B 1 H W, of the frame -> padded as it is -> B 1 H' W'; of a steerable graph

It is the arithmetic of ``measnet.image``, operator by operator and all in float32, so the bytes are those
that ``Restorer`` returns. The graph inside stays as it is, whatever its types.

Reflection is a Gather, not a Pad: ONNX's Pad reflects once, and cannot grow a side to twice itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from measnet.description import GraphDescription
from measnet.export.graph import Graph
from measnet.image import ChannelOrder

MODULE = "camera"
"""The part of the network that the new nodes are of, by name: ``camera/Cast``."""

INSIDE = {name: f"{MODULE}/{name}" for name in ("image", "restored", "window")}
"""New names of the inner graph's inputs and output."""

AXES = {"height": 1, "width": 2}
"""The dimensions of B H W 3 that are padded."""

BACKWARDS = np.array([2, 1, 0])
"""The order that turns RGB into BGR, and BGR into RGB."""


def camera_graph(
    inner: Graph, *, frame_size: tuple[int, int] | None = None, channel_order: ChannelOrder = "rgb"
) -> Graph:
    """The graph that takes ``image`` as uint8, B H W 3, and returns ``restored`` as that. The other outputs
    of ``inner`` stay: they speak of the padded frame.

    ``inner`` takes and returns B 3 H W in float32 (its tensors inside may be of any type). One for a single
    size is for frames of ``frame_size`` (height, width), by default and at most that size; one for every
    size takes every frame, down to a single pixel. ``channel_order`` is that of both frames.

    A steerable one takes a window of the frame: what padding repeats of a pixel counts if the pixel does.
    """
    description = inner.description
    inside = description.static_size
    frame_size = inside and (frame_size or inside)
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(inner.model)
    graph = wrapped.graph
    nodes = _Nodes()
    sides = _to_network(nodes, description, frame_size, channel_order)
    nodes.made += [_renamed(node) for node in graph.node]
    _from_network(nodes, sides if frame_size != inside or inside is None else None, channel_order)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes.made)
    graph.initializer.extend(nodes.constants)
    sides_of: tuple[str | int, ...] = frame_size or ("height", "width")
    for value in (*graph.input, *graph.output):
        if value.name == "window":
            window = ["batch", 1, *sides_of]
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, window))
        elif value.name in INSIDE:
            frames = ["batch", *sides_of, 3]
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.UINT8, frames))
    made = inner.become(wrapped, static_size=frame_size, io="uint8-nhwc", channel_order=channel_order)
    onnx.checker.check_model(made.model, full_check=True)
    return made


def reflected(side: int, grown: int) -> NDArray[np.int64]:
    """The index among ``side`` pixels of each of ``grown``, reflected to and fro as by ``numpy.pad``."""
    period = max(2 * (side - 1), 1)
    place = np.arange(grown, dtype=np.int64) % period
    return np.minimum(place, period - place)


class _Nodes:
    """Operators in the order in which they run, and the constants that they read."""

    def __init__(self) -> None:
        self.made: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._taken: Counter[str] = Counter()

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A new operator; returns the name of its result."""
        name = self._name(operator)
        self.made.append(helper.make_node(operator, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, values: NDArray[np.generic] | np.generic) -> str:
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def whole(self, value: int) -> str:
        """A whole number, without dimensions."""
        return self.constant(np.int64(value))

    def _name(self, kind: str) -> str:
        self._taken[kind] += 1
        number = self._taken[kind]
        return f"{MODULE}/{kind}" if number == 1 else f"{MODULE}/{kind}_{number}"


def _to_network(
    nodes: _Nodes, description: GraphDescription, frame_size: tuple[int, int] | None, order: ChannelOrder
) -> str:
    """``image`` -> what the graph inside takes. Returns the tensor with the frame's height and width."""
    frame = nodes.add("Cast", "image", to=TensorProto.FLOAT)  # B H W 3
    if frame_size is None:
        sides = nodes.add("Shape", frame, start=1, end=3)
        places = {
            name: _reflected_in_graph(nodes, nodes.add("Gather", sides, nodes.whole(index)), description)
            for index, name in enumerate(AXES)
        }
    else:
        sides = nodes.constant(np.array(frame_size, np.int64))
        grown = dict(zip(AXES, zip(frame_size, description.fit(*frame_size), strict=True), strict=True))
        places = {
            name: nodes.constant(reflected(side, size))
            for name, (side, size) in grown.items()
            if side != size
        }
    for name, place in places.items():
        frame = nodes.add("Gather", frame, place, axis=AXES[name])
    if description.steerable:
        window = "window"
        for name, place in places.items():
            window = nodes.add("Gather", window, place, axis=AXES[name] + 1)  # B 1 H W
        nodes.add("Identity", window, output=INSIDE["window"])
    if order == "bgr":
        frame = nodes.add("Gather", frame, nodes.constant(BACKWARDS), axis=3)
    planes = nodes.add("Transpose", frame, perm=[0, 3, 1, 2])  # B 3 H' W'
    nodes.add("Mul", planes, nodes.constant(np.float32(1 / 255)), output=INSIDE["image"])
    return sides


def _reflected_in_graph(nodes: _Nodes, side: str, description: GraphDescription) -> str:
    """``reflected`` from ``side`` to the size that the network takes, for a side known only when it runs."""
    rule = description.size_rule
    least, one = rule.fit(1, 1)[0], nodes.whole(1)
    multiple = nodes.whole(rule.multiple)
    started = nodes.add("Add", side, nodes.whole(rule.multiple - 1))
    cells = nodes.add("Div", started, multiple)
    grown = nodes.add("Max", nodes.add("Mul", cells, multiple), nodes.whole(least))
    there_and_back = nodes.add("Mul", nodes.add("Sub", side, one), nodes.whole(2))
    period = nodes.add("Max", there_and_back, one)
    place = nodes.add("Mod", nodes.add("Range", nodes.whole(0), grown, one), period)
    return nodes.add("Min", place, nodes.add("Sub", period, place))


def _from_network(nodes: _Nodes, sides: str | None, order: ChannelOrder) -> None:
    """Turns the inner graph's result into ``restored``, cropped to ``sides``; None leaves its size."""
    planes = INSIDE["restored"]  # B 3 H' W'
    if sides is not None:
        start, axes = (nodes.constant(np.array(values, np.int64)) for values in ([0, 0], [2, 3]))
        planes = nodes.add("Slice", planes, start, sides, axes)
    clipped = nodes.add("Clip", planes, *(nodes.constant(np.float32(bound)) for bound in (0, 1)))
    steps = nodes.add("Mul", clipped, nodes.constant(np.float32(255)))
    halved = nodes.add("Add", steps, nodes.constant(np.float32(0.5)))
    # Only whole numbers are cast, as runtimes differ in how they round.
    frame = nodes.add("Transpose", nodes.add("Floor", halved), perm=[0, 2, 3, 1])  # B H W 3
    if order == "bgr":
        frame = nodes.add("Gather", frame, nodes.constant(BACKWARDS), axis=3)
    nodes.add("Cast", frame, output="restored", to=TensorProto.UINT8)


def _renamed(original: NodeProto) -> NodeProto:
    """An operator of the graph inside, which no longer begins at ``image`` and ends in ``restored``."""
    node = NodeProto()
    node.CopyFrom(original)
    for names in (node.input, node.output):
        names[:] = [INSIDE.get(name, name) for name in names]
    return node
