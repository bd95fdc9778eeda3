"""Every frame is looked at: certain faults are seen, real pictures raise none, the run answers as asked."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet.errors import BackendError
from measnet.image import Pixels
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.guard import Guard, safer_than
from measnet.runtime.health import STILL_FRAMES, Health
from measnet.runtime.options import OnFault
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.tiles import Tile

from .conftest import MakeClip, decode
from .identity import IdentityRestorer, given_back


@pytest.fixture
def moving(clip: MakeClip) -> Pixels:
    return decode(clip("plain.mp4"))


def black(pixels: Pixels) -> Pixels:
    return np.zeros_like(pixels)


class Engine:
    """Spoils the frames from number ``spoilt`` on."""

    def __init__(self, spoil: Callable[[Pixels], Pixels], spoilt: int = 0) -> None:
        self.description: dict[str, Any] = {"backend": "tensorrt", "precision": "int8"}
        self.closed = False
        self._spoil = spoil
        self._left = spoilt

    def restore(self, pixels: Pixels) -> RestoredFrame:
        self._left -= 1
        return given_back(self._spoil(pixels) if self._left < 0 else pixels)

    def close(self) -> None:
        self.closed = True


def guarded(engine: Any, on_fault: OnFault, safer: Callable[[], Any]) -> Guard:
    return Guard(engine, on_fault, safer)


def restored(guard: Guard, pixels: Pixels) -> Pixels:
    passing = Restoration(Frame(pixels, 0, Fraction(1, 25)), pixels)
    guard.take(passing)
    return passing.pixels


def sound() -> Engine:
    return Engine(lambda pixels: pixels)


def no_engine() -> None:
    return None


@pytest.mark.parametrize("deep", [False, True])
def test_black_and_empty_results_are_seen_where_the_source_shows_something(
    moving: Pixels, deep: bool
) -> None:
    frame = moving[0].astype(np.uint16) * 257 if deep else moving[0]
    assert Health().fault_in(np.zeros_like(frame), frame) == "it is black"
    assert Health().fault_in(np.full_like(frame, frame.max() // 2), frame) == "there is no picture in it"
    assert Health().fault_in(np.zeros_like(frame), np.zeros_like(frame)) is None
    assert Health().fault_in(frame, frame) is None


def test_a_frozen_result_is_seen_and_a_still_scene_is_not_one(moving: Pixels) -> None:
    health = Health()
    found = [health.fault_in(moving[0], frame) for frame in moving[: STILL_FRAMES + 2]]
    assert found[:STILL_FRAMES] == [None] * STILL_FRAMES
    assert found[STILL_FRAMES] == f"it has not changed for {STILL_FRAMES} frames while the source moved"
    still = Health()
    assert all(still.fault_in(moving[0], moving[0]) is None for _ in range(10))


def test_real_footage_restored_by_the_bundled_weights_raises_no_fault() -> None:
    frames = decode(Path(__file__).parents[2] / "examples" / "car-park.mp4")[:4, ::3, ::3]
    health = Health()
    with Restorer("nano") as restorer:
        assert [health.fault_in(restorer(np.ascontiguousarray(frame)), frame) for frame in frames] == [
            None
        ] * 4


def test_a_fault_is_restored_again_by_the_safer_engine_and_so_is_all_that_follows(moving: Pixels) -> None:
    safe = sound()
    guard = guarded(Engine(black, spoilt=2), "fallback", lambda: safe)
    for frame in moving[:5]:
        assert np.array_equal(restored(guard, frame), frame)
    assert guard.faults.for_report() == {
        "frames": 1,
        "first": 2,
        "what": "it is black",
        "fallback": safe.description,
    }
    guard.close()
    assert safe.closed


def test_an_engine_that_fails_is_replaced_like_one_that_errs(moving: Pixels) -> None:
    def fail(pixels: Pixels) -> Pixels:
        raise BackendError("the GPU is lost")

    guard = guarded(Engine(fail), "fallback", sound)
    assert np.array_equal(restored(guard, moving[0]), moving[0])
    assert guard.faults.what == "the GPU is lost"
    with pytest.raises(BackendError, match=r"frame 0 came back wrong from tensorrt int8: the GPU is lost"):
        restored(guarded(Engine(fail), "ignore", sound), moving[0])


@pytest.mark.parametrize(("on_fault", "safer"), [("stop", sound), ("fallback", no_engine)])
def test_where_there_is_no_way_on_the_run_stops_with_one_sentence(
    moving: Pixels, on_fault: Any, safer: Any
) -> None:
    guard = guarded(Engine(black, spoilt=1), on_fault, safer)
    restored(guard, moving[0])
    with pytest.raises(BackendError, match="frame 1 came back wrong from tensorrt int8: it is black; choose"):
        restored(guard, moving[1])


def test_ignored_faults_are_counted(moving: Pixels) -> None:
    guard = guarded(Engine(black), "ignore", sound)
    for frame in moving[:3]:
        assert not restored(guard, frame).any()
    assert (guard.faults.frames, guard.faults.first, guard.faults.fallback) == (3, 0, None)


def test_both_engines_wrong_is_said_of_both(moving: Pixels) -> None:
    guard = guarded(Engine(black), "fallback", lambda: Engine(black))
    with pytest.raises(BackendError, match="it is black; with tensorrt int8 too: it is black"):
        restored(guard, moving[0])


def test_the_engine_fallen_back_to_has_the_tiles_of_the_one_before() -> None:
    height, width = 128, 256
    halves = [Tile(0, 0, height, width // 2), Tile(0, width // 2, height, width - width // 2)]
    with Restorer("nano") as first:
        first.use_tiles(height, width, halves)
        with first.like("nano", "onnxruntime-cpu") as safe:
            assert safe.tiles_for(height, width) == halves


def test_frames_are_numbered_on_where_an_earlier_run_ended(moving: Pixels) -> None:
    guard = guarded(Engine(black, spoilt=1), "stop", no_engine)
    guard.go_on_at(96, None)
    restored(guard, moving[0])
    with pytest.raises(BackendError, match="frame 97 came back wrong"):
        restored(guard, moving[1])
    assert guard.faults.first == 97


@pytest.mark.parametrize("stored", [b"", b"[]", b'{"frames": -1}', b'{"other": 1}', b"[" * 100_000, b"\xff"])
def test_a_state_that_was_tampered_with_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        guarded(sound(), "fallback", no_engine).go_on_at(96, bytes(4) + stored + b"\n")


class Described:
    """A restorer of the bundled weights on something that may err."""

    channel_order = "rgb"
    tile = "auto"

    def __init__(self, **facts: Any) -> None:
        with Restorer("nano") as nano:
            self.description = nano.description | facts

    def like(self, model: str, backend: str) -> Restorer:
        return Restorer(model, backend)


def test_the_same_weights_in_float32_on_the_cpu_are_safer_than_anything_else() -> None:
    safe = safer_than(Described(precision="fp16"), None)  # type: ignore[arg-type]  # what is looked at of one
    assert safe is not None
    assert safe.description["precision"] == "fp32" and safe.description["provider"] == "CPUExecutionProvider"
    safe.close()
    on_gpu = safer_than(Described(provider="CUDAExecutionProvider"), None)  # type: ignore[arg-type]  # as above
    assert on_gpu is not None
    on_gpu.close()


def test_nothing_is_safer_than_that_and_other_weights_are_no_help() -> None:
    assert safer_than(Described(), None) is None  # type: ignore[arg-type]  # as above
    assert safer_than(Described(precision="fp16", weights_sha256="0" * 64), None) is None  # type: ignore[arg-type]  # as above


def test_a_fault_stands_in_the_report_and_a_stop_leaves_no_result(
    measnet_run: Any, clip: MakeClip, tmp_path: Path
) -> None:
    class Black(IdentityRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            return given_back(black(pixels))

    measnet_run = partial(measnet_run, engine=Black)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    answer = measnet_run(clip("plain.mp4"), "-o", out, "--on-fault", "stop")
    assert answer.status == 1 and "it is black" in answer.err and not out.exists()
    answer = measnet_run(clip("plain.mp4"), "-o", out, "--on-fault", "ignore", "--report", report)
    assert answer.status == 0 and "20 frames were, and were written as they came" in answer.err
    assert '"what": "it is black"' in report.read_text()
