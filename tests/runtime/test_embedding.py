"""``Restorer`` inside other programs: streams, threads, asyncio, frames of other libraries, forks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from measnet import BackendError, InputError, Restorer, UsageError
from measnet.image import Image
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.frame_kinds import to_host
from measnet.testing import FakeBackend, FakeFrames, FakeRestorer

from .engine_bench import SMALL, Bench

LIMIT = 60.0
"""Seconds after which a test has failed rather than the machine been slow."""


def threads_called(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


# Streams


def test_a_stream_restores_frames_in_order() -> None:
    restorer = FakeRestorer()
    restored = list(restorer.stream(FakeFrames(20), in_flight=3))
    assert [FakeFrames.number_of(255 - frame) for frame in restored] == list(range(20))
    assert (restored[7] == 255 - FakeFrames(20).frame(7)).all()


def test_a_stream_of_a_real_network_gives_what_calls_give(noisy_picture: np.ndarray) -> None:
    with Restorer("nano", threads=1) as restorer:
        frames = [np.roll(noisy_picture, shift, axis=1) for shift in (0, 5, 11)]
        for restored, frame in zip(restorer.stream(frames), frames, strict=True):
            assert (restored == restorer(frame)).all()


def test_a_stream_reads_no_further_ahead_than_asked() -> None:
    read: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(FakeFrames(9)):
            read.append(number)
            yield frame

    restored = FakeRestorer().stream(frames(), in_flight=3)
    assert read == []
    next(restored)
    assert len(read) == 3
    next(restored)
    assert len(read) == 4
    one_by_one = FakeRestorer().stream(frames(), in_flight=1)
    read.clear()
    next(one_by_one)
    assert len(read) == 1


def test_the_next_frame_is_computed_while_the_caller_has_one() -> None:
    backend = FakeBackend()
    with Restorer("fake", backend, tile="off") as restorer:
        restored = restorer.stream(FakeFrames(3))
        next(restored)
        waited = threading.Event()
        for _ in range(int(LIMIT * 100)):
            if backend.calls == 2 or waited.wait(0.01):
                break
        assert backend.calls == 2
        restored.close()


def test_a_stream_that_is_left_early_ends_its_threads() -> None:
    restored = FakeRestorer(seconds=0.05).stream(FakeFrames(50), in_flight=4)
    next(restored)
    assert threads_called("measnet-stream")
    restored.close()
    assert not threads_called("measnet-stream")
    for _ in FakeRestorer().stream(FakeFrames(50)):
        break  # the generator is closed as it is collected
    assert not threads_called("measnet-stream")


def test_an_error_of_the_engine_comes_in_its_frames_place() -> None:
    restored = FakeRestorer(failing=[2]).stream(FakeFrames(9), in_flight=1)
    assert [FakeFrames.number_of(255 - next(restored)) for _ in range(2)] == [0, 1]
    with pytest.raises(BackendError, match="call 2"):
        next(restored)
    assert next(restored, None) is None and not threads_called("measnet-stream")


def test_an_error_of_the_source_comes_after_the_frames_before_it() -> None:
    frames = FakeFrames(6, lost_before=[4])
    restored = FakeRestorer().stream(frames, in_flight=3)
    assert [FakeFrames.number_of(255 - next(restored)) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="before frame 4"):
        next(restored)
    assert [FakeFrames.number_of(255 - frame) for frame in FakeRestorer().stream(frames)] == [4, 5]


@pytest.mark.parametrize("in_flight", [0, -1, 1.5, "2"])
def test_a_stream_of_no_frames_in_flight_is_refused_at_once(in_flight: object) -> None:
    with pytest.raises(UsageError, match="in_flight"):
        FakeRestorer().stream(FakeFrames(1), in_flight=in_flight)  # type: ignore[arg-type]


# Threads


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "torch"])
def test_threads_that_share_a_restorer_get_what_one_gets(backend: str) -> None:
    rng = np.random.default_rng(0)
    # Larger than a tile: decisions of the whole picture are settled, by a second graph with ONNX Runtime.
    frames = [rng.integers(0, 256, (128, 180 + 2 * index, 3), np.uint8) for index in range(4)]
    with Restorer("nano", backend, tile=128, threads=1) as alone:
        expected = [alone(frame) for frame in frames]
    together = threading.Barrier(4)
    with Restorer("nano", backend, tile=128, threads=1) as shared, ThreadPoolExecutor(4) as threads:

        def restore(frame: np.ndarray) -> np.ndarray:
            together.wait(LIMIT)
            return shared(frame)

        found = list(threads.map(restore, frames))
        assert shared.figures.frames == 4
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_a_stream_is_the_same_where_each_thread_has_a_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noisy_picture: np.ndarray
) -> None:
    frames = [np.roll(noisy_picture, shift, axis=1) for shift in range(3)]
    with Bench(tmp_path, monkeypatch).clean() as bench, Restorer(str(bench.engine([SMALL]))) as restorer:
        restored = list(restorer.stream(frames))
        assert all((one == restorer(frame)).all() for one, frame in zip(restored, frames, strict=True))


def test_closing_waits_for_the_picture_of_another_thread() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def infer(self, images: Image, steering: Steering | None = None) -> Inference:
            begun.set()
            assert may_end.wait(LIMIT)
            return super().infer(images)

    restorer = Restorer("fake", Slow(), tile="off")
    with ThreadPoolExecutor(2) as threads:
        restored = threads.submit(restorer, FakeFrames(1).frame(0))
        assert begun.wait(LIMIT)
        closed = threads.submit(restorer.close)
        may_end.set()
        closed.result(LIMIT)
        assert FakeFrames.number_of(255 - restored.result(LIMIT)) == 0
    with pytest.raises(BackendError, match=r"this Restorer was closed.*make another"):
        restorer(FakeFrames(1).frame(0))


# asyncio


def test_awaited_frames_are_restored_while_the_loop_goes_on() -> None:
    async def main() -> tuple[list[np.ndarray], int]:
        turns = 0
        with FakeRestorer(seconds=0.05) as restorer:
            tasks = [asyncio.ensure_future(restorer.restore_async(frame)) for frame in FakeFrames(4)]
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.001)
                turns += 1
            return [task.result() for task in tasks], turns

    restored, turns = asyncio.run(main())
    assert [FakeFrames.number_of(255 - frame) for frame in restored] == [0, 1, 2, 3]
    assert turns > 4 and not threads_called("measnet-async")


def test_a_cancelled_call_computes_nothing_and_harms_no_other() -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def infer(self, images: Image, steering: Steering | None = None) -> Inference:
            begun.set()
            assert may_end.wait(LIMIT)
            return super().infer(images)

    async def main() -> None:
        backend, frames = Slow(), FakeFrames(9)
        with Restorer("fake", backend, tile="off") as restorer:
            tasks = [asyncio.ensure_future(restorer.restore_async(frame)) for frame in frames]
            await asyncio.to_thread(begun.wait, LIMIT)
            for task in tasks[:8]:
                task.cancel()
            await asyncio.wait(tasks[:8])
            may_end.set()
            assert FakeFrames.number_of(255 - await tasks[8]) == 8
            assert all([task.cancelled() for task in tasks[:8]])
            assert backend.calls <= 3  # two were under way

    asyncio.run(main())


def test_an_awaited_error_reaches_its_caller() -> None:
    async def main() -> None:
        with FakeRestorer(failing=[0]) as restorer:
            with pytest.raises(BackendError, match="call 0"):
                await restorer.restore_async(FakeFrames(1).frame(0))
            with pytest.raises(UsageError, match="uint8"):
                await restorer.restore_async("picture.png")  # type: ignore[type-var]

    asyncio.run(main())


def test_calls_that_wait_when_a_restorer_is_closed_are_told() -> None:
    async def main() -> None:
        restorer = FakeRestorer(seconds=0.05)
        tasks = [asyncio.ensure_future(restorer.restore_async(frame)) for frame in FakeFrames(9)]
        await asyncio.sleep(0)
        await asyncio.to_thread(restorer.close)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[-1], BackendError)

    asyncio.run(main())


# Kinds of frames


class Lent:
    """An array of another library, as DLPack sees it: ``kind`` is where its memory is."""

    def __init__(self, array: np.ndarray, kind: int = 1) -> None:
        self._array = array
        self._kind = kind

    def __dlpack__(self, **options: object) -> object:
        return self._array.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, 0


class OnGPU:
    __cuda_array_interface__ = {"shape": (8, 8, 3), "typestr": "|u1", "data": (4096, False), "version": 3}  # noqa: RUF012


@pytest.mark.parametrize("depth", [torch.uint8, torch.uint16])
def test_a_tensor_comes_back_as_a_tensor(depth: torch.dtype) -> None:
    tensor = torch.arange(8 * 9 * 3).reshape(8, 9, 3).to(depth)
    restored = FakeRestorer()(tensor)
    assert isinstance(restored, torch.Tensor) and restored.dtype == depth
    assert (restored.numpy() == torch.iinfo(depth).max - tensor.numpy()).all()
    (streamed,) = FakeRestorer().stream([tensor])
    assert isinstance(streamed, torch.Tensor)


def test_memory_lent_by_dlpack_is_read_in_place_and_numpy_comes_back() -> None:
    frame = FakeFrames(1).frame(0)
    assert np.shares_memory(to_host(Lent(frame)), frame)
    restored = FakeRestorer()(Lent(frame))
    assert isinstance(restored, np.ndarray) and (restored == 255 - frame).all()


@pytest.mark.parametrize("frame", [OnGPU(), Lent(FakeFrames(1).frame(0), kind=2)], ids=["CUDA", "DLPack"])
def test_a_frame_on_a_gpu_is_refused_with_what_to_do(frame: object) -> None:
    with pytest.raises(UsageError, match=r"on a GPU.*frame\.cpu\(\)"):
        FakeRestorer()(frame)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "frame",
    [
        torch.zeros(8, 8, 3),
        torch.zeros(8, 8, 3, requires_grad=True),
        torch.zeros(8, 8, 3, dtype=torch.bfloat16),
    ],
    ids=["float", "gradient", "bfloat16"],
)
def test_a_tensor_that_is_no_picture_is_refused(frame: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"uint8|cannot read this Tensor"):
        FakeRestorer()(frame)


def test_a_batch_is_its_frames_one_after_another(noisy_picture: np.ndarray) -> None:
    batch = np.stack([noisy_picture, noisy_picture[::-1]])
    with Restorer("nano", threads=1) as restorer:
        restored = restorer(batch)
        assert restored.shape == batch.shape and restored.dtype == np.uint8
        assert all((one == restorer(frame)).all() for one, frame in zip(restored, batch, strict=True))
    assert isinstance(FakeRestorer()(torch.from_numpy(batch)), torch.Tensor)
    with pytest.raises(UsageError, match="shape"):
        FakeRestorer()(batch[:0])


# Figures


def test_frames_and_failures_are_counted() -> None:
    restorer = FakeRestorer(seconds=0.01, failing=[1])
    for frame in FakeFrames(3):
        try:
            restorer(frame)
        except BackendError:
            continue
    figures = restorer.figures
    assert (figures.frames, figures.failed) == (2, 1)
    assert figures.seconds >= 0.02 and 0.01 <= figures.longest <= figures.seconds


# Forks

FORKED = """
import asyncio, os, sys, warnings
from measnet import UsageError
from measnet.testing import FakeFrames, FakeRestorer

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of threads and fork
restorer = FakeRestorer()
streamed = restorer.stream(FakeFrames(9), in_flight=3)
next(streamed)
loop = asyncio.new_event_loop()
loop.run_until_complete(restorer.restore_async(FakeFrames(1).frame(0)))
child = os.fork()
if child == 0:
    refused = 0
    for ask in (
        lambda: next(streamed),
        lambda: next(restorer.stream(FakeFrames(1))),
        lambda: loop.run_until_complete(restorer.restore_async(FakeFrames(1).frame(0))),
        lambda: restorer(FakeFrames(1).frame(0)),
    ):
        try:
            ask()
        except UsageError as error:
            refused += "'spawn'" in str(error)
    sys.exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert FakeFrames.number_of(255 - next(streamed)) == 1
restorer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child_is_refused_by_every_way_in() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


# The stand-ins themselves


@pytest.mark.parametrize("number", [0, 1, 255, 256, 65535])
def test_a_fake_frame_tells_its_number_after_noise(number: int) -> None:
    frame = FakeFrames(65536).frame(number)
    noisy = frame + np.random.default_rng(0).normal(0, 30, frame.shape)
    assert FakeFrames.number_of(noisy.clip(0, 255).astype(np.uint8)) == number


@pytest.mark.parametrize("make", [lambda: FakeFrames(65537), lambda: FakeFrames(1, 3, 96)])
def test_fake_frames_that_cannot_be_numbered_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="numbered"):
        make()
