"""Decisions over tiles and over time: tiles agree with the whole picture, steady videos glide and go on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from conftest import copied_graph

from measnet import Restorer, UsageError
from measnet.config import VARIANTS
from measnet.metrics import largest_difference, psnr
from measnet.network import MEASNet
from measnet.network.decisions import layout_of
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.cli import main
from measnet.runtime.parity import Verifier
from measnet.runtime.restorer import SETTLED
from measnet.runtime.sinks.segment import LARGEST_STATE
from measnet.runtime.steady import Steady
from measnet.runtime.tiles import Tile, TileRound, cores, fewest_tiles, square_tiles
from measnet.weights import bundled

from .conftest import MakeClip, SteadyVideo, ffmpeg


@pytest.fixture(scope="module")
def tiled() -> Iterator[Restorer]:
    with Restorer("nano", tile=256) as restorer:
        yield restorer


@pytest.fixture(scope="module")
def nano() -> Iterator[Restorer]:
    with Restorer("nano") as restorer:
        yield restorer


def hazy(height: int = 256, width: int = 448) -> np.ndarray:
    """Soft shapes under a haze that thickens from left to right."""
    rng = np.random.default_rng(2)
    shapes = np.kron(rng.integers(0, 256, (height // 32, width // 32, 3)), np.ones((32, 32, 1)))
    clear = np.linspace(0.9, 0.3, width)[None, :, None]
    return (shapes * clear + 220 * (1 - clear)).round().astype(np.uint8)


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    """A still scene under noise that is new in each frame."""
    rng = np.random.default_rng(seed)
    scene = np.kron(rng.integers(40, 215, (4, 4, 3)), np.ones((32, 32, 1)))
    return [np.clip(scene + rng.normal(0, 30, scene.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def decoded(video: Path) -> np.ndarray:
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("options", [[], ["--steady", "0", "--task", "denoise"], ["--steady", "0"]])
def test_a_run_opens_one_session(
    clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """A second one would take as long to open, and as much memory, and restore no frame."""
    opened: list[str] = []

    class Counted(onnxruntime.InferenceSession):  # type: ignore[misc, unused-ignore]
        def __init__(self, graph: str, *arguments: Any, **options: Any) -> None:
            opened.append(graph)
            super().__init__(graph, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    video = clip("short.mp4", size="64x48", seconds=0.08)
    done = CliRunner().invoke(main, [str(video), "-o", str(tmp_path / "out.mp4"), *options])
    assert done.exit_code == 0, done.stderr
    ending = ".onnx" if options == ["--steady", "0"] else ".steerable.onnx"
    assert opened == [str(bundled("nano", ending))]


def test_tiles_decide_as_the_whole_picture_does(tiled: Restorer) -> None:
    picture = hazy()
    with Restorer("nano", tile="off") as whole:
        expected = whole.restore(picture).image
    together = tiled.restore(picture)
    apart = tiled.restore(picture, tiled.unsteered())
    assert together.tiles == apart.tiles > 1
    assert psnr(together.image, expected) > psnr(apart.image, expected) + 10


@pytest.mark.parametrize("light", [1.0, 0.2])
def test_the_decisions_of_a_picture_in_tiles_are_asked_for_until_they_hold(
    tiled: Restorer, light: float
) -> None:
    done = tiled.restore((hazy() * light).astype(np.uint8))
    assert done.steering is not None and done.decisions is not None
    assert np.abs(done.decisions - done.steering.held).max() < SETTLED


def test_a_picture_in_tiles_is_verified_with_the_same_decisions(tiled: Restorer) -> None:
    verifier = Verifier(tiled)
    picture = hazy()
    parity = verifier.check(picture, tiled.restore(picture))
    verifier.close()
    assert parity.psnr_db > 80 and parity.experts_agree > 0.999


def test_cores_of_tiles_cover_every_pixel_once_on_the_grid(nano: Restorer) -> None:
    rule = nano._backend.description.size_rule
    for height, width in ((720, 1280), (459, 621), (130, 1000)):
        for tiles in (square_tiles(height, width, 256, rule), fewest_tiles(height, width, 90_000, rule)):
            count = np.zeros((height, width), int)
            for tile, core in zip(tiles, cores(tiles, height, width, rule.multiple), strict=True):
                assert tile.top % rule.multiple == tile.left % rule.multiple == 0
                assert tile.top <= core.top and core.top + core.height <= tile.top + tile.height
                assert tile.left <= core.left and core.left + core.width <= tile.left + tile.width
                count[core.top : core.top + core.height, core.left : core.left + core.width] += 1
            assert (count == 1).all()


def test_a_steady_video_changes_its_decisions_less_from_frame_to_frame(nano: Restorer) -> None:
    noisy = frames(6)
    changes = {}
    for share in (0.0, 0.9):
        video = SteadyVideo(nano, share)
        held = []
        for frame in noisy:
            done = video.restore(frame)
            assert done.steering is not None and done.decisions is not None
            hold = done.steering.hold
            held.append(done.decisions * (1 - hold) + done.steering.held * hold)
        changes[share] = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(held)])
    assert changes[0.9] < 0.3 * changes[0.0]


def test_a_new_scene_begins_with_its_own_decisions(nano: Restorer) -> None:
    video = SteadyVideo(nano, 0.9)
    for frame in frames(3):
        video.restore(frame)
    other = (hazy(128, 128) * 0.2).astype(np.uint8)
    assert largest_difference(video.restore(other).image, nano.restore(other).image) < 1e-4


@pytest.mark.parametrize("name", ["nano", "tiled"])
def test_a_steady_video_goes_on_from_its_state(name: str, request: pytest.FixtureRequest) -> None:
    restorer = request.getfixturevalue(name)
    shown = frames(4) if name == "nano" else [hazy(256, 320)] * 3
    one, other = SteadyVideo(restorer, 0.8), SteadyVideo(restorer, 0.8)
    for frame in shown[:-1]:
        one.restore(frame)
    other.go_on_from(one)
    assert np.array_equal(other.restore(shown[-1]).pixels, one.restore(shown[-1]).pixels)


@pytest.mark.parametrize("damage", [b"", b"\1", b"\2abc", b"\1" + bytes(40_000)[:100]])
def test_a_damaged_state_is_refused(damage: bytes, nano: Restorer) -> None:
    with pytest.raises(ValueError, match=r"cut short|not numbers"):
        Steady(0.8).set_state(damage, nano.decisions_size)


def test_a_frame_in_tiles_is_restored_once_within_a_scene(
    tiled: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tile] = []
    ask = TileRound.ask

    def counting(self: TileRound, tile: Tile, given: Steering) -> Inference:
        asked.append(tile)
        return ask(self, tile, given)

    monkeypatch.setattr(TileRound, "ask", counting)
    video = SteadyVideo(tiled, 0.0)
    picture = hazy(256, 320)
    tiles = len(tiled.tiles_for(*picture.shape[:2]))
    video.restore(picture)
    first = len(asked)
    video.restore(picture)
    assert tiles > 1 and first > tiles and len(asked) - first == tiles


def test_a_graph_that_cannot_be_steered_says_so(tmp_path: Path) -> None:
    graph = copied_graph("nano", tmp_path / "plain.onnx")
    clip = Path(__file__).parents[2] / "examples" / "car-park.mp4"
    out = str(tmp_path / "x.mp4")
    result = CliRunner().invoke(main, [str(clip), "--model", str(graph), "--steady", "0.9", "-o", out])
    assert result.exit_code == 2
    assert "--steerable" in result.output and not Path(out).exists()


def test_a_video_is_held_steady_unless_told_otherwise(tmp_path: Path) -> None:
    sample, clip = Path(__file__).parents[2] / "examples" / "car-park.mp4", str(tmp_path / "piece.mkv")
    ffmpeg("-i", sample, "-vf", "crop=320:192", "-frames:v", "4", "-c:v", "ffv1", clip)
    planned = CliRunner().invoke(main, [clip, "--dry-run", "-o", str(tmp_path / "planned.mkv")])
    assert "held steady, 0.9 of each" in " ".join(planned.output.split())
    results = {}
    for share in (None, "0.9", "0"):
        out = tmp_path / f"{share}.mkv"
        asked = [] if share is None else ["--steady", share]
        arguments = [clip, "--frames", "3", "--temporal", "0", "--codec", "ffv1", "-o", str(out), *asked]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        results[share] = decoded(out)
    assert np.array_equal(results[None], results["0.9"])
    apart = [(ours != theirs).mean() for ours, theirs in zip(results[None], results["0"], strict=True)]
    assert apart[0] < 0.001 < 0.01 < apart[2]  # the first frame has its own decisions, but for rounding


def test_less_memory_means_more_tiles() -> None:
    with Restorer("nano", memory=30_000_000) as small, Restorer("nano", memory=2_000_000_000) as large:
        assert len(small.tiles_for(720, 1280)) > len(large.tiles_for(720, 1280)) == 1
    with pytest.raises(UsageError):
        Restorer("nano", tile=16)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_what_a_steady_video_knows_can_be_kept_of_every_variant(name: str) -> None:
    beside = 64 * 1024  # the scene's thumbnail, and what the guard says of faults
    assert 1 + 4 * layout_of(MEASNet(VARIANTS[name])).size + beside <= LARGEST_STATE
