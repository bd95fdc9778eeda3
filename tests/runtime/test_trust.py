"""The learnt correction of how far the past is trusted: what it may do, and what its graph computes."""

from __future__ import annotations

import importlib.util
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from measnet.runtime.temporal import TemporalFusion
from measnet.runtime.trust import FILE, LearntTrust, Seen, planes


def seen(height: int = 96, width: int = 128, trust: float = 3.0) -> Seen:
    """A frame and its past, with noise, an edge, and a place where they are not alike."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    clean = np.stack([x, y, np.where(x > y, 200, 60)], axis=2).astype(np.float32)

    def noisy(sigma: float) -> Any:
        return (clean + cv2.GaussianBlur(rng.normal(0, sigma, clean.shape), (0, 0), 1)).astype(np.float32)

    now = noisy(12)
    half = ((height + 1) // 2, (width + 1) // 2)
    mismatch = np.zeros(half, np.float32)
    mismatch[:10] = 2
    return Seen(
        source=(clean + rng.normal(0, 20, clean.shape)).astype(np.float32),
        now=now,
        off=now - noisy(6),
        trust=np.full(half, trust, np.float32),
        usual=np.full(half, 4, np.float32),
        mismatch=mismatch,
        still=np.tile(np.arange(half[1]) < 20, (half[0], 1)),
    )


def clip(frames: int = 8) -> list[tuple[Any, Any]]:
    """Sources and restored frames of a picture that moves by two pixels a frame."""
    rng = np.random.default_rng(1)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (96, 200, 3)), (0, 0), 3) * 3 - 255
    made = []
    for number in range(frames):
        clean = wide[:, 2 * number : 2 * number + 128]
        source, restored = (clean + rng.normal(0, sigma, clean.shape) for sigma in (20, 3))
        made.append((eight_bits(source), eight_bits(restored)))
    return made


def eight_bits(levels: Any) -> Any:
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (64, 66)])
def test_opencv_computes_what_onnx_runtime_does_whatever_the_size(size: tuple[int, int]) -> None:
    what = seen(*size)
    found = planes(what)
    height, width = what.trust.shape
    assert found.shape == (14, height + height % 2, width + width % 2)
    session = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])
    expected = np.exp(session.run(None, {"planes": found[None]})[0][0, 0, :height, :width])
    got = LearntTrust()(what)
    assert got.shape == what.trust.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert got.std() > 0.05  # it says something


@pytest.mark.parametrize("size", [(160, 128), (158, 96)])
def test_strip_by_strip_it_says_the_same(size: tuple[int, int]) -> None:
    what = seen(*size)
    whole, strips = LearntTrust()(what), LearntTrust(at_once=18 * size[1] // 2)(what)
    np.testing.assert_allclose(strips, whole, rtol=1e-4)


def test_where_the_rule_trusts_nothing_the_frame_stays_as_it_is() -> None:
    def none_at_all(what: Seen) -> Any:
        what.trust[:] = 0
        return np.full_like(what.trust, np.exp(3.0))

    frames = clip(2)
    fusion = TemporalFusion(judge=none_at_all)
    for source, restored in frames:
        fused = fusion.fuse(source, restored, new_scene=False)
    assert np.abs(fused.astype(int) - frames[-1][1]).mean() < 0.5  # light over some breadth may be evened


def test_nothing_is_trusted_beyond_the_depth() -> None:
    """However much is asked for: at depth 1 half of a fused frame is the frame's own."""
    rng = np.random.default_rng(2)
    clean = clip(1)[0][1].astype(float)
    first, second = (np.clip(clean + rng.normal(0, 5, clean.shape), 0, 255).astype(np.uint8) for _ in "ab")
    fusion = TemporalFusion(1, judge=lambda what: np.full_like(what.trust, 1e6))
    fusion.fuse(first, first, new_scene=True)
    fused = fusion.fuse(second, second, new_scene=False)
    taken, most = (np.abs(a.astype(int) - second).mean() for a in (fused, first))
    assert 0.3 * most < taken < 0.6 * most


def test_the_learnt_trust_is_the_same_each_time_and_after_a_new_start() -> None:
    frames = clip()
    whole, first, second = TemporalFusion(), TemporalFusion(), TemporalFusion()
    expected = []
    for number, (source, restored) in enumerate(frames):
        expected.append(whole.fuse(source, restored, new_scene=number == 0))
        if number == 4:
            whole.state()
    for number, (source, restored) in enumerate(frames[:5]):
        first.fuse(source, restored, new_scene=number == 0)
    second.set_state(first.state())
    for (source, restored), fused in zip(frames[5:], expected[5:], strict=True):
        assert np.array_equal(second.fuse(source, restored, new_scene=False), fused)


def test_what_it_says_of_one_frame_is_what_it_said_when_it_was_learnt() -> None:
    factor = LearntTrust()(seen())
    found = [float(np.quantile(factor, share)) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    np.testing.assert_allclose(found, GOLDEN, rtol=2e-3)


GOLDEN = [0.1313, 0.341, 0.5531, 0.8758, 1.5732]  # of src/measnet/weights/trust.onnx


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="not installed: tensorrt_rtx; pip install 'measnet[rtx]'",
)
def test_tensorrt_rtx_builds_an_engine_of_it_for_every_size_of_frame() -> None:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(FILE.read_bytes()), [str(parser.get_error(n)) for n in range(parser.num_errors)]
    taken = network.get_input(0)
    profile = builder.create_optimization_profile()
    sizes = ((48, 64), (240, 424), (1080, 1920))  # half of a frame's
    profile.set_shape(taken.name, *((1, taken.shape[1], *size) for size in sizes))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config).nbytes > 0
