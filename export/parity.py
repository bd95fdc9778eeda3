"""Holds a written graph against the network it came from, in ONNX Runtime."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from measnet.description import GraphDescription
from measnet.export.session import run_graph
from measnet.image import Image, batch_to_images, images_to_batch, pad
from measnet.metrics import Choices, Parity, compare
from measnet.network import MEASNet, Restoration


def graph_parity(graph: bytes | str | os.PathLike[str], network: MEASNet, images: Image) -> Parity:
    """Parity of the graph (a file or its bytes) with ``network`` on ``images`` (B 3 H W, a size it takes).

    Raises ``MissingPackageError`` without ONNX Runtime, ``GraphError`` when it cannot run the graph.
    """
    return parity_with(graph, network_answer(network, images), images)


def network_answer(network: MEASNet, images: Image) -> Restoration:
    """The results of PyTorch for ``images`` (B 3 H W) in float32, with which every graph is compared."""
    with torch.inference_mode():
        return network.eval().restore(torch.from_numpy(images))


def parity_with(graph: bytes | str | os.PathLike[str], expected: Restoration, images: Image) -> Parity:
    """Parity of the graph on ``images`` with what the network made of them. Raises as ``graph_parity``."""
    outputs: dict[str, Any] = run_graph(graph, images)
    return compare(
        np.asarray(outputs["restored"]),
        expected.restored.numpy(),
        Choices(outputs.get("pixel_experts"), outputs.get("image_experts")),
        expected.choices(),
    )


def camera_parity(
    graph: bytes | str | os.PathLike[str],
    network: MEASNet,
    description: GraphDescription,
    images: Image,
) -> Parity:
    """Parity of a graph that takes camera bytes with ``network`` on ``images``, B 3 H W of any size.

    Both results are rounded to bytes before they are compared. Raises as ``graph_parity``.
    """
    height, width = images.shape[2:]
    expected = network_answer(network, pad(images, network.config.size_rule.fit(height, width)))
    outputs: dict[str, Any] = run_graph(graph, images_to_batch(images, description.channel_order))
    return compare(
        batch_to_images(outputs["restored"], description.channel_order),
        batch_to_images(images_to_batch(expected.restored.numpy()[:, :, :height, :width])),
        Choices(outputs.get("pixel_experts"), outputs.get("image_experts")),
        expected.choices(),
    )


def sample_pictures(batch: int, height: int, width: int, seed: int = 0) -> Image:
    """B different noisy pictures with edges and smooth areas, so that routers have something to decide."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((batch, 3, 6, 6), np.float32)
    rows = np.arange(height) * 6 // height
    columns = np.arange(width) * 6 // width
    blocks = coarse[:, :, rows][:, :, :, columns]
    slope = np.linspace(-0.3, 0.3, width, dtype=np.float32)
    strength = np.linspace(0.02, 0.2, batch, dtype=np.float32)[:, None, None, None]
    noise = rng.standard_normal(blocks.shape, np.float32) * strength
    return np.clip(0.2 + 0.6 * blocks + slope + noise, 0, 1).astype(np.float32)
