"""Shares of damage in a picture, from weights that were taught to tell them to the report."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from measnet import Restorer
from measnet.checkpoint import load_checkpoint, save_checkpoint
from measnet.config import PROMPT_BASIS
from measnet.damage import GROUPS, NAMES, from_metadata, shares_by_name, shares_of, to_metadata
from measnet.errors import CheckpointError, GraphError
from measnet.export.trace import exact_graph
from measnet.runtime.cli import main
from measnet.runtime.experts import Experts
from measnet.runtime.frame import Frame, Restoration
from measnet.weights import bundled

from .conftest import MakeClip, SteadyVideo

PICTURE = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
RAIN = GROUPS["rain"]
HELD_TO_RAIN = tuple(8.0 if RAIN.start <= t < RAIN.stop else 0.0 for t in range(PROMPT_BASIS))
HOSTILE = ["", "{", '"noise"', "{}", "[1]", "[[]]", json.dumps(["noise"] * 65), "[" * 9999]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was taught, and knows a task of a test's own."""
    network = load_checkpoint(bundled("nano", ".safetensors"))
    assert network.taught
    network.task_prompts = {"derain": HELD_TO_RAIN}
    path = tmp_path_factory.mktemp("taught") / "taught.safetensors"
    save_checkpoint(network, path)
    return path


@pytest.fixture(scope="module")
def graph(taught: Path) -> Path:
    """The same, exported: as tests/export has it traced too."""
    path = taught.with_suffix(".onnx")
    exact_graph(load_checkpoint(taught), PICTURE.shape[:2]).write(path)
    return path


def retold(graph: Path, told: str, path: Path) -> Path:
    """The graph, with something else written into it."""
    model = onnx.load(str(graph))
    stored = {entry.key: entry.value for entry in model.metadata_props if entry.key != "measnet.sha256"}
    onnx.helper.set_model_props(model, stored | {"measnet.damage": told})
    onnx.save(model, str(path))
    return path


def test_groups_share_out_all_prompts() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(PROMPT_BASIS)).astype(np.float32)
    shares = shares_by_name(weights)
    assert list(shares) == list(NAMES) and sum(shares.values()) == pytest.approx(1, abs=1e-6)
    assert list(shares.values()) == pytest.approx(shares_of(torch.from_numpy(weights)[None])[0].tolist())


def test_it_travels_from_checkpoint_to_graph_to_frame(taught: Path, graph: Path, tmp_path: Path) -> None:
    assert load_checkpoint(taught).taught
    with Restorer(str(graph)) as exported, Restorer(str(taught)) as checkpoint:
        ours, theirs = exported.restore(PICTURE).damage, checkpoint.restore(PICTURE).damage
    assert ours is not None and theirs is not None
    assert ours == pytest.approx(theirs, abs=1e-4) and sum(ours.values()) == pytest.approx(1)

    older = retold(graph, '["noise", "snow"]', tmp_path / "older.onnx")
    with Restorer(str(older)) as other:
        assert other.restore(PICTURE).damage is None  # another version's kinds


def test_it_says_what_the_picture_shows_whatever_it_is_held_to(taught: Path) -> None:
    with Restorer(str(taught)) as free, Restorer(str(taught), task="derain") as held:
        shown = free.restore(PICTURE).damage
        done = held.restore(PICTURE)
        assert shares_by_name(done.prompt_weights[0][0])["rain"] > 0.9
        assert shown is not None and shown["rain"] < 0.9
        assert done.damage == pytest.approx(shown, abs=1e-5)
        assert SteadyVideo(held, 0.5).restore(PICTURE).damage == pytest.approx(shown, abs=1e-5)


@pytest.mark.parametrize("told", HOSTILE)
def test_a_hostile_value_is_refused(told: str, taught: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        from_metadata({"measnet.damage": told})
    network = load_checkpoint(taught)
    network.taught = False
    save_checkpoint(network, tmp_path / "hostile.safetensors", {"measnet.damage": told})
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors"):
        load_checkpoint(tmp_path / "hostile.safetensors")


def test_a_graph_with_a_hostile_value_is_refused(graph: Path, tmp_path: Path) -> None:
    hostile = retold(graph, "[[]]", tmp_path / "hostile.onnx")
    with pytest.raises(GraphError, match="damaged MEASNet description"):
        Restorer(str(hostile))


def test_nothing_is_told_of_weights_that_were_not_taught(taught: Path, tmp_path: Path) -> None:
    assert to_metadata(False) == {} and from_metadata({}) is False
    assert from_metadata(to_metadata(True)) is True
    network = load_checkpoint(taught)
    network.taught = False
    save_checkpoint(network, tmp_path / "untaught.safetensors")
    with Restorer(str(tmp_path / "untaught.safetensors")) as untaught:
        done = untaught.restore(PICTURE)
    assert done.prompt_weights and done.damage is None
    experts = Experts()
    frame = Frame(PICTURE, 0, Fraction(1), 1)
    passing = Restoration(frame, PICTURE, prompt_weights=done.prompt_weights, damage=done.damage)
    experts.finished(passing)
    report = experts.for_report()
    assert report is not None and "prompts" in report
    assert "damage" not in report and "damage" not in report["over_time"]["bins"][0]


def test_the_report_and_the_summary_say_it(clip: MakeClip, taught: Path, tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    arguments = [clip("damaged.mp4"), "-o", tmp_path / "a.mp4", "--model", taught, "--report", report]
    answer = CliRunner().invoke(main, [*map(str, arguments), "--frames", "3"])
    assert answer.exit_code == 0, answer.stderr
    experts = json.loads(report.read_text())["runs"][0]["experts"]
    assert list(experts["damage"]) == list(NAMES)
    for shares in (experts["damage"], *(b["damage"] for b in experts["over_time"]["bins"])):
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    seen = [line.strip() for line in answer.stdout.splitlines() if "seen: " in line]
    told = {"undamaged" if name == "sound" else name: share for name, share in experts["damage"].items()}
    largest = max(told, key=told.__getitem__)
    assert len(seen) == 1 and seen[0].startswith(f"seen: {largest} {100 * told[largest]:.0f} %")
    for name, share in told.items():
        assert (f"{name} " in seen[0]) == (share >= 0.05)
