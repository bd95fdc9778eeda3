"""Holds graphs against the network that they came from, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from measnet.errors import ParityError
from measnet.export.graph import Graph
from measnet.export.graph_session import GraphSession
from measnet.image import Image, batch_to_images, images_to_batch, pad
from measnet.metrics import Choices, Parity, Tolerance, compare, psnr
from measnet.network import MEASNet, MEASNetOutput

WAYS = {
    "exact": "in ONNX Runtime on this CPU",
    "rounded": "every 16-bit tensor rounded",
    "onnxruntime": "in ONNX Runtime on this CPU",
    "bytes": "camera bytes in and out",
}
"""The ways in which a graph is run, in words."""


@dataclass(frozen=True)
class Measured:
    """A graph held against the network in float32, PyTorch's."""

    pictures: str
    """The pictures, in words."""

    size: tuple[int, int]
    """Their (height, width)."""

    parity: Mapping[str, Parity]
    """By how a graph was run, over all pictures together."""

    tolerance: Tolerance

    effect_db: float | None
    """PSNR of the network's input against its answer, that is, how much it changes at all; None unless
    asked for."""

    judged: tuple[str, ...]
    """The ways of running that have to keep within the tolerance."""

    @property
    def breaches(self) -> list[str]:
        """Lists what lies outside the tolerance, in words, of any way that is judged."""
        found = [breach for way in self.judged for breach in self.parity[way].breaches(self.tolerance)]
        return list(dict.fromkeys(found))


def measure(
    runs: Mapping[str, bytes],
    network: MEASNet,
    batches: Iterable[tuple[str, Image]],
    tolerance: Tolerance,
    *,
    pictures: str,
    unjudged: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Measured:
    """Runs graphs (files as bytes, by the way of running) and ``network`` on ``batches`` (name, B 3 H W).

    ``pictures`` are these in words; the ways in ``unjudged`` are told and may lose what they want.
    ``progress`` is called after each batch. Raises ``ParityError`` when a result is not finite,
    ``GraphError`` when ONNX Runtime does not run a graph, ``MissingPackageError`` without it.
    """
    sessions = {way: GraphSession(content) for way, content in runs.items()}
    given: list[Image] = []
    expected: list[Image] = []
    expected_choices: list[Choices] = []
    restored: dict[str, list[Image]] = {way: [] for way in sessions}
    choices: dict[str, list[Choices]] = {way: [] for way in sessions}
    for name, images in batches:
        answer = network_answer(network, images)
        given.append(images)
        expected.append(answer.restored.numpy())
        expected_choices.append(answer.choices())
        for way, session in sessions.items():
            outputs: dict[str, Any] = session.run(images)
            if not np.isfinite(outputs["restored"]).all():
                raise ParityError(f"the graph's result for {name} is not finite ({way})")
            restored[way].append(outputs["restored"])
            choices[way].append(_choices(outputs))
        progress()
    theirs = np.concatenate(expected)
    span = float(np.ptp(theirs))
    return Measured(
        pictures=pictures,
        size=(theirs.shape[2], theirs.shape[3]),
        parity={
            way: compare(
                np.concatenate(restored[way]), theirs, _joined(choices[way]), _joined(expected_choices)
            )
            for way in sessions
        },
        # Restored pictures span about 0 to 1; only beyond that is the tolerance relative.
        tolerance=tolerance.scaled(span) if span > 2 else tolerance,
        effect_db=psnr(np.concatenate(given), theirs),
        judged=tuple(way for way in sessions if way not in unjudged),
    )


def graph_parity(graph: Graph, network: MEASNet, images: Image) -> Parity:
    """Parity of ``graph`` with ``network`` on ``images``, B 3 H W of a size that it takes.

    Where the graph takes camera bytes, both results are rounded to bytes before they are compared.
    Raises as ``measure``.
    """
    if not graph.description.takes_bytes:
        return parity_with(GraphSession(graph.content), network_answer(network, images), images)
    height, width = images.shape[2:]
    order = graph.description.channel_order
    expected = network_answer(network, pad(images, network.config.size_rule.fit(height, width)))
    outputs: dict[str, Any] = GraphSession(graph.content).run(images_to_batch(images, order))
    return compare(
        batch_to_images(outputs["restored"], order),
        batch_to_images(images_to_batch(expected.restored.numpy()[:, :, :height, :width])),
        _choices(outputs),
        expected.choices(),
    )


def parity_with(session: GraphSession, expected: MEASNetOutput, images: Image) -> Parity:
    """Parity of a graph on ``images`` (B 3 H W) with what the network made of them. Raises ``GraphError``."""
    outputs: dict[str, Any] = session.run(images)
    return compare(
        np.asarray(outputs["restored"]), expected.restored.numpy(), _choices(outputs), expected.choices()
    )


def network_answer(network: MEASNet, images: Image) -> MEASNetOutput:
    """The results of PyTorch for ``images`` (B 3 H W) in float32, with which every graph is compared."""
    with torch.inference_mode():
        return network.eval().restore(torch.from_numpy(images))


def _choices(outputs: Mapping[str, Any]) -> Choices:
    return Choices(outputs.get("pixel_experts"), outputs.get("image_experts"))


def _joined(choices: Sequence[Choices]) -> Choices:
    """The choices for a batch of images, from those for each."""
    pixels = [chosen.pixel_experts for chosen in choices if chosen.pixel_experts is not None]
    images = [chosen.image_experts for chosen in choices if chosen.image_experts is not None]
    return Choices(np.concatenate(pixels) if pixels else None, np.concatenate(images) if images else None)
