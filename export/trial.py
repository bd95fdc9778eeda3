"""Networks too large to be run at the size of their graph: a smaller graph of them is tried instead.

One frame of 1280x720 takes ``base`` 5 TFLOP, and a graph is run several times. A smaller graph must be traced
too, which keeps one core busy for most of a minute, so that happens in a process of its own meanwhile.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from measnet.errors import BackendError, MEASNetError
from measnet.export.exact import ExactMEASNet
from measnet.export.form import Form
from measnet.export.precision import Precision
from measnet.export.report import Measured
from measnet.metrics import Parity
from measnet.network import MEASNet

MOST_OPERATIONS = 400e9
"""The most operations for a frame to be tried (a multiply and an add are two): seconds on a small machine."""

SMALLER = (128, 160)
"""Height and width that are tried instead. From 128 on the frequency blocks' masks are not empty."""

USUAL = (256, 320)
"""The size on which a graph for any size is tried."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class TypedTrial:
    """Measurements of a smaller typed graph."""

    measured: Measured
    magnitudes: dict[str, float]
    """As ``magnitudes_by_operator``."""


def is_too_large(network: MEASNet, size: tuple[int, int]) -> bool:
    """Tells whether a frame of this (height, width) is too large to try a graph on."""
    height, width = least = network.config.size_rule.fit(1, 1)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        ExactMEASNet(network.eval())(torch.zeros(1, 3, *least))
    per_pixel = counter.get_total_flops() / (height * width)
    return per_pixel * size[0] * size[1] > MOST_OPERATIONS


def size_for_any(network: MEASNet) -> tuple[int, int]:
    """The (height, width) on which a graph for any size is tried."""
    return SMALLER if is_too_large(network, USUAL) else USUAL


def try_exact(source: Path, form: Form, frames: str | None) -> tuple[Parity, tuple[int, int], str]:
    """Parity of a smaller float32 graph of the checkpoint, its frames' size, and which they are."""
    from measnet.checkpoint import load_checkpoint
    from measnet.export.graph import exact_graph
    from measnet.export.parity import camera_parity, graph_parity
    from measnet.export.pictures import real_pictures

    network = load_checkpoint(source)
    model, description = form.given_to(*exact_graph(network, SMALLER), SMALLER)
    height, width = form.tried_size(description)
    pictures, which = real_pictures(frames, 2, height, width)
    content = model.SerializeToString()
    if form.takes_bytes:
        parity = camera_parity(content, network, description, pictures)
    else:
        parity = graph_parity(content, network, pictures)
    return parity, (height, width), f"{which}, {INSTEAD}"


def try_typed(source: Path, precision: Precision, form: Form, frames: str | None) -> TypedTrial:
    """A smaller 16-bit graph of the checkpoint, run and held against the network."""
    from measnet.checkpoint import load_checkpoint
    from measnet.export.pictures import real_pictures
    from measnet.export.ranges import largest_magnitudes, magnitudes_by_operator
    from measnet.export.typed import measure, measure_bytes, typed_network

    network = load_checkpoint(source)
    size = network.config.size_rule.fit(*SMALLER)
    pictures, which = real_pictures(frames, 2, *size)
    magnitudes: dict[str, float] = {}

    def ranges(model: Any) -> dict[str, float]:
        found = largest_magnitudes(model, pictures[:1])
        magnitudes.update(magnitudes_by_operator(model, found))
        return found

    typed, description, _ = typed_network(network, size, precision, ranges=ranges)
    measured = measure(typed, network, pictures, f"{which}, {INSTEAD}")
    if form.takes_bytes:
        model, described = form.given_to(typed.model, description, SMALLER)
        odd, _ = real_pictures(frames, 2, *form.tried_size(described))
        measured.parity["bytes"] = measure_bytes(model, network, described, odd)
    return TypedTrial(measured, magnitudes)


INSTEAD = "on a smaller graph of the same network"


class Apart(Generic[Result]):
    """A function that runs in a process of its own, which does not outlive the block."""

    def __init__(self, function: Callable[..., Result], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(sender, function, arguments), daemon=True)
        self._process.start()
        sender.close()
        self._found: Result | None = None

    def __enter__(self) -> Apart[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        self._receiver.close()

    def result(self) -> Result:
        """The function's result. Raises what the function raised, ``BackendError`` when its process died."""
        if self._found is None:
            try:
                kind, found = self._receiver.recv()
            except EOFError:
                self._process.join()
                raise BackendError(
                    f"trying a smaller graph was ended with status {self._process.exitcode}, as by a machine "
                    "that runs out of memory; --no-verify does without"
                ) from None
            if kind == "raised":
                raise found
            self._found = found
        assert self._found is not None
        return self._found


def _serve(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    try:
        sender.send(("returned", function(*arguments)))
    except MEASNetError as error:
        # Rebuilt from its words alone: not all of them can be sent as they are.
        told = MEASNetError(str(error))
        told.exit_code = error.exit_code
        sender.send(("raised", told))
