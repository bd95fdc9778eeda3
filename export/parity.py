"""Holds a written graph against the network it came from, in ONNX Runtime."""

from __future__ import annotations

import os

import numpy as np
import torch

from measnet.errors import GraphError, MissingPackageError, first_line
from measnet.image import Image
from measnet.metrics import Choices, Parity, compare
from measnet.network import MEASNet


def graph_parity(graph: str | os.PathLike[str], network: MEASNet, images: Image) -> Parity:
    """Parity of the graph with ``network`` on ``images`` (B 3 H W, of a size that the graph takes).

    Raises ``MissingPackageError`` without ONNX Runtime, ``GraphError`` when it cannot load the graph.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError:
        raise MissingPackageError("checking a graph", "onnxruntime", "cpu") from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, {"image": images}), strict=True))
    except Exception as error:  # ONNX Runtime has an exception type per failure, none public
        raise GraphError(f"ONNX Runtime does not run {graph}: {first_line(error)}") from None
    with torch.inference_mode():
        expected = network.eval().restore(torch.from_numpy(images))
    return compare(
        np.asarray(outputs["restored"]),
        expected.restored.numpy(),
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
