"""Learning how far the past may be trusted: scenes, squares, the network's graph, and the command."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from measnet.runtime.trust import FILE, PLANES, LearntTrust
from measnet.train.fusion import learning
from measnet.train.fusion.cli import main
from measnet.train.fusion.lessons import SIDE, SQUARES, Lessons
from measnet.train.fusion.scenes import FRAMES, HEIGHT, WIDTH, made_up_scene, piece_of_clip
from measnet.train.fusion.trust_network import TrustNetwork, write_onnx


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).uniform(0, 255, (40, 60, 3))
        picture = cv2.resize(noise, (400, 300), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(picture, 0, 255).astype(np.uint8))
    return folder


def bundled_network() -> TrustNetwork:
    graph = onnx.load(FILE).graph
    network = TrustNetwork()
    network.load_state_dict(
        {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    )
    return network.eval()


def test_the_bundled_graph_computes_what_its_definition_computes(tmp_path: Path) -> None:
    import onnxruntime

    network = bundled_network()
    values = np.random.default_rng(0).normal(0, 1, (1, PLANES, 50, 66)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(values)).numpy()
    session = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"planes": values})[0], expected, atol=1e-5)
    assert expected.std() > 0.1


def test_an_untrained_network_leaves_the_rule_as_it_is() -> None:
    assert not TrustNetwork()(torch.randn(2, PLANES, 8, 8)).any()


def test_scenes_are_frames_of_one_size_the_same_for_the_same_seed(photographs: Path) -> None:
    paths = sorted(photographs.iterdir())
    for seed in range(6):
        one, other = (made_up_scene(np.random.default_rng(seed), paths) for _ in range(2))
        assert len(one) == FRAMES
        assert all(frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8 for frame in one)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    clip = [np.full((400, 500, 3), number, np.uint8) for number in range(20)]
    piece = piece_of_clip(np.random.default_rng(0), clip)
    assert [frame[0, 0, 0] - piece[0][0, 0, 0] for frame in piece] == list(range(FRAMES))
    assert piece[0].shape == (HEIGHT, WIDTH, 3)


def test_it_learns_to_trust_a_past_that_is_right_and_not_one_that_is_wrong() -> None:
    """Makes squares whose first plane tells: at 1 the past is right, at -1 the frame; the rule cannot."""
    looks = itertools.count()  # at a clock by which a step takes a second: it looks twice
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(200):
        right = np.where(rng.random((4, 4)).repeat(8, 0).repeat(8, 1) < 0.5, 1.0, -1.0)
        square = np.zeros((SIDE, SIDE, PLANES + 13), np.float16)
        square[..., 0] = right
        off = rng.normal(0, 5, (SIDE, SIDE, 6))
        square[..., PLANES : PLANES + 6] = off
        square[..., PLANES + 6 : PLANES + 12] = off * (right < 0)[..., None]
        square[..., PLANES + 12] = 1
        squares.append(square)
    network, gain = learning.learn(
        Lessons(squares, [6.0] * 200),
        60,
        0,
        lambda step, gain: None,
        warm_steps=20,
        clock=lambda: next(looks) / 2,
    )
    assert gain > 1
    with torch.no_grad():
        planes = torch.zeros(2, PLANES, 16, 16)
        planes[0, 0], planes[1, 0] = 1, -1
        right, wrong = network(planes)
    assert right.mean() > 0.3 > -0.3 > wrong.mean()


def test_the_command_writes_a_graph_that_fusion_runs(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "trust.onnx"
    arguments = [str(photographs), "--out", str(out), "--scenes", "2", "--minutes", "0.02"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"held out of {2 * (FRAMES - 1) * SQUARES}" in result.output
    LearntTrust(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--out", "x.onnx"], "nowhere does not exist"),
        ([".", "--out", "x.pt"], "does not end in .onnx"),
        ([".", "--out", "x.onnx", "--minutes", "0"], "--minutes"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.output.strip().splitlines()[-1]


def test_a_network_goes_into_a_graph_and_back(tmp_path: Path) -> None:
    network = bundled_network()
    write_onnx(network, tmp_path / "again.onnx")
    values = torch.randn(1, PLANES, 20, 24)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "again.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(values).numpy()
    np.testing.assert_allclose(session.run(None, {"planes": values.numpy()})[0], expected, atol=1e-5)
