"""Engines that take image-level decisions: the steered network's pictures, whichever way they come.

As in ``test_tensorrt_backend.py``: a fake GPU computes real networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from measnet import Restorer, UsageError
from measnet.decision_layout import Vector
from measnet.errors import EngineError
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import Graph
from measnet.image import Image, pad
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.tensorrt.lane import STEADY
from measnet.runtime.cli import main
from measnet.weights import bundled

from .conftest import MakeClip, SteadyVideo
from .engine_bench import SMALL, Bench, bench, nano

__all__ = ["bench"]


@pytest.fixture(scope="module")
def steerable() -> bytes:
    """The bundled steerable graph, its weights inside."""
    return onnx.load(bundled("nano", ".steerable.onnx")).SerializeToString()


@pytest.fixture(scope="module")
def exact() -> OnnxRuntimeBackend:
    backend = OnnxRuntimeBackend(bundled("nano", ".steerable.onnx"), threads=1)
    backend.activate()
    return backend


@pytest.fixture(scope="module")
def images() -> list[Image]:
    rng = np.random.default_rng(8)
    soft = rng.random((3, 1, 3, 4, 5), np.float32)
    return [np.kron(picture, np.ones((32, 32), np.float32)) for picture in soft]  # 128x160


@pytest.fixture(scope="module")
def foreign(images: list[Image], exact: OnnxRuntimeBackend) -> list[Vector]:
    """The decisions of other pictures."""
    found = [exact.infer(image * np.float32(0.3)).decisions for image in images]
    return [decisions[0] for decisions in found if decisions is not None]


def same(a: Inference, b: Inference) -> None:
    assert np.abs(a.restored - b.restored).max() < 1e-5
    for name in ("prompt_weights", "decisions", "norms"):
        assert np.allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5), name


def half_window(image: Image) -> np.ndarray:
    window = np.zeros(image.shape[2:], np.float32)
    window[:, : image.shape[3] // 2] = 1
    return window


def test_a_steerable_engine_that_nobody_steers_is_the_plain_one(
    bench: Bench, steerable: bytes, images: list[Image]
) -> None:
    backend, plain = (bench.backend(bench.engine(content=content)) for content in (steerable, nano()))
    assert backend.description.steerable
    for image in (images[0], images[1][:, :, :112, :100]):  # the second is padded, all of which counts
        a, b = backend.infer(image), plain.infer(image)
        assert a.restored.shape == image.shape and np.abs(a.restored - b.restored).max() < 1e-5
        assert a.decisions is not None and b.decisions is None


def test_a_steered_engine_does_what_the_steered_graph_does(
    bench: Bench, steerable: bytes, images: list[Image], foreign: list[Vector], exact: OnnxRuntimeBackend
) -> None:
    backend = bench.backend(
        bench.engine([SMALL, ((1, 3, 128, 128), (2, 3, 128, 160), (2, 3, 128, 160))], content=steerable)
    )
    share = np.full_like(foreign[0], 0.7)
    for image in (images[0], images[1], np.concatenate(images[:2])):
        for window in (None, half_window(image)):
            steering = Steering(foreign[2], share, window)
            same(backend.infer(image, steering), exact.infer(image, steering))


def test_what_an_engine_pads_a_tile_with_does_not_decide(
    bench: Bench, steerable: bytes, images: list[Image], foreign: list[Vector], exact: OnnxRuntimeBackend
) -> None:
    smallest = ((1, 3, 144, 192), (1, 3, 144, 192), (1, 3, 192, 256))
    backend = bench.backend(bench.engine([smallest], content=steerable))
    image, nothing = images[0], np.zeros_like(foreign[0])
    window = half_window(image)
    grown = np.pad(window, ((0, 16), (0, 32)))
    steered = backend.infer(image, Steering(nothing, nothing, window))
    expected = exact.infer(pad(image, (144, 192)), Steering(nothing, nothing, grown))
    assert steered.decisions is not None and expected.decisions is not None
    assert np.allclose(steered.decisions, expected.decisions, atol=1e-5)
    assert np.abs(steered.restored - expected.restored[:, :, :128, :160]).max() < 1e-5


def test_a_captured_graph_takes_the_decisions_of_its_own_frame(
    bench: Bench, steerable: bytes, images: list[Image], foreign: list[Vector], exact: OnnxRuntimeBackend
) -> None:
    backend = bench.backend(bench.engine(content=steerable))
    share = np.ones_like(foreign[0])
    bench.gpu.calls.clear()
    for held in (*foreign, *foreign):
        steering = Steering(held, share)
        same(backend.infer(images[0], steering), exact.infer(images[0], steering))
    same(backend.infer(images[0]), exact.infer(images[0]))
    assert bench.gpu.calls.count("cudaGraphLaunch") == 7 - STEADY


def test_a_steered_engine_for_camera_bytes_does_what_its_graph_does(
    bench: Bench, steerable: bytes, images: list[Image], foreign: list[Vector], tmp_path: Path
) -> None:
    graph = camera_graph(Graph.described(onnx.load_model_from_string(steerable))).content
    (tmp_path / "bytes.onnx").write_bytes(graph)
    exact = OnnxRuntimeBackend(tmp_path / "bytes.onnx", threads=1)
    exact.activate()
    backend = bench.backend(
        bench.engine([((1, 100, 90, 3), (1, 128, 160, 3), (1, 128, 160, 3))], content=graph)
    )
    for image in (images[0], np.ascontiguousarray(images[1][:, :, :101, :150])):
        for window in (None, half_window(image)):
            steering = Steering(foreign[2], np.full_like(foreign[2], 0.7), window)
            same(backend.infer(image, steering), exact.infer(image, steering))


def test_tiles_of_an_engine_agree(bench: Bench, steerable: bytes, hazy: np.ndarray) -> None:
    path = bench.engine([((1, 3, 128, 128), (1, 3, 128, 128), (1, 3, 128, 160))], content=steerable)
    with Restorer(str(path), tile=128) as restorer, Restorer("nano", tile=128) as other:
        found, expected = restorer.restore(hazy), other.restore(hazy)
        assert found.tiles == expected.tiles > 1 and restorer.steerable
        assert found.decisions is not None and expected.decisions is not None
        assert np.allclose(found.decisions, expected.decisions, atol=1e-4)
        assert np.abs(found.image - expected.image).max() < 1e-3
        apart = restorer.restore(hazy, apart=True)
    assert np.abs(apart.image - expected.image).max() > 0.01


@pytest.fixture(scope="module")
def hazy() -> np.ndarray:
    """128x224, soft shapes under a haze that thickens from left to right, uint8."""
    shapes = np.kron(np.random.default_rng(2).integers(0, 256, (4, 7, 3)), np.ones((32, 32, 1)))
    clear = np.linspace(0.9, 0.3, 224)[None, :, None]
    return (shapes * clear + 220 * (1 - clear)).round().astype(np.uint8)


def test_a_video_is_held_steady_on_an_engine(bench: Bench, steerable: bytes, hazy: np.ndarray) -> None:
    path = bench.engine([((1, 3, 128, 128), (1, 3, 128, 224), (1, 3, 128, 224))], content=steerable)
    with Restorer(str(path)) as restorer, Restorer("nano") as other:
        video, expected = SteadyVideo(restorer, 0.9), SteadyVideo(other, 0.9)
        for light in (1.0, 0.97, 0.94):
            frame = (hazy * light).astype(np.uint8)
            a, b = video.restore(frame), expected.restore(frame)
            assert np.abs(a.image - b.image).max() < 1e-4
        assert b.steering is not None and b.steering.hold.max() > 0.8


def test_measnet_run_holds_a_clip_steady_on_an_engine(
    bench: Bench, steerable: bytes, clip: MakeClip, tmp_path: Path
) -> None:
    shown = clip("a.mp4", size="160x128", seconds=0.16, audio=False)
    plain = bench.engine()
    for engine, status in ((bench.engine(content=steerable), 0), (plain, 2)):
        out = tmp_path / f"{engine.stem}.mp4"
        arguments = [str(shown), "--model", str(engine), "-o", str(out), "--preset", "ultrafast"]
        result = CliRunner().invoke(main, [*arguments, "--steady", "0.9"])
        assert result.exit_code == status, result.output
        assert out.exists() == (status == 0)
    assert "a graph or an engine made with --steerable" in result.stderr


def test_an_engine_that_is_not_as_steerable_as_it_says_is_refused(bench: Bench, steerable: bytes) -> None:
    says = {e.key: e.value for e in onnx.load_model_from_string(steerable).metadata_props}
    with pytest.raises(
        EngineError, match="a steerable MEASNet engine takes 'image', 'window', 'held', 'hold'"
    ):
        bench.backend(bench.engine(graph=says))
    del says["measnet.steerable"]
    with pytest.raises(EngineError, match="a MEASNet engine takes 'image' and returns 'restored'"):
        bench.backend(bench.engine(content=steerable, graph=says))


def test_frames_on_the_gpu_are_not_for_a_steerable_engine(
    bench: Bench, steerable: bytes, images: list[Image]
) -> None:
    backend = bench.backend(bench.engine(content=steerable))
    with pytest.raises(UsageError, match="is steerable: its decisions go through the host") as refusal:
        backend.infer_device(images[0], images[0], 0)
    assert "\n" not in str(refusal.value)
