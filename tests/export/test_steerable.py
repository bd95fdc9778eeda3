"""Steerable graphs: the network itself when nothing is held, and whatever is held, followed exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from measnet import Restorer
from measnet.checkpoint import save_checkpoint
from measnet.config import VARIANTS
from measnet.export.cli import main
from measnet.export.graph import Graph
from measnet.export.precision import typed_graph
from measnet.export.trace import exact_graph
from measnet.image import Image
from measnet.metrics import psnr
from measnet.network import MEASNet
from measnet.network.decisions import layout_of
from measnet.runtime.backends import Steering
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.torch import TorchBackend
from measnet.weights import NAMES, at_hand, bundled


@pytest.fixture(scope="module")
def image() -> Image:
    return np.random.default_rng(4).random((1, 3, 128, 160), np.float32)


def soft(height: int, width: int) -> Image:
    shapes = np.random.default_rng(1).random((6, 7, 3), np.float32)
    return cv2.resize(shapes, (width, height)).transpose(2, 0, 1)[None].astype(np.float32)


def graph(path: Path) -> OnnxRuntimeBackend:
    backend = OnnxRuntimeBackend(path, threads=1, provider="CPUExecutionProvider")
    backend.activate()
    return backend


def test_all_bundled_weights_can_be_steered() -> None:
    assert at_hand(".steerable.onnx") == at_hand(".onnx")
    assert set(at_hand(".onnx")) <= set(NAMES)


@pytest.mark.parametrize("name", at_hand(".steerable.onnx"))
def test_a_bundled_graph_that_nobody_steers_is_the_plain_one(name: str, image: Image) -> None:
    plain, steerable = graph(bundled(name, ".onnx")), graph(bundled(name, ".steerable.onnx"))
    assert plain.description.weights_sha256 == steerable.description.weights_sha256
    assert np.abs(plain.infer(image).restored - steerable.infer(image).restored).max() < 1e-5


@pytest.mark.parametrize("name", at_hand(".steerable.onnx"))
def test_a_bundled_steerable_graph_stores_no_weights_twice(name: str) -> None:
    model = onnx.load(bundled(name, ".steerable.onnx"), load_external_data=False)
    inside = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert inside < 0.05 * bundled(name, ".safetensors").stat().st_size


def test_a_steered_graph_does_what_the_steered_network_does(image: Image) -> None:
    steerable, network = (
        graph(bundled("nano", ".steerable.onnx")),
        TorchBackend(bundled("nano", ".safetensors")),
    )
    network.activate()
    free = np.zeros_like(steerable.infer(image).decisions[0])
    window = np.zeros(image.shape[2:], np.float32)
    window[:64, 32:] = 1
    dark = steerable.infer(image * np.float32(0.2), Steering(free, free))
    steering = Steering(dark.decisions[0], np.full_like(free, 0.7), window)
    ours, theirs = (backend.infer(image, steering) for backend in (steerable, network))
    apart = np.abs(ours.restored - theirs.restored)
    # On noise like this some pixels' experts tie to within rounding.
    assert np.median(apart) < 1e-5 and psnr(ours.restored, theirs.restored) > 70
    assert np.abs(ours.decisions - theirs.decisions).max() < 1e-3
    assert np.allclose(ours.norms, theirs.norms, rtol=1e-3, atol=1e-5)
    assert psnr(ours.restored, steerable.infer(image).restored) < 80


def test_tiles_agree_in_half_precision_too(tmp_path: Path) -> None:
    arguments = ["--steerable", "--fp16", "--dynamic", "-o", str(tmp_path), "--no-verify"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    made = str(tmp_path / "nano-dynamic.fp16.steerable.onnx")
    picture = cv2.resize(np.random.default_rng(1).integers(0, 256, (6, 7, 3), np.uint8), (320, 256)).view(
        np.uint8
    )
    with Restorer("nano", tile=192) as exact, Restorer(made, tile=192) as half:
        expected, found = exact.restore(picture), half.restore(picture)
        assert half.description["precision"] == "fp16" and found.tiles > 1
    assert psnr(found.image, expected.image) > 55
    # The cosine of two channels that hold next to nothing in a soft picture is anybody's guess.
    assert np.abs(found.decisions - expected.decisions).mean() < 0.01


def test_a_steerable_graph_of_bundled_weights_is_written_whole(tmp_path: Path, image: Image) -> None:
    result = CliRunner().invoke(main, ["--steerable", "--dynamic", "-o", str(tmp_path), "--no-verify"])
    assert result.exit_code == 0, result.output
    made = graph(tmp_path / "nano-dynamic.steerable.onnx")
    assert made.description.steerable
    expected = graph(bundled("nano", ".steerable.onnx")).infer(image).restored
    assert np.array_equal(made.infer(image).restored, expected)


def test_frequency_blocks_are_steered_in_a_graph_and_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    # Experts are steered in the next test; every part of a network makes its trace longer.
    narrow = replace(VARIANTS["base"], width=8, blocks=(0, 0, 0, 1), refinement_blocks=0)
    network = MEASNet(replace(narrow, mese=False, fd=False, mee=False)).eval()
    assert network.frequency2 is not None
    for block in (network.frequency4, network.frequency3, network.frequency2):
        torch.nn.init.normal_(block.joined_gain, std=2)  # without it they do nothing
    with torch.no_grad():  # as loud as if trained
        network.output.weight.mul_(3)
        for name, weight in network.named_parameters():
            if name.endswith("temperature"):
                weight.fill_(5)
    size = (256, 256)  # a trace for any size takes several times as long; the next test has one
    model = exact_graph(network, size, steerable=True).model
    Graph.described(model).write(tmp_path / "exact.onnx")
    Graph.described(typed_graph(model, "fp16").model).write(tmp_path / "half.onnx")
    save_checkpoint(network, tmp_path / "network.safetensors")
    theirs = TorchBackend(tmp_path / "network.safetensors")
    theirs.activate()
    picture = soft(*size)
    free = np.zeros(layout_of(network).size, np.float32)
    other = theirs.infer(picture[:, :, ::-1] * np.float32(0.4), Steering(free, free))
    window = np.zeros(size, np.float32)
    window[:128, 64:] = 1
    steering = Steering(other.decisions[0], np.full_like(free, 0.7), window)
    expected = theirs.infer(picture, steering)
    span = np.ptp(expected.restored)
    for name, closest in (("exact", 90), ("half", 45)):
        found = graph(tmp_path / f"{name}.onnx").infer(picture, steering)
        assert psnr(found.restored / span, expected.restored / span) > closest, name
    assert psnr(expected.restored / span, theirs.infer(picture).restored / span) < 60


def test_a_gated_network_is_steered_in_a_graph_for_any_size_and_in_half_precision(
    tmp_path: Path, gated_network: MEASNet
) -> None:
    model = exact_graph(gated_network, None, steerable=True).model
    Graph.described(model).write(tmp_path / "exact.onnx")
    Graph.described(typed_graph(model, "fp16").model).write(tmp_path / "half.onnx")
    save_checkpoint(gated_network, tmp_path / "network.safetensors")
    theirs = TorchBackend(tmp_path / "network.safetensors")
    theirs.activate()
    picture = soft(256, 144)
    free = np.zeros(layout_of(gated_network).size, np.float32)
    other = theirs.infer(picture[:, :, ::-1] * np.float32(0.4), Steering(free, free))
    window = np.zeros((256, 144), np.float32)
    window[:128, 64:] = 1
    steering = Steering(other.decisions[0], np.full_like(free, 0.7), window)
    expected = theirs.infer(picture, steering)
    for name, closest, apart in (("exact", 90, 1e-4), ("half", 55, 0.02)):
        found = graph(tmp_path / f"{name}.onnx").infer(picture, steering)
        assert psnr(found.restored, expected.restored) > closest, name
        assert np.abs(found.decisions - expected.decisions).max() < apart, name
        assert found.norms.shape == (1, 0)
    assert psnr(expected.restored, theirs.infer(picture).restored) < 50
