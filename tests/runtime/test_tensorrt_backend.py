"""The TensorRT backend, run by a fake TensorRT on a fake GPU: real networks, strict rules, no TensorRT.

What this shows: our calls are in an order that CUDA's and TensorRT's rules allow, and what comes out is what
the network computes. What it cannot show: that TensorRT on a GPU agrees. The fakes are held against the real
packages in test_fakes.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from measnet import BackendError, Restorer, UsageError
from measnet.config import VARIANTS
from measnet.engine_file import EngineFacts, write_engine
from measnet.errors import EngineError, MissingPackageError
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import read_graph
from measnet.gpu import GPU
from measnet.image import ChannelOrder, to_image
from measnet.runtime.backends import Inference
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.tensorrt.device_array import read_device_array, stream_handle
from measnet.runtime.backends.tensorrt.fit import Fit, fit, misfit
from measnet.runtime.backends.tensorrt.lane import STEADY
from measnet.runtime.backends.tensorrt.plan import LoadedPlan
from measnet.weights import bundled

from . import fake_cuda
from .engine_bench import SMALL, Bench
from .fake_cuda import FOREIGN, FakeCuda, cudaError_t

ROOT = Path(__file__).parents[2]
LARGE = ((1, 3, 256, 256), (1, 3, 256, 256), (2, 3, 256, 288))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with Bench(tmp_path, monkeypatch).clean() as made:
        yield made


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Frames of the sample clip, 192x256, uint8."""
    with av.open(str(ROOT / "examples" / "car-park.mp4")) as clip:
        return [
            frame.to_ndarray(format="rgb24")[40:232, 60:316]
            for frame in itertools.islice(clip.decode(video=0), 4)
        ]


@pytest.fixture(scope="module")
def exact() -> Callable[[np.ndarray], Inference]:
    """Restores a batch with the ONNX Runtime backend, to compare with."""
    backend = OnnxRuntimeBackend(bundled("nano", ".onnx"), threads=1)
    backend.activate()
    return backend.infer


@pytest.fixture(scope="module")
def small(frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]) -> tuple[np.ndarray, Inference]:
    """The smallest image that nano takes, and what becomes of it."""
    image = to_image(frames[0][:128, :128])
    return image, exact(image)


def same(a: Inference, b: Inference) -> None:
    assert np.abs(a.restored - b.restored).max() < 1e-5
    assert a.prompt_weights is not None and b.prompt_weights is not None
    assert np.abs(a.prompt_weights - b.prompt_weights).max() < 1e-5
    for name in ("pixel_experts", "image_experts"):
        assert (getattr(a.choices, name) == getattr(b.choices, name)).mean() > 0.999


# What comes out


def test_restored_pictures_are_those_of_onnxruntime(bench: Bench, frames: list[np.ndarray]) -> None:
    path = bench.engine()
    with Restorer(str(path)) as restorer, Restorer("nano") as other:
        for pixels in (frames[0], frames[1][:150, :130], frames[2][:, :201], frames[3][:1, :5], frames[0]):
            a, b = restorer.restore(pixels), other.restore(pixels, apart=True)
            assert a.pixels.shape == pixels.shape
            assert np.abs(a.image - b.image).max() < 1e-5
            assert (a.choices[0].pixel_experts == b.choices[0].pixel_experts).mean() > 0.999
        facts = restorer.description
    assert facts["backend"] == "tensorrt" and facts["provider"] == "NVIDIA Make-believe 9000"
    assert facts["version"] == "TensorRT 10.16.1.11" and facts["weights_sha256"]
    assert bench.cuda.alive() == {}


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_an_engine_for_camera_bytes_is_fed_bytes(
    order: ChannelOrder, bench: Bench, frames: list[np.ndarray]
) -> None:
    graph = camera_graph(read_graph(bundled("nano", ".onnx")), channel_order=order).content
    path = bench.engine([((1, 100, 90, 3), (1, 128, 160, 3), (1, 192, 256, 3))], graph=graph)
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
    path = bench.engine(graph=graph.content, graph_says=metadata)
    with pytest.raises(EngineError, match="says that it takes uint8-nhwc, and takes float32"):
        Restorer(str(path))


def test_tiles_of_several_sizes_come_out_right(bench: Bench, frames: list[np.ndarray]) -> None:
    path = bench.engine([((1, 3, 128, 128), (1, 3, 128, 128), (1, 3, 144, 160))])
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


def test_two_shapes_in_turns_do_not_mix(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend()
    wide, narrow = to_image(frames[0][:128, :160]), to_image(frames[1][:144, :128])
    for _ in range(3):
        same(backend.infer(wide), exact(wide))
        same(backend.infer(narrow), exact(narrow))


# Shapes and profiles


def test_a_profile_is_chosen_and_changed_by_the_frame(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
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
        assert str(refusal.value) == (
            "this engine takes frames of 1x3x128x128 to 1x3x192x256 or 1x3x256x256 to 2x3x256x288, this is "
            "one of 1x3x128x304 (a batch's dimensions); build one for it with measnet-export engine, or "
            "add --tile 256"
        )
        assert restorer(frames[0]).shape == frames[0].shape  # and it goes on
        with pytest.raises(UsageError, match="of 3x3x128x128"):
            restorer._backend.infer(np.zeros((3, 3, 128, 128), np.float32))


# CUDA graphs


def test_a_steady_shape_is_captured_once_and_recaptured_after_a_change(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend()
    images = [to_image(pixels[:128, :160]) for pixels in frames]
    expected = [exact(image) for image in images]

    def run(count: int) -> int:
        """Restores ``count`` frames; returns how many came by a graph."""
        before = len(bench.cuda.launches)
        for index in range(count):
            same(backend.infer(images[index % 4]), expected[index % 4])
        return bench.cuda.launches[before:].count("graph of network")

    assert run(12) >= 12 - STEADY - 1
    assert bench.cuda.alive()["graph"] == 1 and backend.facts["cuda_graphs"] == "1 captured"
    backend.infer(to_image(frames[0][:144, :160]))  # another shape: the graph is void
    assert "graph" not in bench.cuda.alive()
    assert run(12) >= 12 - STEADY - 1
    assert backend.facts["cuda_graphs"] == "2 captured"


def test_shapes_that_keep_changing_are_never_captured(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    for width in (128, 144, 160) * 3:
        backend.infer(to_image(frames[0][:128, :width]))
    assert backend.facts["cuda_graphs"] == "none captured yet"


def test_an_engine_that_cannot_be_captured_runs_without(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend(bench.engine(capturable=False))
    image = to_image(frames[0][:128, :128])
    for _ in range(STEADY + 3):
        same(backend.infer(image), exact(image))
    assert re.match("not used: TensorRT failed .* not permitted when stream is", backend.facts["cuda_graphs"])
    assert bench.cuda.calls.count("cudaStreamBeginCapture") == 1  # it is not tried again and again


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_capture_that_cuda_refuses_costs_no_frame(
    call: str, bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend()
    bench.cuda.fail(call, cudaError_t.cudaErrorStreamCaptureUnsupported)
    image = to_image(frames[0][:128, :128])
    for _ in range(STEADY + 3):
        same(backend.infer(image), exact(image))
    assert backend.facts["cuda_graphs"].startswith("not used: CUDA failed at")


# Threads


def test_every_thread_has_a_context_and_streams_of_its_own(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
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
    assert bench.trt.contexts == 3  # this thread's, which activated it, and theirs
    assert bench.cuda.alive()["stream"] == 3


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


# When it goes wrong


def test_out_of_memory_says_what_is_there_and_leaves_it_usable(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend(bench.engine([SMALL, LARGE]))
    small = to_image(frames[0][:128, :128])
    same(backend.infer(small), exact(small))
    bench.cuda.memory = 1 << 20
    with pytest.raises(
        BackendError, match=r"out of memory: \d+ MiB on the GPU cannot be had \(\d+ MiB of 1 "
    ):
        backend.infer(np.zeros((2, 3, 256, 288), np.float32))
    same(backend.infer(small), exact(small))


def test_too_little_memory_to_begin_with_leaves_nothing_behind(bench: Bench) -> None:
    bench.cuda.memory = 10_000
    with pytest.raises(BackendError, match="out of memory"):
        bench.backend()
    assert bench.cuda.alive() == {} and bench.trt.contexts == 0


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("cudaMalloc", 0), ("cudaMalloc", 2), ("cudaMallocHost", 0), ("cudaFree", 0), ("cudaFreeHost", 0),
        ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 2), ("cudaStreamSynchronize", 0), ("cudaGraphLaunch", 0),
        ("cudaStreamBeginCapture", 0), ("cudaStreamEndCapture", 0), ("cudaGraphInstantiate", 0),
        ("cudaGraphDestroy", 0), ("cudaGraphExecDestroy", 0),
    ],
)  # fmt: skip
def test_any_call_may_fail_at_any_frame(
    call: str, after: int, bench: Bench, frames: list[np.ndarray], small: tuple[np.ndarray, Inference]
) -> None:
    """One BackendError at most, nothing used after it was freed, and the next frame is right."""
    backend = bench.backend()
    image, right = small
    bench.leaks = {
        "cudaFree": {"device"},
        "cudaFreeHost": {"pinned"},
        "cudaGraphDestroy": {"captured"},
        "cudaGraphExecDestroy": {"graph"},
    }.get(call, set())
    failed = 0
    for steady in (0, STEADY, STEADY + 2):
        for frame in (to_image(frames[0][:144, :160]), image):  # larger buffers; another shape, or the same
            bench.cuda.fail(call, cudaError_t.cudaErrorInvalidValue, after)
            with contextlib.suppress(BackendError):
                backend.infer(frame)
            failed += not bench.cuda.faults[call]
            bench.cuda.faults.clear()
            for _ in range(steady):
                same(backend.infer(image), right)
    assert failed or call in ("cudaFree", "cudaFreeHost")  # memory only grows, and once was enough


def test_a_failed_execution_says_what_tensorrt_said(
    bench: Bench, frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]
) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    bench.trt.fail_execution = 1
    with pytest.raises(
        BackendError, match=r"TensorRT failed on frames of \(1, 3, 128, 128\): enqueueV3: make-believe"
    ):
        backend.infer(image)
    same(backend.infer(image), exact(image))


def test_a_lost_gpu_is_said_and_everything_ends_tidily(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    bench.trt.fault_execution = True
    with pytest.raises(BackendError, match=r"cudaErrorIllegalAddress.*; the GPU is lost to this process"):
        backend.infer(image)
    with pytest.raises(BackendError, match="the GPU is lost"):
        backend.infer(image)
    backend.deactivate()


def test_deactivating_frees_everything(bench: Bench, frames: list[np.ndarray]) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :160])
    for _ in range(STEADY + 2):
        backend.infer(image)
    assert set(bench.cuda.alive()) == {"stream", "event", "graph", "device", "pinned", "context"}
    backend.deactivate()
    assert bench.cuda.alive() == {} and bench.trt.contexts == 0
    backend.deactivate()
    for attempt in (lambda: backend.infer(image), lambda: backend.facts):
        with pytest.raises(BackendError, match="not active"):
            attempt()
    backend.activate()
    backend.infer(image)


# Engines from elsewhere


def test_a_plan_that_is_not_ours_is_refused_with_what_builds_one(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "raw.engine").write_bytes(b"ftrt" + bytes(1000))
    with pytest.raises(
        EngineError, match=r"no engine file of ours.*build one with: measnet-export engine GRAPH"
    ):
        Restorer(str(tmp_path / "raw.engine"))


def test_a_damaged_engine_never_reaches_tensorrt(bench: Bench) -> None:
    path = bench.engine()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is damaged"):
        bench.backend(path)


def test_an_engine_for_another_machine_says_for_which_and_what_is_here(bench: Bench) -> None:
    path = bench.engine(compute_capability="12.0", gpu="NVIDIA Elsewhere 5090")
    with pytest.raises(EngineError) as refusal:
        bench.backend(path)
    assert str(refusal.value) == (
        f"{path} does not run here: the engine was built for TensorRT 10.16.1.11 on NVIDIA Elsewhere 5090, "
        "compute capability 12.0, driver 580.1, CUDA 13.0; this machine has TensorRT 10.16.1.11 on NVIDIA "
        "Make-believe 9000, compute capability 8.9; build it here with: measnet-export engine GRAPH "
        "--with tensorrt"
    )


def test_a_machine_without_a_gpu_says_so(bench: Bench) -> None:
    bench.cuda.devices = 0
    with pytest.raises(EngineError, match=r"built for TensorRT 10.16.* this machine shows no GPU"):
        bench.backend()


HERE = GPU("NVIDIA A", "8.9", "580.1", "13.0")
PORTABLE = {"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}


@pytest.mark.parametrize(
    ("facts", "version", "fits"),
    [
        ({}, "10.16.1.11", True),
        ({}, "10.16.2.0", False),
        ({"settings": {"version_compatible": True}}, "10.17.0.1", True),
        ({"settings": {"version_compatible": True}}, "11.4.1.9", True),
        ({"settings": {"version_compatible": True}}, "10.12.0.3", False),
        ({"settings": {"version_compatible": True}, "flavour_version": "11.1.0.1"}, "12.0.0.0", False),
        ({"gpu": "NVIDIA B"}, "10.16.1.11", False),
        (
            {"gpu": "NVIDIA B", "settings": {"hardware_compatible": "same-compute-capability"}},
            "10.16.1.11",
            True,
        ),
        (
            {"compute_capability": "8.0", "settings": {"hardware_compatible": "ampere-plus"}},
            "10.16.1.11",
            True,
        ),
        ({"compute_capability": "8.6"}, "10.16.1.11", False),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}, "1.7.1", True),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": "NVIDIA B"}, "1.7.1", True),
        ({**PORTABLE, "compute_capability": "8.0 8.6 8.9 12.0"}, "1.7.1", True),
        ({**PORTABLE, "compute_capability": "8.6 12.0"}, "1.7.1", False),
        ({"flavour": "tensorrt-rtx", "flavour_version": "1.7.1", "gpu": ""}, "1.8.0", False),
        ({"driver": "570.0", "cuda": "12.8"}, "10.16.1.11", True),
    ],
)
def test_which_engines_run_where(facts: dict[str, Any], version: str, fits: bool) -> None:
    built = EngineFacts(
        graph_sha256="",
        graph={},
        calibration_sha256="",
        profiles=(),
        settings={},
        measnet_version="",
        flavour="tensorrt",
        flavour_version="10.16.1.11",
        compute_capability="8.9",
        gpu="NVIDIA A",
        driver="580.1",
        cuda="13.0",
    )
    assert (misfit(replace(built, **facts), HERE, version) is None) == fits


def test_a_version_compatible_plan_may_bring_its_runtime_and_no_other(bench: Bench) -> None:
    bench.backend(bench.engine(settings={"version_compatible": True}, needs_host_code=True))
    with pytest.raises(BackendError, match="engine_host_code_allowed is not set"):
        bench.backend(bench.engine(needs_host_code=True))


def test_a_plan_that_tensorrt_refuses_leads_to_its_own_words(bench: Bench) -> None:
    path = bench.engine()
    write_engine(path, TensorRTBackend(path)._read()[0], b"nonsense")
    with pytest.raises(BackendError, match=r"TensorRT does not load the engine: IRuntime::.*magicTag"):
        bench.backend(path)


def test_an_engine_of_something_else_is_refused(bench: Bench) -> None:
    with pytest.raises(EngineError, match="takes 'image' and returns 'restored'"):
        bench.backend(bench.engine(names={"image": "pixels"}))
    with pytest.raises(BackendError, match="no execution context: createExecutionContext: out of memory"):
        bench.backend(bench.engine(no_context=True))


def test_missing_packages_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = bench.engine()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'measnet\[tensorrt\]'"):
        bench.backend(path)
    bench.trt.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingPackageError, match="cuda-python"):
        bench.backend(path)
    with pytest.raises(EngineError, match="for 'abacus'"):
        bench.backend(bench.engine(flavour="abacus"))


# Which backend runs what


def test_engines_select_tensorrt_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    path.touch()
    assert isinstance(choose_backend(str(path)), TensorRTBackend)
    assert isinstance(choose_backend(str(path), "tensorrt"), TensorRTBackend)
    for backend in ("torch", "onnxruntime", "onnxruntime-cuda"):
        with pytest.raises(UsageError, match="an engine, which the tensorrt backend runs"):
            choose_backend(str(path), backend)
    with pytest.raises(UsageError, match=r"runs engines.*measnet-export engine nano"):
        choose_backend("nano", "tensorrt")
    with pytest.raises(UsageError, match="nor a file that exists"):
        choose_backend("missing.engine")


# Frames that are on the GPU already


class OnGpu:
    """An array of another library, in the fake GPU's memory."""

    def __init__(self, cuda: FakeCuda, values: np.ndarray, offset: int = 0, **interface: Any) -> None:
        _, self.pointer = fake_cuda.cudaMalloc(cuda, values.nbytes + offset)
        self.pointer += offset
        fake_cuda.write_memory(self.pointer, values.tobytes())
        self.like = values
        self._interface = interface

    def values(self) -> np.ndarray:
        content = fake_cuda.read_memory(self.pointer, self.like.nbytes)
        return np.frombuffer(content, self.like.dtype).reshape(self.like.shape)

    def free(self, cuda: FakeCuda) -> None:
        for block in cuda.blocks:
            block.freed |= block.address <= self.pointer < block.address + block.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.like.shape,
            "typestr": self.like.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            **self._interface,
        }


class ByDlpack:
    """The same array, known by DLPack alone: NumPy's capsule, with the device of a GPU written into it."""

    def __init__(self, array: OnGpu, strides: Sequence[int] | None = None) -> None:
        raw = (ctypes.c_uint8 * array.like.nbytes).from_address(array.pointer)
        self.view = np.frombuffer(memoryview(raw), array.like.dtype).reshape(array.like.shape)
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: Any = None) -> Any:
        self.asked.append(stream)
        return self.view.__dlpack__()


@pytest.fixture
def guest(bench: Bench) -> Iterator[SimpleNamespace]:
    """A program with a stream and an image of its own on the GPU."""
    program = SimpleNamespace(arrays=[], cuda=bench.cuda)
    bench.cuda.make_current(fake_cuda.PRIMARY)
    program.stream = bench.cuda._open("stream")

    def array(values: np.ndarray, **more: Any) -> OnGpu:
        made = OnGpu(bench.cuda, values, **more)
        program.arrays.append(made)
        return made

    program.array = array
    yield program
    for made in program.arrays:
        made.free(bench.cuda)
    bench.cuda.handles.pop(program.stream.number, None)


@pytest.mark.parametrize("how", ["interface", "dlpack"])
def test_a_frame_on_the_gpu_is_restored_where_it_is(
    how: str,
    bench: Bench,
    guest: SimpleNamespace,
    frames: list[np.ndarray],
    exact: Callable[[np.ndarray], Inference],
) -> None:
    backend = bench.backend()
    for pixels, width in zip(frames, (128, 160, 160, 144), strict=True):
        image = to_image(pixels[:128, :width])
        theirs, result = guest.array(np.zeros_like(image)), guest.array(np.zeros_like(image))

        def fill(address: int = theirs.pointer, content: bytes = image.tobytes()) -> None:
            fake_cuda.write_memory(address, content)

        span = [(theirs.pointer, image.nbytes)]
        bench.cuda.enqueue(guest.stream, "their decoder", fill, writes=span)
        before = len(bench.cuda.launches)
        handed, into = (theirs, result) if how == "interface" else (ByDlpack(theirs), ByDlpack(result))
        backend.infer_device(handed, into, int(guest.stream))
        launched = [what for what in bench.cuda.launches[before:] if what != "wait"]
        assert launched == ["network"]  # nothing is copied
        assert bench.cuda.pending  # and nobody waited
        bench.cuda.complete(bench.cuda.enqueue(guest.stream, "their encoder", reads=[(result.pointer, 4)]))
        assert np.abs(result.values() - exact(image).restored).max() < 1e-5
        if isinstance(handed, ByDlpack):
            assert handed.asked == [int(guest.stream)]
    same(backend.infer(image), exact(image))  # the host's frames go on beside them


def test_frames_on_the_gpu_that_do_not_fit_are_refused(bench: Bench, guest: SimpleNamespace) -> None:
    backend = bench.backend()
    image = np.zeros((1, 3, 128, 128), np.float32)
    good = guest.array(image)
    stream = int(guest.stream)
    for wrong, said in (
        (image, r"is not on the first GPU \(DLPack device 1, number 0\)"),
        ("picture", "a str, which has neither __cuda_array_interface__ nor __dlpack__"),
        (guest.array(image.astype(np.float64)), "the image is float64, this engine takes float32"),
        (guest.array(image, strides=(196608, 4, 1536, 12)), "the image is not contiguous"),
        (guest.array(image, offset=4), "not a multiple of 256"),
        (guest.array(image[:, :, :64]), "this engine takes frames of .* this is one of 1x3x64x128"),
        (guest.array(image[0]), "this is one of 3x128x128"),
        (guest.array(image, mask=3), "has a mask"),
    ):
        with pytest.raises(UsageError, match=said):
            backend.infer_device(wrong, good, stream)
    for wrong, said in (
        (guest.array(image[:, :, :64]), r"the result is float32 \(1, 3, 128, 128\); the array for it is"),
        (guest.array(image, data=(good.pointer, True)), "and read-only"),
    ):
        with pytest.raises(UsageError, match=said):
            backend.infer_device(good, wrong, stream)
    with pytest.raises(UsageError, match="no CUDA stream; give its handle"):
        backend.infer_device(good, good, object())


def test_a_producers_own_stream_is_waited_for(bench: Bench, guest: SimpleNamespace) -> None:
    backend = bench.backend()
    image = np.zeros((1, 3, 128, 128), np.float32)
    producer = bench.cuda._open("stream")
    theirs = guest.array(image, stream=producer.number)
    result = guest.array(image)
    bench.cuda.enqueue(producer, "their decoder", writes=[(theirs.pointer, image.nbytes)])
    backend.infer_device(theirs, result, int(guest.stream))  # a Violation if it were not
    bench.cuda.complete(guest.stream.last)
    del bench.cuda.handles[producer.number]


def test_a_context_of_ones_own_is_refused_with_the_remedy(bench: Bench, guest: SimpleNamespace) -> None:
    backend = bench.backend()
    image = np.zeros((1, 3, 128, 128), np.float32)
    good = guest.array(image)
    bench.cuda.make_current(FOREIGN)  # as pycuda.autoinit does
    theirs = guest.array(image)
    with pytest.raises(BackendError, match=r"another CUDA context .* is current .*pycuda.autoinit"):
        backend.infer_device(theirs, good, int(guest.stream))
    with pytest.raises(BackendError, match=r"pycuda.autoinit"):
        TensorRTBackend(backend.engine).activate()
    bench.cuda.make_current(fake_cuda.PRIMARY)
    with pytest.raises(BackendError, match=r"the image belongs to another CUDA context"):
        backend.infer_device(theirs, good, int(guest.stream))


def test_streams_are_known_by_number_or_by_protocol() -> None:
    assert stream_handle(0) == 0 and stream_handle(77) == 77
    assert stream_handle(SimpleNamespace(__cuda_stream__=lambda: (0, 78))) == 78
    for wrong in (-1, True, None, "0"):
        with pytest.raises(UsageError):
            stream_handle(wrong)


def test_numpys_dlpack_is_read_as_numpy_means_it() -> None:
    class Reported:
        def __init__(self, values: np.ndarray) -> None:
            self.values = values

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: Any) -> Any:
            return self.values.__dlpack__()

    whole = np.zeros(4096 + 64, np.uint8)
    start = -whole.ctypes.data % 256
    for dtype in (np.uint8, np.float16, np.float32, np.int64, np.bool_):
        values = whole[start : start + 24 * np.dtype(dtype).itemsize].view(dtype).reshape(2, 3, 4)
        found = read_device_array(Reported(values), "it", 5)
        assert (found.pointer, found.shape, found.dtype) == (values.ctypes.data, (2, 3, 4), values.dtype)
    with pytest.raises(UsageError, match="not contiguous"):
        read_device_array(Reported(values[:, :, ::2]), "it", 5)
    gc.collect()


def test_tensorrt_rtx_itself_refuses_in_a_sentence_of_ours() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    import tensorrt_rtx as trt

    with pytest.raises(BackendError, match=r"TensorRT does not load the engine: IRuntime::deserialize.*"):
        LoadedPlan(trt, b"no plan at all" * 10, host_code=False)


def test_the_smallest_size_of_nano_is_what_these_tests_take_it_for() -> None:
    assert VARIANTS["nano"].size_rule.fit(1, 1) == (128, 128)
