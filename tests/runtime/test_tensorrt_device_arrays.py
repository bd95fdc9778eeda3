"""Frames that are on the GPU already: arrays of other libraries, on a fake GPU (``fake_gpu.py``)."""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from measnet import BackendError, UsageError
from measnet.image import to_image
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.tensorrt.device_array import read_device_array, stream_handle

from .engine_bench import Bench, Exact, bench, exact, exact_nano, frames, nano, same
from .fake_gpu import FOREIGN, PRIMARY, FakeGpu

__all__ = ["bench", "exact", "exact_nano", "frames"]


class OnGpu:
    """An array of another library, in the fake GPU's memory."""

    def __init__(self, gpu: FakeGpu, values: np.ndarray, offset: int = 0, **interface: Any) -> None:
        self.block = gpu.allocate("device", values.nbytes + offset)
        self.pointer = self.block + offset
        self.gpu, self.like, self._interface = gpu, values, interface
        self.fill(values)

    def values(self) -> np.ndarray:
        content = self.gpu.at(self.pointer, self.like.nbytes)
        return content.view(self.like.dtype).reshape(self.like.shape).copy()

    def fill(self, values: np.ndarray) -> None:
        self.gpu.at(self.pointer, values.nbytes)[:] = np.frombuffer(values.tobytes(), np.uint8)

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
    """A program with streams and arrays of its own on the GPU."""
    gpu = bench.gpu
    gpu.here.contexts[-1] = PRIMARY
    arrays: list[OnGpu] = []
    streams = [gpu.make("stream") for _ in range(2)]

    def array(values: np.ndarray, **more: Any) -> OnGpu:
        arrays.append(OnGpu(gpu, values, **more))
        return arrays[-1]

    yield SimpleNamespace(array=array, stream=int(streams[0]), other=int(streams[1]))
    for made in arrays:
        gpu.close("device", made.block)
    for stream in streams:
        gpu.close_stream(stream)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("how", ["interface", "dlpack"])
def test_a_frame_on_the_gpu_is_restored_where_it_is(
    how: str,
    eager: bool,
    bench: Bench,
    guest: SimpleNamespace,
    frames: list[np.ndarray],
    exact: Exact,
) -> None:
    backend = bench.backend()
    bench.gpu.eager = eager
    for pixels, width in zip(frames, (128, 160, 160, 144), strict=True):
        image = to_image(pixels[:128, :width])
        theirs, result = guest.array(np.zeros_like(image)), guest.array(np.zeros_like(image))
        bench.gpu.put(guest.stream, [functools.partial(theirs.fill, image)])
        handed, into = (theirs, result) if how == "interface" else (ByDlpack(theirs), ByDlpack(result))
        bench.gpu.calls.clear()
        backend.infer_device(handed, into, guest.stream)
        assert "cudaMemcpyAsync" not in bench.gpu.calls
        if pixels is frames[2]:  # only a new shape waits for the GPU
            assert "cudaStreamSynchronize" not in bench.gpu.calls
        bench.gpu.synchronize(guest.stream)
        assert np.abs(result.values() - exact(image)).max() < 1e-5
        if isinstance(handed, ByDlpack):
            assert handed.asked == [guest.stream]


def test_frames_of_the_host_and_of_the_gpu_go_on_beside_each_other(
    bench: Bench,
    guest: SimpleNamespace,
    frames: list[np.ndarray],
    exact_nano: Exact,
) -> None:
    backend = bench.backend(bench.engine(content=nano()))  # its other outputs go into buffers of ours
    images = [
        to_image(pixels[:128, :width]) for pixels, width in zip(frames, (128, 128, 128, 160), strict=True)
    ]
    results = [guest.array(np.zeros_like(image)) for image in images]
    same(backend.infer(images[0]), exact_nano(images[0]))
    backend.infer_device(guest.array(images[1]), results[1], guest.stream)
    same(backend.infer(images[2]), exact_nano(images[2]))
    for index in (1, 3):  # nobody waits between the two
        backend.infer_device(guest.array(images[index]), results[index], guest.stream)
    bench.gpu.synchronize(guest.stream)
    for index in (1, 3):
        assert np.abs(results[index].values() - exact_nano(images[index])).max() < 1e-5


def test_a_frame_that_is_under_way_is_done_before_its_memory_is_freed(
    bench: Bench, guest: SimpleNamespace
) -> None:
    backend = bench.backend(bench.engine(content=nano()))
    image = np.zeros((1, 3, 128, 128), np.float32)
    result = guest.array(np.full_like(image, np.nan))
    backend.infer_device(guest.array(image), result, guest.stream)
    backend.deactivate()
    assert np.isfinite(result.values()).all()


def test_frames_on_the_gpu_that_do_not_fit_are_refused(bench: Bench, guest: SimpleNamespace) -> None:
    backend = bench.backend()
    image = np.zeros((1, 3, 128, 128), np.float32)
    good = guest.array(image)
    stream = guest.stream
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


def test_a_producers_own_stream_is_waited_for(
    bench: Bench,
    guest: SimpleNamespace,
    frames: list[np.ndarray],
    exact: Exact,
) -> None:
    backend = bench.backend()
    image = to_image(frames[0][:128, :128])
    theirs, result = guest.array(np.zeros_like(image), stream=guest.other), guest.array(np.zeros_like(image))
    bench.gpu.put(guest.other, [lambda: theirs.fill(image)])
    backend.infer_device(theirs, result, guest.stream)
    bench.gpu.synchronize(guest.stream)
    assert np.abs(result.values() - exact(image)).max() < 1e-5


def test_a_context_of_ones_own_is_refused_with_the_remedy(bench: Bench, guest: SimpleNamespace) -> None:
    backend = bench.backend()
    theirs, good = (guest.array(np.zeros((1, 3, 128, 128), np.float32)) for _ in range(2))
    bench.gpu.here.contexts[-1] = FOREIGN  # as pycuda.autoinit does
    with pytest.raises(BackendError, match=r"another CUDA context .* is current .*pycuda.autoinit"):
        backend.infer_device(theirs, good, guest.stream)
    with pytest.raises(BackendError, match=r"pycuda.autoinit"):
        TensorRTBackend(backend.engine).activate()
    bench.gpu.here.contexts[-1] = PRIMARY
    bench.gpu.owners[theirs.pointer] = FOREIGN
    with pytest.raises(BackendError, match=r"the image belongs to another CUDA context"):
        backend.infer_device(theirs, good, guest.stream)


def test_deactivating_leaves_a_context_of_ones_own_current(bench: Bench) -> None:
    backend = bench.backend()
    bench.gpu.here.contexts[-1] = FOREIGN
    backend.deactivate()
    assert bench.gpu.here.contexts == [FOREIGN] and bench.gpu.alive() == {}


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
