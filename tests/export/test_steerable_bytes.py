"""Steerable graphs that take camera bytes: after rounding, what the steerable graph inside computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import settled

from measnet import Restorer
from measnet.export.camera_bytes import camera_graph
from measnet.export.cli import main
from measnet.export.graph import read_graph
from measnet.image import ChannelOrder, pad, to_image
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.weights import bundled

NANO = bundled("nano", ".steerable.onnx")


def opened(path: Path) -> OnnxRuntimeBackend:
    backend = OnnxRuntimeBackend(path, threads=1)
    backend.activate()
    return backend


@pytest.fixture(scope="module")
def planes() -> OnnxRuntimeBackend:
    return opened(NANO)


def bytes_graph(path: Path, frame_size: tuple[int, int] | None = None, order: ChannelOrder = "rgb") -> Path:
    """The bundled steerable graph for camera bytes, for frames of any size or of one."""
    graph = read_graph(NANO)
    if frame_size is not None:
        graph = settled(graph, *graph.description.size_rule.fit(*frame_size))
    wrapped = camera_graph(graph, frame_size=frame_size, channel_order=order)
    assert wrapped.description.steerable and wrapped.description.takes_bytes
    wrapped.write(path)
    return path


def picture(height: int, width: int) -> np.ndarray:
    soft = np.kron(np.random.default_rng(3).integers(0, 256, (8, 10, 3)), np.ones((32, 32, 1)))
    return soft[:height, :width].astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "static", "order"),
    [
        ((131, 150), False, "bgr"),
        ((5, 90), False, "rgb"),
        ((121, 150), True, "rgb"),
        ((128, 160), True, "rgb"),
    ],
)
def test_bytes_are_steered_as_planes_are(
    size: tuple[int, int], static: bool, order: ChannelOrder, tmp_path: Path, planes: OnnxRuntimeBackend
) -> None:
    backend = opened(bytes_graph(tmp_path / "bytes.onnx", size if static else None, order))
    image = to_image(picture(*size))
    grown = planes.description.fit(*size)
    window = np.zeros(size, np.float32)
    window[: size[0] // 2 + 1, size[1] // 3 :] = 1
    whole = pad(image, grown)
    shown = pad(window[None, None], grown)[0, 0]  # a pixel that padding repeats counts if it does itself
    own = planes.infer(whole * np.float32(0.4)).decisions
    assert own is not None
    held = Steering(own[0], np.full_like(own[0], 0.6), window)
    compared = [
        (backend.infer(image), planes.infer(whole)),
        (backend.infer(image, held), planes.infer(whole, replace(held, window=shown))),
    ]
    for found, expected in compared:
        assert found.decisions is not None and expected.decisions is not None
        assert np.allclose(found.decisions, expected.decisions, atol=1e-4)
        assert np.allclose(found.norms, expected.norms, rtol=1e-3, atol=1e-5)
        assert (in_bytes(found) == in_bytes(expected)[:, :, : size[0], : size[1]]).all()


def in_bytes(found: Inference) -> np.ndarray:
    return np.floor(np.clip(found.restored, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def test_tiles_in_bytes_agree_as_tiles_in_planes_do(tmp_path: Path) -> None:
    path = bytes_graph(tmp_path / "bytes.onnx")
    pixels = picture(133, 250)  # the tiles at its end are padded inside the graph
    with Restorer(str(path), tile=128) as given, Restorer("nano", tile=128) as other:
        found, expected = given.restore(pixels), other.restore(pixels)
    assert found.tiles == expected.tiles > 1
    assert found.decisions is not None and expected.decisions is not None
    assert np.allclose(found.decisions, expected.decisions, atol=1e-3)
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 1


def test_a_steerable_graph_for_bytes_is_exported_and_held_against_the_network(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--steerable", "--io", "uint8-nhwc", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    model = onnx.load(tmp_path / "nano-dynamic.bytes.steerable.onnx")
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    assert shapes["image"] == ["batch", "height", "width", 3]
    assert shapes["window"] == ["batch", 1, "height", "width"]
    assert "parity with PyTorch" in result.output
