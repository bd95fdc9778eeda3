"""--task: the prompt is held to one degradation, with weights that know it."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import copied_graph

from measnet import Restorer, UsageError
from measnet.checkpoint import load_checkpoint, save_checkpoint
from measnet.config import PROMPT_BASIS
from measnet.evaluation.video.as_run import read_frames
from measnet.export.trace import exact_graph
from measnet.network import MEASNet
from measnet.runtime.cli import main
from measnet.runtime.parity import Verifier

from .conftest import SteadyVideo

CLEAN = Path(__file__).parents[2] / "examples" / "car-park.clean.mp4"
SCORES = {"dehaze": tuple(np.linspace(-3, 3, PROMPT_BASIS)), "derain": tuple(np.linspace(4, 0, PROMPT_BASIS))}


@pytest.fixture(scope="module")
def knowing(gated_network: MEASNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network, taught two tasks."""
    network = copy.deepcopy(gated_network)
    network.task_prompts = SCORES
    path = tmp_path_factory.mktemp("knowing") / "knowing.safetensors"
    save_checkpoint(network, path)
    return path


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (256, 320, 3)).astype(np.uint8)


def softmax(scores: tuple[float, ...]) -> np.ndarray:
    powers = np.exp(np.array(scores) - max(scores))
    return powers / powers.sum()


def test_the_prompt_of_every_tile_is_the_tasks_and_nobody_elses(knowing: Path, picture: np.ndarray) -> None:
    for tile in ("off", 192):
        with Restorer(str(knowing), tile=tile, task="dehaze") as held:
            done = held.restore(picture)
        assert len(done.prompt_weights) == done.tiles
        for weights in done.prompt_weights:
            np.testing.assert_allclose(weights[0], softmax(SCORES["dehaze"]), atol=1e-3)
    with Restorer(str(knowing), task="derain") as other, Restorer(str(knowing)) as free:
        assert not np.array_equal(done.pixels, other.restore(picture).pixels)
        assert not np.allclose(free.restore(picture).prompt_weights[0], softmax(SCORES["dehaze"]), atol=1e-3)


def test_a_graph_keeps_what_its_checkpoint_knows(knowing: Path, picture: np.ndarray, tmp_path: Path) -> None:
    graph = tmp_path / "steerable.onnx"
    exact_graph(load_checkpoint(knowing), None, steerable=True).write(
        graph
    )  # whose trace tests/export has too
    with Restorer(str(graph), task="derain") as ours, Restorer(str(knowing), task="derain") as theirs:
        done = ours.restore(picture)
        np.testing.assert_allclose(done.image, theirs.restore(picture).image, atol=1e-4)
        verifier = Verifier(ours, str(knowing))
        assert verifier.check(picture, done).psnr_db > 90
        assert ours.description["task"] == "derain"


def test_steady_frames_keep_to_the_task(knowing: Path, picture: np.ndarray) -> None:
    with Restorer(str(knowing), task="derain") as restorer:
        steady = SteadyVideo(restorer, 0.5)
        for _ in range(2):
            (weights,) = steady.restore(picture).prompt_weights
            np.testing.assert_allclose(weights[0], softmax(SCORES["derain"]), atol=1e-3)


def test_a_task_that_the_weights_do_not_know_is_refused_with_those_they_do(
    knowing: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    image = tmp_path / "picture.png"
    cv2.imwrite(str(image), picture)
    arguments = [str(image), "-o", str(tmp_path / "out.png"), "--model", str(knowing)]
    answer = CliRunner().invoke(main, [*arguments, "--task", "desnow"])
    assert answer.exit_code == 2
    assert "do not know the task 'desnow': they know dehaze, derain" in " ".join(answer.stderr.split())
    assert not (tmp_path / "out.png").exists()
    assert CliRunner().invoke(main, [*arguments, "--task", "derain"]).exit_code == 0


def test_a_graph_that_cannot_be_steered_is_not_held_to_a_task(tmp_path: Path) -> None:
    graph = copied_graph("nano", tmp_path / "plain.onnx")
    with pytest.raises(UsageError, match="cannot be held to a task"):
        Restorer(str(graph), task="derain")


@pytest.mark.parametrize("model", ["nano", "small"])
def test_the_bundled_weights_lighten_what_is_said_to_be_dark_and_clear_what_is_said_to_be_hazy(
    model: str,
) -> None:
    """Free they leave both alone: a dim picture may be of a dim place, and a pale one of a pale wall."""
    (frame,) = islice(read_frames(CLEAN), 1)
    sound = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    dim = (sound * 0.25).astype(np.uint8)
    pale = (sound * 0.35 + 255 * 0.55).astype(np.uint8)
    with Restorer(model, task="lowlight") as restorer:
        assert restorer(dim).mean() > 2 * dim.mean()
    with Restorer(model, task="dehaze") as restorer:
        assert restorer(pale).std() > 1.5 * pale.std()
    with Restorer(model, task="denoise") as restorer:
        assert restorer(dim).mean() == pytest.approx(dim.mean(), rel=0.1)
        assert restorer(pale).std() == pytest.approx(pale.std(), rel=0.1)
