"""Degradations of sequences: a chain says what was done, and the same is done every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation.small_sequences import moving

from measnet.errors import UsageError
from measnet.evaluation.video.as_run import read_frames
from measnet.evaluation.video.degrade import (
    CodecStep,
    FrameStep,
    coded,
    degrade_frames,
    encode,
    parse_chain,
)
from measnet.metrics import psnr


def degraded(text: str, frames: list[np.ndarray], seed: int = 0, name: str = "x") -> list[np.ndarray]:
    steps = [step for step in parse_chain(text) if isinstance(step, FrameStep)]
    return list(degrade_frames(frames, steps, seed=seed, name=name))


def test_a_chain_is_read_in_its_order() -> None:
    chain = parse_chain("sensor:18, h264:28,noise:5")
    assert [step.text for step in chain] == ["sensor:18", "h264:28", "noise:5"]
    assert [isinstance(step, CodecStep) for step in chain] == [False, True, False]
    assert coded(chain) and not coded(chain[2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snow:3", "there is no degradation 'snow'; there are noise:SIGMA"),
        ("", "there is no degradation ''"),
        ("noise", "--degrade noise: it is noise:SIGMA (0 to 255"),
        ("noise:many", "it is noise:SIGMA"),
        ("noise:nan", "it is noise:SIGMA"),
        ("noise:-1", "it is noise:SIGMA"),
        ("sensor:0.01/", "it is sensor:SIGMA (0 to 255) or sensor:SHOT/READ"),
        ("sensor:18,h264:99", "--degrade h264:99: it is h264:CRF (0 to 51)"),
        ("hevc:2.5", "it is hevc:CRF (0 to 51)"),
        ("sensor:18,,h264:28", "there is no degradation ''"),
    ],
)
def test_what_is_no_chain_is_refused_with_what_there_is(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_chain(text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_noise_has_its_sigma_and_is_new_in_every_frame() -> None:
    grey = [np.full((200, 200, 3), 128, np.uint8)] * 2
    for text in ("noise:20", "sensor:20"):
        first, second = (frame.astype(float) for frame in degraded(text, grey))
        assert first.std() == pytest.approx(20, rel=0.03)
        assert abs(np.corrcoef((first - 128).ravel(), (second - 128).ravel())[0, 1]) < 0.02
    assert degraded("sensor:20", grey)[0].mean() == pytest.approx(128, abs=0.3)


def test_shot_noise_grows_with_light() -> None:
    frame = np.full((100, 200, 3), 20, np.uint8)
    frame[:, 100:] = 200
    (noisy,) = degraded("sensor:0.01/0.001", [frame])
    assert noisy[:, 100:].std() > 2 * noisy[:, :100].std()


def test_a_frames_noise_depends_on_no_other_frame() -> None:
    frames = moving(4)
    few, all_of_them = degraded("noise:25", frames[:2]), degraded("noise:25", frames)
    assert all(np.array_equal(a, b) for a, b in zip(few, all_of_them, strict=False))
    assert not np.array_equal(few[0], degraded("noise:25", frames, seed=1)[0])
    assert not np.array_equal(few[0], degraded("noise:25", frames, name="y")[0])


def test_haze_stands_still_and_is_denser_towards_the_top() -> None:
    first, second = degraded("haze:2", [np.zeros((60, 40, 3), np.uint8)] * 2)
    assert np.array_equal(first, second)
    rows = first.mean(axis=(1, 2))
    assert (np.diff(rows) <= 0).all() and rows[0] > 150 and rows[-1] == 0


def test_low_light_is_dark() -> None:
    (dark,) = degraded("lowlight:0.05", [np.full((60, 40, 3), 200, np.uint8)])
    assert 20 < dark.mean() < 80


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_coder_gives_the_same_frames_every_time_and_keeps_their_number(codec: str, tmp_path: Path) -> None:
    clean = degraded("sensor:10", moving(12))
    fine, coarse = (parse_chain(f"{codec}:{crf}")[0] for crf in (15, 40))
    assert isinstance(fine, CodecStep) and isinstance(coarse, CodecStep)
    results = []
    for number, step in enumerate((fine, fine, coarse)):
        encode(clean, tmp_path / f"{number}.mkv", step)
        results.append(list(read_frames(tmp_path / f"{number}.mkv")))
    assert [len(one) for one in results] == [12, 12, 12]
    assert np.array_equal(results[0], results[1])
    means = [np.mean([psnr(a, b, 255) for a, b in zip(one, clean, strict=True)]) for one in results]
    assert means[0] > means[2] + 3


def test_coding_leaves_grey_as_bright_as_it_was(tmp_path: Path) -> None:
    step = parse_chain("h264:10")[0]
    assert isinstance(step, CodecStep)
    encode([np.full((48, 64, 3), 130, np.uint8)] * 3, tmp_path / "x.mkv", step)
    assert [frame.mean() for frame in read_frames(tmp_path / "x.mkv")] == pytest.approx([130] * 3, abs=0.6)
