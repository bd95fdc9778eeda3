"""Light that changes within a scene: no flash in a fade, and a dark scene is lightened all the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.evaluation.video.as_run import read_frames
from measnet.image import Pixels
from measnet.runtime import cli
from measnet.runtime.temporal import TemporalFusion

HEIGHT, WIDTH = 96, 128


def scene(light: float) -> np.ndarray:
    """A picture of that mean, levels."""
    rough = np.random.default_rng(4).uniform(0.3, 1.7, (8, 10, 3))
    picture = cv2.resize(rough, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return picture * (light / picture.mean())


def pixels(levels: np.ndarray, bits: int = 8) -> Pixels:
    kind, scale = (np.uint8, 1) if bits == 8 else (np.uint16, 257)
    return np.rint(np.clip(levels, 0, 255) * scale).astype(kind)


def lightened(frame: Pixels) -> Pixels:
    """As a network does it that takes every dark frame for one taken in the dark."""
    most = np.iinfo(frame.dtype).max
    light = frame.mean() * 255 / most
    if light < 1 or light > 80:
        return frame
    return pixels(frame.astype(float) * (130 / light) * 255 / most, 8 if most == 255 else 16)


def fused(sources: list[Pixels], fusion: TemporalFusion | None = None) -> list[Pixels]:
    fusion = fusion or TemporalFusion()
    return [fusion.fuse(source, lightened(source)) for source in sources]


def light(frames: list[Pixels]) -> np.ndarray:
    return np.array([frame.mean() * 255 / np.iinfo(frame.dtype).max for frame in frames])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_fade_from_black_is_no_flash(bits: int) -> None:
    sources = [pixels(scene(110) * min(1, number / 14), bits) for number in range(24)]
    assert light([lightened(source) for source in sources]).max() > 115
    found = fused(sources)
    assert np.abs(light(found) - light(sources)).max() < 3
    for source, frame in zip(sources[3:], found[3:], strict=True):  # nothing is swallowed
        assert np.corrcoef(source[..., 1].ravel(), frame[..., 1].ravel())[0, 1] > 0.97


def cleared(frame: Pixels) -> Pixels:
    """As a network does it that takes pale frames of little contrast for hazy ones."""
    pale = frame.mean() > 140 and 5 < frame.std() < 45
    return pixels((frame.astype(float) - frame.mean()) * 2 + 90) if pale else frame


@pytest.mark.parametrize("back", [False, True], ids=["to white", "from white"])
def test_a_fade_to_white_or_from_it_is_no_dark_flash(back: bool) -> None:
    whiteness = np.clip((np.arange(24) - 4) / 14, 0, 1)
    shares = whiteness[::-1] if back else whiteness
    sources = [pixels(scene(110) * (1 - share) + 255 * share) for share in shares]
    assert light([cleared(source) for source in sources]).min() < 95
    fusion = TemporalFusion()
    found = light(
        [fusion.fuse(source, cleared(source), number == 0) for number, source in enumerate(sources)]
    )
    off = found - light(sources)
    assert np.abs(np.diff(off)).max() < 12 and off.min() > -16


def test_a_hazy_scene_is_cleared_from_its_first_frame_and_a_told_one_at_once() -> None:
    hazy, clear = pixels(scene(110) * 0.4 + 255 * 0.6), pixels(scene(110))
    for fusion, before in ((TemporalFusion(), []), (TemporalFusion(sure=True), [clear])):
        for frame in before:
            fusion.fuse(frame, frame, True)
        found = [fusion.fuse(hazy, cleared(hazy), not before and number == 0) for number in range(3)]
        assert light(found).max() < 100


def test_a_dark_scene_is_lightened_from_its_first_frame() -> None:
    assert light(fused([pixels(scene(20))] * 4)).min() > 110


def test_a_dark_scene_behind_black_is_lightened_once_its_light_rises_no_more() -> None:
    found = light(fused([pixels(scene(0.5))] * 3 + [pixels(scene(20))] * 20))
    assert found[3] < 30 and found[-1] > 110
    assert np.diff(found[3:]).max() < 40, "by steps"


def test_a_video_as_dark_as_black_is_lightened_in_the_end() -> None:
    found = light(fused([pixels(scene(4))] * 130))
    assert found[50] < 6 and found[-1] > 100


def test_a_video_that_is_known_to_be_dark_is_lightened_at_once() -> None:
    found = light(fused([pixels(scene(0.5))] * 3 + [pixels(scene(12))] * 4, TemporalFusion(sure=True)))
    assert found[3:].min() > 110


def test_the_task_low_light_lightens_what_comes_out_of_black(tmp_path: Path) -> None:
    clip, lights = str(tmp_path / "fade.avi"), []
    writer = cv2.VideoWriter(clip, cv2.VideoWriter.fourcc(*"FFV1"), 25, (WIDTH, HEIGHT))
    for number in range(6):
        writer.write(pixels(scene(90) * number / 14))
    writer.release()
    for options in ((), ("--task", "lowlight")):
        out = tmp_path / f"{len(options)}.mkv"
        done = CliRunner().invoke(cli.main, [clip, "-o", str(out), *options])
        assert done.exit_code == 0, done.stderr
        lights.append(light(list(read_frames(out))))
    assert (lights[1][2:] > 2 * lights[0][2:]).all()


def test_a_bright_scene_that_is_cut_to_from_black_stays_as_it_was_restored() -> None:
    sources = [pixels(scene(0))] * 3 + [pixels(scene(70))] * 2
    assert np.array_equal(fused(sources)[3], lightened(sources[3]))


@pytest.mark.parametrize("stop", [2, 9, 17, 20])
def test_a_run_that_goes_on_within_a_fade_makes_the_same_frames(stop: int) -> None:
    sources = [pixels(scene(60) * min(1, number / 14)) for number in range(28)]
    whole, second = TemporalFusion(), TemporalFusion()
    fused(sources[:stop], whole)
    second.set_state(whole.state())
    for one, other in zip(fused(sources[stop:], whole), fused(sources[stop:], second), strict=True):
        assert np.array_equal(one, other)
