"""Frames that help each other: less noise and more detail where nothing moves, and never a ghost."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from measnet.errors import BackendError
from measnet.image import Pixels
from measnet.runtime.finish import Finish
from measnet.runtime.flicker import flicker
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.guard import Guard, safer_than
from measnet.runtime.held_light import HeldLight
from measnet.runtime.restorer import Restorer
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.temporal import TemporalFusion
from measnet.weights import bundled

HEIGHT, WIDTH = 120, 160
SIGMA = 20.0  # of the noise of the sources, levels
LEFT = 4.0  # of what a restoration leaves of it


def scene(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture with edges and fine detail, float levels."""
    rng = np.random.default_rng(seed)
    rough = cv2.resize(rng.uniform(40, 200, (6, 8, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 30)
        cv2.rectangle(
            rough, (int(x), int(y)), (int(x) + 24, int(y) + 18), rng.uniform(30, 220, 3).tolist(), -1
        )
    return np.clip(rough + rng.normal(0, 2, rough.shape), 0, 255)


def pixels(levels: np.ndarray) -> Pixels:
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def psnr(a: Pixels, b: Pixels) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def source_of(clean: np.ndarray, number: int) -> Pixels:
    return pixels(clean + np.random.default_rng(100 + number).normal(0, SIGMA, clean.shape))


def restored_of(clean: np.ndarray, number: int) -> Pixels:
    """As a network's: softer, with blotches that differ from frame to frame."""
    blotches: Any = np.random.default_rng(500 + number).normal(0, 1, clean.shape)
    blotches = cv2.GaussianBlur(blotches, (0, 0), 2)
    return pixels(cv2.GaussianBlur(clean, (0, 0), 1.1) + blotches * (LEFT / blotches.std()))


def smooth_noise(number: int, size: float) -> np.ndarray:
    """As a codec leaves it, or a network makes it of a sound frame; levels."""
    noise: Any = cv2.GaussianBlur(
        np.random.default_rng(900 + number).normal(0, 1, (HEIGHT, WIDTH, 3)), (0, 0), 1.5
    )
    return np.asarray(noise * (size / noise.std()))


def fused(
    clip: list[np.ndarray], fusion: TemporalFusion | None = None, restore: Callable[..., Pixels] = restored_of
) -> tuple[list[Pixels], list[Pixels]]:
    """The frames restored alone, and fused."""
    fusion = fusion or TemporalFusion()
    alone = [restore(clean, number) for number, clean in enumerate(clip)]
    sources = [source_of(clean, number) for number, clean in enumerate(clip)]
    return alone, [fusion.fuse(a, b) for a, b in zip(sources, alone, strict=True)]


def fused_ahead(pairs: Sequence[tuple[Pixels, Pixels]], fusion: TemporalFusion | None = None) -> list[Pixels]:
    """Sources and restored frames -> each fused with those before it and the one that follows."""
    fusion, found, last = fusion or TemporalFusion(ahead=True), [], pairs[0][1]
    for number, pair in enumerate(pairs):
        before, last = last, fusion.fuse(*pair)
        if number:
            found.append(before if fusion.before is None else fusion.before)
    return [*found, last]


def gains(clip: list[np.ndarray], alone: list[Pixels], together: list[Pixels]) -> list[float]:
    """dB of each frame over the frame alone."""
    clean = [pixels(frame) for frame in clip]
    return [psnr(b, c) - psnr(a, c) for a, b, c in zip(alone, together, clean, strict=True)]


def panned(frames: int, step: float) -> list[np.ndarray]:
    wide = scene(1, HEIGHT + 20, WIDTH + 120)
    move = [np.array([[1, 0, -8 - step * i], [0, 1, -5]], np.float64) for i in range(frames)]
    return [cv2.warpAffine(wide, m, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC) for m in move]


def test_twelve_frames_of_a_still_scene_gain_four_decibels() -> None:
    clip = [scene()] * 13
    assert gains(clip, *fused(clip))[-1] > 4.0


def test_a_camera_that_pans_gains_too() -> None:
    clip = panned(10, 3.3)
    gained = gains(clip, *fused(clip))
    assert min(gained) > -0.1
    assert np.mean(gained[3:]) > 0.5


def test_a_camera_that_pans_gains_more_from_the_frame_that_follows() -> None:
    clip = panned(10, 3.3)
    alone, together = fused(clip)
    ahead = fused_ahead([(source_of(clean, n), alone[n]) for n, clean in enumerate(clip)])
    more = np.array(gains(clip, alone, ahead)) - gains(clip, alone, together)
    assert min(more) > -0.05 and np.mean(more) > 0.1
    assert np.array_equal(ahead[-1], together[-1])


def test_the_frame_that_follows_counts_more_where_noise_repeats() -> None:
    """As a codec makes it: then the network takes little, and frames differ by less than they are wrong."""
    clip = panned(10, 3.3)
    restored = [restored_of(clean, number) for number, clean in enumerate(clip)]
    little = [pixels(frame + smooth_noise(number, LEFT)) for number, frame in enumerate(restored)]
    taken = []
    for sources in ([source_of(clean, number) for number, clean in enumerate(clip)], little):
        pairs, fusion = list(zip(sources, restored, strict=True)), TemporalFusion()
        together = [fusion.fuse(*pair) for pair in pairs]
        ahead = np.array(fused_ahead(pairs)).astype(float)
        taken.append(np.abs(ahead - np.array(together))[2:-1].mean())
    assert taken[1] > 1.15 * taken[0] > 0, taken


@pytest.mark.parametrize(("contrast", "trail"), [(15, 2.4), (25, 1.8)])
def test_a_faint_thing_leaves_no_trail_where_a_scene_stands(contrast: int, trail: float) -> None:
    """It is fainter than the noise of the source, appears after eight frames and moves on from then."""
    discs = [np.zeros((HEIGHT, WIDTH), np.float32) for _ in range(18)]
    for number, disc in enumerate(discs[8:]):
        cv2.circle(disc, (20 + 7 * number, 60), 12, 1, -1, cv2.LINE_AA)
    clip = [np.clip(scene(13) + contrast * disc[..., None], 0, 255) for disc in discs]
    alone, together = fused(clip)
    left, shown = [], []
    for number in range(9, 18):
        behind = (discs[number - 1] > 0.9) & (discs[number] < 0.1)
        off = together[number].astype(float) - alone[number]
        left.append(off[behind].mean())
        shown.append(off[discs[number] > 0.9].mean())
    assert np.mean(left) < trail
    assert np.mean(shown) > -0.1 * contrast
    assert min(gains(clip, alone, together)[8:]) > 3


@pytest.mark.parametrize(("height", "width"), [(120, 160), (131, 197)])
def test_a_clip_that_moves_and_needs_little_flickers_a_third_less(height: int, width: int) -> None:
    wide = scene(1, height + 20, width + 120)
    near = cv2.GaussianBlur(scene(14, height + 20, width + 120), (0, 0), 1)
    fusion, sources, alone, together = TemporalFusion(), [], [], []
    for number in range(14):
        clean = wide[5 : 5 + height, 8 + 2 * number : 8 + 2 * number + width].copy()
        x = 10 + 9 * number
        clean[40:90, x : x + 40] = near[40:90, 100 - 3 * number : 140 - 3 * number][:, : width - x]
        rng = np.random.default_rng(number)
        little = cv2.resize(rng.normal(0, 0.2, (5, 7, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        sources.append(pixels(clean + rng.normal(0, 1, clean.shape)))
        alone.append(pixels(clean + little + rng.normal(0, 0.5, clean.shape)))
        together.append(fusion.fuse(sources[-1], alone[-1]))
    before, after = flicker(sources, alone), flicker(sources, together)
    assert before is not None and after is not None
    assert after < 0.67 * before


def _ball(number: int) -> np.ndarray:
    frame = scene(2).copy()
    cv2.circle(frame, (10 + 11 * number, 60), 14, (250, 20, 20), -1)
    return frame


def _lit(number: int) -> np.ndarray:
    return scene(3) * (0.75 + 0.25 * (number % 3 == 0))


def _fading(number: int) -> np.ndarray:
    return scene(3) * (1 - 0.06 * number)


def _flashing(number: int) -> np.ndarray:
    return scene(4) * 0.6 + (100 if number == 6 else 0)


def _raining(number: int) -> np.ndarray:
    frame, rng = scene(5).copy(), np.random.default_rng(number)
    for x, y in rng.integers(0, (WIDTH, HEIGHT), (60, 2)):
        cv2.line(frame, (int(x), int(y)), (int(x) + 2, int(y) + 12), (235, 235, 235), 1)
    return frame


def _snowing(number: int) -> np.ndarray:
    frame, rng = scene(12).copy(), np.random.default_rng(7)
    for x, y, speed in rng.integers((0, 0, 3), (WIDTH, HEIGHT, 9), (60, 3)).tolist():
        place = ((x + number) % WIDTH, (y + speed * number) % HEIGHT)
        cv2.circle(frame, place, 1 + speed // 5, (235, 235, 235), -1, cv2.LINE_AA)
    return frame


def _titled(number: int) -> np.ndarray:
    frame = pixels(scene(6))
    if 4 <= number < 9:
        cv2.putText(frame, "SUBTITLE", (20, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    return frame.astype(np.float64)


def _cut(number: int) -> np.ndarray:
    return scene(7 if number < 6 else 8)


EVENTS = [_ball, _lit, _fading, _flashing, _raining, _snowing, _titled, _cut]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__[1:])
def test_nothing_of_the_past_shows_where_something_happens(event: Callable[[int], np.ndarray]) -> None:
    clip = [event(number) for number in range(13)]
    alone, together = fused(clip)
    assert min(gains(clip, alone, together)) > -0.1
    for number in range(1, 13):  # where the picture has just changed, it is as bright as the frame alone is
        changed = np.abs(clip[number] - clip[number - 1]).mean(axis=2) > 40
        if changed.sum() > 50:
            off = together[number][changed].astype(float) - alone[number][changed]
            assert np.abs(off.mean(axis=0)).max() < 1.5, number


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__[1:])
def test_nothing_of_the_next_frame_shows_where_something_happens(
    event: Callable[[int], np.ndarray],
) -> None:
    clip = [event(number) for number in range(13)]
    alone, together = fused(clip)
    ahead = fused_ahead([(source_of(clean, n), alone[n]) for n, clean in enumerate(clip)])
    assert min(gains(clip, alone, ahead)) > -0.1
    for number in range(12):  # where the picture is about to change
        changed = np.abs(clip[number] - clip[number + 1]).mean(axis=2) > 40
        if changed.sum() > 50:
            off = ahead[number][changed].astype(float) - together[number][changed]
            assert np.abs(off.mean(axis=0)).max() < 1.5, number


def test_the_frame_before_a_cut_or_a_fault_takes_nothing_from_behind_it() -> None:
    clip = [_cut(number) for number in range(8)]
    alone, together = fused(clip)
    pairs = [(source_of(clean, n), alone[n]) for n, clean in enumerate(clip)]
    ahead = fused_ahead(pairs)
    assert np.array_equal(ahead[5], together[5]) and not np.array_equal(ahead[1], together[1])
    fusion = TemporalFusion(ahead=True)
    last = [fusion.fuse(*pair) for pair in pairs[:4]][-1]
    fusion.fuse(pairs[4][0], np.zeros_like(pairs[4][1]), faulty=True)
    assert fusion.before is not None and np.array_equal(fusion.before, last)
    fusion.fuse(*pairs[5])
    assert fusion.before is None  # the faulty one stays as it came


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_frame_that_waits_is_done_when_the_next_is_taken_or_all_have_ended(strength: float) -> None:
    clip = panned(4, 3.3)
    pairs = [(source_of(clean, n), restored_of(clean, n)) for n, clean in enumerate(clip)]
    ahead = fused_ahead(pairs)
    finish, passing = Finish(12, strength, ahead=True), []
    assert finish.waits and not Finish(0, strength, ahead=True).waits
    for number, (source, restored) in enumerate(pairs):
        passing.append(Restoration(Frame(source, number, Fraction(1, 25)), restored, new_scene=number == 0))
        finish.take(passing[-1])
    finish.end()
    for one, expected, (source, _) in zip(passing, ahead, pairs, strict=True):
        mixed = pixels(expected.astype(float) * strength + source.astype(float) * (1 - strength))
        assert np.abs(one.pixels.astype(int) - mixed).max() <= (1 if strength < 1 else 0)


def test_what_a_network_did_to_the_light_is_not_taken_back() -> None:
    clip = [scene(9) * 0.3] * 13

    def brightened(clean: np.ndarray, number: int) -> Pixels:
        return restored_of(clean * 2.5, number)

    alone, together = fused(clip, restore=brightened)
    assert abs(float(together[-1].mean()) - float(alone[-1].mean())) < 0.5
    assert psnr(together[-1], pixels(clip[-1] * 2.5)) > psnr(alone[-1], pixels(clip[-1] * 2.5))


def test_light_that_a_network_adds_unsteadily_is_held_steady() -> None:
    clip = panned(14, 2.0)
    rng = np.random.default_rng(0)

    def unsteady(clean: np.ndarray, number: int) -> Pixels:
        return restored_of(clean * 0.9 + 10 + rng.normal(0, 3, 3), number)

    sources = [source_of(clean, number) for number, clean in enumerate(clip)]
    alone, together = fused(clip, restore=unsteady)
    before, after = flicker(sources, alone), flicker(sources, together)
    assert before is not None and after is not None
    assert after < 0.6 * before


def test_a_network_that_judges_the_light_anew_is_taken_at_its_word() -> None:
    def anew(clean: np.ndarray, number: int) -> Pixels:
        return restored_of(clean + 50 * (number < 5), number)

    alone, together = fused([scene(11) * 0.6] * 9, restore=anew)
    for one, both in zip(alone[5:], together[5:], strict=True):
        assert np.abs((both.astype(float) - one).mean(axis=(0, 1))).max() < 0.5


def test_frames_that_differed_much_for_a_while_make_no_ghosts_later() -> None:
    rng = np.random.default_rng(3)
    wide, fusion, clip, alone, together = scene(1, HEIGHT + 160, WIDTH + 160), TemporalFusion(), [], [], []
    for number in range(14):
        x, y = (80, 80) if number < 10 else rng.integers(20, 141, 2).tolist()  # at last it leaps about
        clip.append(wide[y : y + HEIGHT, x : x + WIDTH])
        blotches = cv2.GaussianBlur(rng.normal(0, 1, clip[-1].shape), (0, 0), 2)
        wild = blotches * (20 / blotches.std() * (number < 5))
        alone.append(restored_of(clip[-1] + wild, number))
        together.append(fusion.fuse(source_of(clip[-1], number), alone[-1], number == 0))
    assert min(gains(clip, alone, together)[10:]) > -0.4


def test_a_clean_clip_stays_as_it_was_restored() -> None:
    clip = [pixels(scene(10))] * 8
    fusion = TemporalFusion()
    together = [fusion.fuse(frame, frame) for frame in clip]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(clip, together, strict=True))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("noise", "left"), [(0, 0.7), (3, 0.7), (4, 1.0)])
def test_what_changes_in_every_frame_is_kept_where_there_is_little_noise(
    noise: float, left: float, ahead: bool
) -> None:
    """As water and leaves do. Sound frames are changed a little by restoring, too, and smoothly."""
    clip = [clean + smooth_noise(number, 2.5) for number, clean in enumerate(panned(10, 2.4))]
    sources = [
        pixels(clean + noise * np.random.default_rng(number).normal(0, 1, clean.shape))
        for number, clean in enumerate(clip)
    ]
    alone = [pixels(clean + smooth_noise(50 + number, left)) for number, clean in enumerate(clip)]
    pairs, fusion = list(zip(sources, alone, strict=True)), TemporalFusion()
    together = fused_ahead(pairs) if ahead else [fusion.fuse(*pair) for pair in pairs]
    assert min(gains(clip, alone, together)) > -0.4


def test_what_changes_in_every_frame_is_kept_where_each_was_coded_for_itself() -> None:
    """Such a codec makes noise as smooth as one that repeats it, of which more may be left."""
    clip = [clean + smooth_noise(number, 2.0) for number, clean in enumerate(panned(10, 2.4))]
    pairs: list[tuple[Pixels, Pixels]] = []
    for number, clean in enumerate(clip):
        noise = np.random.default_rng(number).normal(0, 8, clean.shape)
        done, coded = cv2.imencode(".jpg", pixels(clean + noise), [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert done
        source = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
        pairs.append((source, pixels(clean + smooth_noise(50 + number, 2.0))))
    alone = [restored for _, restored in pairs]
    worst = [
        min(gains(clip, alone, fused_ahead(pairs, TemporalFusion(ahead=True, intra=intra))))
        for intra in (True, False)
    ]
    assert worst[0] > -0.1
    assert worst[1] < -0.1  # not told, it is taken for the other


def test_ten_bits_keep_their_depth() -> None:
    clip = [scene()] * 4
    fusion = TemporalFusion()
    sources = [source_of(c, n).astype(np.uint16) * 257 for n, c in enumerate(clip)]
    alone = [restored_of(c, n).astype(np.uint16) * 257 for n, c in enumerate(clip)]
    deep = [fusion.fuse(a, b) for a, b in zip(sources, alone, strict=True)]
    _, shallow = fused(clip)
    assert deep[-1].dtype == np.uint16
    assert len(np.unique(deep[-1] % 257)) > 200
    assert np.abs(deep[-1] / 257 - shallow[-1]).max() <= 0.51


@pytest.mark.parametrize("shape", [(1, 1), (31, 200), (33, 47), (64, 33)])
def test_frames_of_any_size_are_taken(shape: tuple[int, int]) -> None:
    clip = [scene(0, 240, 320)[: shape[0], : shape[1]]] * 3
    _, together = fused(clip)
    assert all(frame.shape == (*shape, 3) for frame in together)


def test_a_frame_of_another_size_begins_anew_and_the_report_says_so() -> None:
    fusion = TemporalFusion()
    small = scene()[:80, :100]
    fused([scene()] * 3, fusion)
    alone, together = fused([small], fusion)
    assert np.array_equal(alone[0], together[0])
    assert fusion.figures.let_go == {"another size": 1}


def test_a_cut_is_reported() -> None:
    fusion = TemporalFusion()
    fused([_cut(number) for number in range(12)], fusion)
    assert fusion.figures.for_report()["let_go"] == {"a cut": 1}


def _at(times: list[float], faulty: int | None = None) -> tuple[list[Pixels], list[Pixels], TemporalFusion]:
    """A still scene alone and fused, shown at these times; a frame that came back wrong is black."""
    fusion, alone, together = TemporalFusion(), [], []
    for number, time in enumerate(times):
        wrong = number == faulty
        alone.append(restored_of(scene(), number) * (not wrong))
        source = source_of(scene(), number)
        together.append(fusion.fuse(source, alone[-1], shown_at=time, faulty=wrong))
    return alone, together, fusion


@pytest.mark.parametrize("jump", [5.0, -2.0], ids=["ahead", "back"])
def test_where_the_clock_jumps_the_past_is_let_go(jump: float) -> None:
    alone, together, fusion = _at([number * 0.04 + jump * (number >= 4) for number in range(7)])
    same = [np.array_equal(a, b) for a, b in zip(alone, together, strict=True)]
    assert same == [True, False, False, False, True, False, False]
    assert fusion.figures.let_go == {"a gap in time": 1}


def test_a_slow_video_is_fused_all_the_same() -> None:
    _, _, fusion = _at([0, 4, 8, 12, 16, 20])
    assert fusion.figures.let_go == {"a gap in time": 1}  # the first step: nobody knows yet that all are so


def test_a_frame_that_came_back_wrong_is_blended_into_nothing() -> None:
    alone, together, fusion = _at([number * 0.04 for number in range(7)], faulty=4)
    assert np.array_equal(together[4], alone[4]) and np.array_equal(together[5], alone[5])
    assert psnr(together[6], pixels(scene())) > psnr(alone[6], pixels(scene()))
    assert fusion.figures.let_go == {"a fault": 1}


def _nan_where_a_corner_is_white(path: Path) -> Path:
    """Bundled ``nano``, whose picture is not a number where the first pixel is white; it says it is fp16."""
    graph = onnx.load(bundled("nano", ".onnx"))
    for node in graph.graph.node:
        node.output[:] = ["sound" if name == "restored" else name for name in node.output]
    numbers = {"origin": [0, 0, 0, 0], "behind": [1, 1, 1, 1]}
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.array(values), name) for name, values in numbers.items()
    )
    levels = {"nearly": 0.99, "no_number": np.nan}
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.array(level, np.float32), name) for name, level in levels.items()
    )
    graph.graph.node.extend(
        [
            helper.make_node("Slice", ["image", "origin", "behind"], ["corner"]),
            helper.make_node("Greater", ["corner", "nearly"], ["is_white"]),
            helper.make_node("Where", ["is_white", "no_number", "sound"], ["restored"]),
        ]
    )
    told = {entry.key: entry.value for entry in graph.metadata_props if entry.key != "measnet.sha256"}
    helper.set_model_props(graph, told | {"measnet.precision": "fp16"})
    onnx.save(graph, path)
    return path


def test_nan_of_a_real_engine_is_blended_into_nothing(tmp_path: Path) -> None:
    clip = [source_of(scene(0, 128, 160), number) for number in range(6)]
    for number, frame in enumerate(clip):
        frame[0, 0] = 255 * (number == 3)
    alone, together = [], []
    with Restorer(str(_nan_where_a_corner_is_white(tmp_path / "nan.onnx")), threads=1) as restorer:
        guard = Guard(restorer, "fallback", partial(safer_than, restorer, None), scenes=SceneCut())
        finish = Finish(12, 1.0)
        assert finish.fusion is not None
        for number, frame in enumerate(clip):
            passing = Restoration(Frame(frame, number, Fraction(1, 25)), frame)
            guard.take(passing)
            alone.append(passing.pixels)
            finish.take(passing)
            together.append(passing.pixels)
        guard.close()
        with pytest.raises(BackendError, match=r"frame 0 came back wrong .* holds NaN"):
            Guard(restorer, "ignore", lambda: None).take(Restoration(Frame(clip[3], 0, Fraction(1)), clip[3]))
    assert guard.faults.first == 3 and "NaN" in (guard.faults.what or "")
    assert finish.fusion.figures.let_go == {"a fault": 1}
    same = [np.array_equal(a, b) for a, b in zip(alone, together, strict=True)]
    assert same == [True, False, False, True, True, False]


def test_a_frame_of_one_colour_is_a_scene_of_its_own() -> None:
    clip = [scene()] * 3 + [np.full_like(scene(), 90)] + [scene()] * 3
    fusion = TemporalFusion()
    alone, together = fused(clip, fusion)
    assert np.array_equal(together[3], alone[3]) and np.array_equal(together[4], alone[4])
    assert fusion.figures.let_go == {"a cut": 2}


@pytest.mark.parametrize("clip", [[scene()] * 12, panned(12, 2.0)], ids=["still", "panned"])
def test_a_run_that_takes_up_the_state_makes_the_same_frames(clip: list[np.ndarray]) -> None:
    whole, first, second = TemporalFusion(), TemporalFusion(), TemporalFusion()
    alone = [restored_of(clean, number) for number, clean in enumerate(clip)]
    sources = [source_of(clean, number) for number, clean in enumerate(clip)]
    pairs = list(zip(sources, alone, strict=True))
    through = []
    for number, pair in enumerate(pairs):
        through.append(whole.fuse(*pair))
        if number == 6:
            whole.state()
    for pair in pairs[:7]:
        first.fuse(*pair)
    second.set_state(first.state())
    again = [second.fuse(*pair) for pair in pairs[7:]]
    assert all(np.array_equal(a, b) for a, b in zip(through[7:], again, strict=True))


def test_a_run_that_takes_up_the_state_looks_ahead_the_same() -> None:
    clip = panned(10, 2.0)
    pairs = [(source_of(clean, n), restored_of(clean, n)) for n, clean in enumerate(clip)]
    whole, second = TemporalFusion(ahead=True), TemporalFusion(ahead=True)
    through = []
    for number, pair in enumerate(pairs):
        whole.fuse(*pair)
        through.append(whole.before)
        if number == 5:  # taken before the frame that follows has come, as at the end of a segment
            second.set_state(whole.state())
    for number, pair in enumerate(pairs[6:], 6):
        second.fuse(*pair)
        if number > 6:
            assert second.before is not None and np.array_equal(second.before, through[number])


def test_the_state_of_a_clip_without_any_noise_is_taken() -> None:
    fusion = TemporalFusion()
    flat = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number in range(12):
        frame = cv2.circle(flat.copy(), (40 + 3 * number, 50), 20, (255, 90, 0), -1).view(np.uint8)
        fusion.fuse(frame, frame)
        fusion.set_state(fusion.state())


def test_a_state_that_was_cut_or_changed_is_refused() -> None:
    fusion = TemporalFusion()
    fused([scene()] * 6, fusion)
    state = fusion.state()
    past = 16 + HeldLight.SIZE
    huge = state[:past] + struct.pack("<II", 1 << 31, 1 << 31) + state[past + 8 :]
    count = past + 33 + 6 * HEIGHT * WIDTH
    no_numbers = state[:count] + b"\xff" * 8 + state[count + 8 :]
    for bad in (b"", state[:20], state[:-9000], huge, no_numbers):
        with pytest.raises(ValueError, match=r"the frames before|the scene"):
            TemporalFusion().set_state(bad)
