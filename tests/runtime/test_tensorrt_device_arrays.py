"""Frames that are on the GPU already: arrays of other libraries, by the fakes of test_tensorrt_backend.py."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from measnet import BackendError, UsageError
from measnet.image import to_image
from measnet.runtime.backends import Inference
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.runtime.backends.tensorrt.device_array import read_device_array, stream_handle

from . import fake_cuda
from .engine_bench import Bench, bench, exact, frames, same
from .fake_cuda import FOREIGN, FakeCuda

__all__ = ["bench", "exact", "frames"]


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
