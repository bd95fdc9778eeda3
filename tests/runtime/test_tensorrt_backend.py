"""The TensorRT backend on a fake GPU (``fake_gpu.py``), which computes real networks.

These tests show that our calls are in an order that CUDA's and TensorRT's rules allow, and that the result
is the network's. They cannot show that TensorRT on a GPU agrees.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from measnet import Restorer, UsageError
from measnet.errors import EngineError
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import read_graph
from measnet.image import ChannelOrder, to_image
from measnet.runtime.backends.tensorrt.fit import Fit, fit
from measnet.runtime.backends.tensorrt.lane import STEADY
from measnet.weights import bundled

from .engine_bench import LARGE, SMALL, Bench, Exact, bench, exact, frames, nano, same, small
from .fake_gpu import NAME, TENSORRT

__all__ = ["bench", "exact", "frames", "small"]


# What comes out


def test_restored_pictures_are_those_of_onnxruntime(bench: Bench, frames: list[np.ndarray]) -> None:
    path = bench.engine(content=nano())
    with Restorer(str(path)) as restorer, Restorer("nano") as other:
        for pixels in (frames[0], frames[1][:150, :130], frames[2][:, :201], frames[3][:1, :5], frames[0]):
            a, b = restorer.restore(pixels), other.restore(pixels, apart=True)
            assert a.pixels.shape == pixels.shape
            assert np.abs(a.image - b.image).max() < 1e-5
            for name in ("pixel_experts", "image_experts"):
                assert (getattr(a.choices[0], name) == getattr(b.choices[0], name)).mean() > 0.999
        facts = restorer.description
    assert facts["backend"] == "tensorrt" and facts["provider"] == NAME
    assert facts["version"] == f"TensorRT {TENSORRT}" and facts["weights_sha256"]
    assert bench.gpu.alive() == {}


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_an_engine_for_camera_bytes_is_fed_bytes(
    order: ChannelOrder, bench: Bench, frames: list[np.ndarray]
) -> None:
    graph = camera_graph(read_graph(bundled("nano", ".onnx")), channel_order=order).content
    path = bench.engine([((1, 100, 90, 3), (1, 128, 160, 3), (1, 192, 256, 3))], content=graph)
    with Restorer(str(path)) as restorer, Restorer("nano") as other:
        for pixels in (frames[0], frames[1][:150, :131], frames[2][:101, :201]):
            a, b = restorer.restore(pixels), other.restore(pixels, apart=True)
            assert (a.pixels == b.pixels).all()
            assert (a.choices[0].pixel_experts == b.choices[0].pixel_experts).all()
        # Less than the engine takes is padded before, as far as it must be.
        assert restorer(frames[3][:1, :5]).shape == (1, 5, 3)
        with pytest.raises(UsageError, match="1x3x100x90 to 1x3x192x256"):
            restorer(frames[0][:, :200].repeat(2, axis=1))


def test_an_engine_that_takes_something_else_than_it_says_is_refused(bench: Bench) -> None:
    graph = read_graph(bundled("nano", ".onnx"))
    metadata = graph.description.to_metadata() | {"measnet.io": "uint8-nhwc"}
    path = bench.engine(content=graph.content, graph=metadata)
    with pytest.raises(EngineError, match="says that it takes uint8-nhwc, and takes float32"):
        Restorer(str(path))


def test_tiles_of_several_sizes_come_out_right(bench: Bench, frames: list[np.ndarray]) -> None:
    path = bench.engine([((1, 3, 128, 128), (1, 3, 128, 128), (1, 3, 144, 160))], content=nano())
    with Restorer(str(path), tile=128) as restorer, Restorer("nano", tile=128) as other:
        a, b = restorer.restore(frames[0]), other.restore(frames[0], apart=True)
    assert a.tiles == b.tiles > 1
    assert np.abs(a.image - b.image).max() < 1e-5


def test_results_stay_when_further_frames_come(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    first = backend.infer(to_image(frames[0][:128, :128]))
    kept = first.restored.copy()
    for pixels in frames[1:]:
        backend.infer(to_image(pixels[:128, :128]))
    assert (first.restored == kept).all()


def test_two_shapes_in_turns_do_not_mix(bench: Bench, frames: list[np.ndarray], exact: Exact) -> None:
    backend = bench.backend()
    wide, narrow = to_image(frames[0][:128, :160]), to_image(frames[1][:144, :128])
    for _ in range(3):
        same(backend.infer(wide), exact(wide))
        same(backend.infer(narrow), exact(narrow))


# Shapes and profiles


def test_a_profile_is_chosen_and_changed_by_the_frame(
    bench: Bench, frames: list[np.ndarray], exact: Exact
) -> None:
    backend = bench.backend(bench.engine([SMALL, LARGE]))
    big = np.pad(to_image(frames[0]), ((0, 0), (0, 0), (0, 64), (0, 0)), mode="reflect")
    for image in (to_image(frames[0][:128, :128]), big, to_image(frames[1]), np.concatenate([big, big])):
        same(backend.infer(image), exact(image))


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 3, 128, 144), Fit(0, (1, 3, 128, 144))),
        ((1, 3, 64, 64), Fit(0, (1, 3, 128, 128))),
        ((1, 3, 208, 144), Fit(1, (1, 3, 256, 256))),
        ((2, 3, 128, 128), Fit(1, (2, 3, 256, 256))),
    ],
)
def test_the_profile_with_the_least_padding_is_taken(shape: tuple[int, ...], found: Fit) -> None:
    assert fit(shape, [SMALL, LARGE]) == found


def test_a_frame_that_no_profile_takes_is_refused_with_those_there_are(
    bench: Bench, frames: list[np.ndarray]
) -> None:
    with Restorer(str(bench.engine([SMALL, LARGE]))) as restorer:
        picture = np.zeros((128, 300, 3), np.uint8)
        with pytest.raises(UsageError) as refusal:
            restorer(picture)
        for said in ("1x3x128x128 to 1x3x192x256 or 1x3x256x256 to 2x3x256x288", "1x3x128x304", "--tile 256"):
            assert said in str(refusal.value)
        assert restorer(frames[0]).shape == frames[0].shape  # and it goes on
        with pytest.raises(UsageError, match="of 3x3x128x128"):
            restorer._backend.infer(np.zeros((3, 3, 128, 128), np.float32))


# CUDA graphs


def test_a_steady_shape_is_captured_once_and_recaptured_after_a_change(
    bench: Bench, frames: list[np.ndarray], exact: Exact
) -> None:
    backend = bench.backend()
    images = [to_image(pixels[:128, :160]) for pixels in frames]
    expected = [exact(image) for image in images]

    def run(count: int) -> int:
        """Restores ``count`` frames; returns how many came by a graph."""
        bench.gpu.calls.clear()
        for index in range(count):
            same(backend.infer(images[index % 4]), expected[index % 4])
        return bench.gpu.calls.count("cudaGraphLaunch")

    assert run(12) >= 12 - STEADY - 1
    assert bench.gpu.alive()["graph"] == 1 and backend.facts["cuda_graphs"] == "1 captured"
    backend.infer(to_image(frames[0][:144, :160]))  # another shape: the graph is void
    assert "graph" not in bench.gpu.alive()
    assert run(12) >= 12 - STEADY - 1
    assert backend.facts["cuda_graphs"] == "2 captured"


def test_shapes_that_keep_changing_are_never_captured(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    for width in (128, 144, 160) * 3:
        backend.infer(to_image(frames[0][:128, :width]))
    assert backend.facts["cuda_graphs"] == "none captured yet"


@pytest.mark.parametrize(
    ("call", "frames_before"),
    [
        ("execute_async_v3", STEADY - 1),  # an engine that cannot be recorded; it was tried once before
        ("cudaStreamBeginCapture", 0),
        ("cudaStreamEndCapture", 0),
        ("cudaGraphInstantiate", 0),
    ],
)
def test_a_graph_that_cannot_be_captured_costs_no_frame_and_is_not_tried_again(
    call: str, frames_before: int, bench: Bench, small: tuple[np.ndarray, np.ndarray]
) -> None:
    backend = bench.backend()
    bench.gpu.fail(call, "cudaErrorStreamCaptureUnsupported", after=frames_before)
    for _ in range(STEADY + 3):
        same(backend.infer(small[0]), small[1])
    assert backend.facts["cuda_graphs"].startswith("not used: ")
    assert bench.gpu.calls.count("cudaStreamBeginCapture") == 1


# Threads


def test_every_thread_has_a_context_and_streams_of_its_own(
    bench: Bench, frames: list[np.ndarray], exact: Exact
) -> None:
    backend = bench.backend(bench.engine([SMALL, LARGE]))
    problems: list[BaseException] = []
    started = threading.Barrier(2)

    def work(width: int) -> None:
        try:
            images = [to_image(pixels[:128, :width]) for pixels in frames]
            expected = [exact(image) for image in images]
            started.wait(30)
            for _ in range(3):
                for image, right in zip(images, expected, strict=True):
                    same(backend.infer(image), right)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(width,)) for width in (128, 160)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(bench.gpu.contexts) == 3  # this thread's, which activated it, and theirs
    assert bench.gpu.alive()["stream"] == 3


def test_a_dead_thread_leaves_its_place_to_the_next(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    problems: list[BaseException] = []

    def restore() -> None:
        try:
            backend.infer(image)
        except BaseException as error:
            problems.append(error)

    for _ in range(6):
        thread = threading.Thread(target=restore)
        thread.start()
        thread.join()
    assert problems == []
