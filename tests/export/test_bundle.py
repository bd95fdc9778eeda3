"""The bundle of a name: a checkpoint, and two graphs that keep their weights in it and belong to it alone."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from measnet import Restorer, weights
from measnet.checkpoint import load_checkpoint, save_checkpoint, stored_facts, weights_sha256
from measnet.config import VARIANTS
from measnet.errors import GraphError, OutputError, ParityError, UsageError
from measnet.export.bundle import share_weights, write_bundle
from measnet.export.check import check_file
from measnet.export.graph import Graph, read_graph
from measnet.export.make import SMALLER, Making
from measnet.network import MEASNet
from measnet.onnx_file import DATA_SEAL, SEAL, check_graph, check_graph_file, read_metadata
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.guard import bundled_name
from measnet.runtime.parity import Verifier
from measnet.weights import bundled

CHECKPOINT = bundled("nano", ".safetensors")
READY = Making(any_size=SMALLER)
"""The bundled graphs, which were traced once, tried on a quarter of the pixels."""

NAMES = ["nano.onnx", "nano.safetensors", "nano.steerable.onnx"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the bundled graphs; another trace takes far longer."""
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(CHECKPOINT, "nano", folder, READY)
    return folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def answer(graph: Path, image: np.ndarray) -> np.ndarray:
    backend = OnnxRuntimeBackend(graph, threads=1, provider="CPUExecutionProvider")
    backend.activate()
    return backend.infer(image).restored


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(5).random((1, 3, 128, 160), np.float32)


def test_every_weight_is_stored_once_and_the_checkpoint_as_it_was(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == NAMES
    theirs, ours = (load_checkpoint(path) for path in (CHECKPOINT, bundle / "nano.safetensors"))
    assert weights_sha256(ours) == weights_sha256(theirs) and ours.config == theirs.config
    assert ours.task_prompts == theirs.task_prompts
    facts = [stored_facts(path) for path in (CHECKPOINT, bundle / "nano.safetensors")]
    for stored in facts:
        stored.pop("measnet.config")  # it has entries that are younger than the checkpoint
    assert facts[0] == facts[1]
    for graph in bundle.glob("*.onnx"):
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
        places = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
        assert places == {"nano.safetensors"}
        inside = sum(len(tensor.raw_data) for tensor in tensors)
        assert inside < 0.05 * CHECKPOINT.stat().st_size
        assert graph.stat().st_size < inside + 200_000


def test_graphs_made_anew_leave_the_weights_beside_them_to_the_byte(copy: Path) -> None:
    weights = copy / "nano.safetensors"
    shutil.copy(CHECKPOINT, weights)
    write_bundle(weights, "nano", copy, READY)
    assert weights.read_bytes() == CHECKPOINT.read_bytes()
    check_graph_file(copy / "nano.onnx")


@pytest.mark.parametrize("end", [".onnx", ".steerable.onnx"])
def test_its_graphs_restore_as_graphs_with_their_weights_inside(
    end: str, bundle: Path, image: np.ndarray, tmp_path: Path
) -> None:
    graph = read_graph(bundle / f"nano{end}")
    graph.write(tmp_path / "whole.onnx")
    expected = answer(tmp_path / "whole.onnx", image)
    assert np.array_equal(answer(bundle / f"nano{end}", image), expected)
    assert np.array_equal(answer(bundled("nano", end), image), expected)
    assert graph.description.steerable == ("steerable" in end)
    said = read_metadata(tmp_path / "whole.onnx")
    assert SEAL in said and DATA_SEAL not in said
    check_graph(graph.content, tmp_path / "elsewhere.onnx")
    assert graph.model.graph == read_graph(bundled("nano", end)).model.graph


def test_the_same_checkpoint_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    given = Path(shutil.copy(CHECKPOINT, tmp_path / "mine.safetensors"))
    made = write_bundle(given, "nano", tmp_path / "new" / "weights", READY)
    assert [path.name for path in made] == ["nano.safetensors", "nano.onnx", "nano.steerable.onnx"]
    for name in NAMES:
        assert (tmp_path / "new" / "weights" / name).read_bytes() == (bundle / name).read_bytes()


@pytest.mark.parametrize("end", [".onnx", ".steerable.onnx"])
def test_new_graphs_restore_as_those_of_the_name_do(
    end: str, bundle: Path, noisy_picture: np.ndarray
) -> None:
    with Restorer("nano") as restorer:
        expected = restorer(noisy_picture)
    with Restorer(str(bundle / f"nano{end}")) as restorer:
        assert np.array_equal(restorer(noisy_picture), expected)
        assert restorer.steerable == (end == ".steerable.onnx")
        verifier = Verifier(restorer)
        verifier.check(noisy_picture, restorer.restore(noisy_picture))
        assert verifier.figures["passed"]


def test_bundled_weights_are_known_by_their_hash_without_opening_a_session(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sha256 = read_metadata(bundle / "nano.onnx")["measnet.weights_sha256"]
    assert bundled_name(sha256) == "nano" and bundled_name("0" * 64) is None


def refused(graph: Path, words: str) -> None:
    """All that open the graph refuse it, in one line."""
    for opens in (check_graph_file, read_graph, lambda path: OnnxRuntimeBackend(path).activate()):
        with pytest.raises(GraphError, match=words) as error:
            opens(graph)
        assert "\n" not in str(error.value)
    assert any(found.level == "error" and found.rule == "external-data" for found in check_file(graph))


def test_a_graph_that_was_copied_alone_says_which_file_must_lie_beside_it(
    bundle: Path, tmp_path: Path, image: np.ndarray
) -> None:
    graph = Path(shutil.copy(bundle / "nano.onnx", tmp_path / "mine.onnx"))
    refused(
        graph, "mine.onnx keeps its weights in 'nano.safetensors', which is not beside it; copy that file"
    )
    shutil.copy(bundle / "nano.safetensors", tmp_path)
    assert np.array_equal(answer(graph, image), answer(bundle / "nano.onnx", image))
    assert not any(found.level == "error" for found in check_file(graph))


def rewritten(weights: Path) -> None:
    save_checkpoint(load_checkpoint(weights), weights, {**stored_facts(weights), "note": "the same weights"})


def cut(weights: Path) -> None:
    os.truncate(weights, weights.stat().st_size // 2)


def flipped(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)


def made_a_folder(weights: Path) -> None:
    weights.unlink()
    weights.mkdir()


@pytest.mark.parametrize("change", [rewritten, cut, flipped, made_a_folder])
def test_a_checkpoint_that_is_not_the_graphs_own_is_refused(
    change: Callable[[Path], None], copy: Path
) -> None:
    change(copy / "nano.safetensors")
    refused(copy / "nano.steerable.onnx", "does not belong to the 'nano.safetensors' beside it")


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_files_that_an_installer_has_linked_are_read(
    link: Any, bundle: Path, tmp_path: Path, image: np.ndarray
) -> None:
    for name in NAMES:
        link(bundle / name, tmp_path / name)
    link(weights.__file__, tmp_path / "__init__.py")
    bundled = runpy.run_path(str(tmp_path / "__init__.py"))["bundled"]
    for end in (".onnx", ".steerable.onnx"):
        assert answer(bundled("nano", end), image).shape == image.shape
        assert read_graph(bundled("nano", end)).description.weights_sha256


def test_what_cannot_be_bundled_leaves_everything_as_it_was(copy: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(UsageError, match=r"one of .*nano.*, not 'nano-noise'"):
        write_bundle(CHECKPOINT, "nano-noise", copy)
    with pytest.raises(UsageError, match="holds a network of the variant nano, not small"):
        write_bundle(CHECKPOINT, "small", copy)

    def others(*_: object, steerable: bool) -> Graph:
        graph = read_graph(bundled("nano", ".steerable.onnx" if steerable else ".onnx"))
        for tensor in graph.model.graph.initializer:
            if tensor.name.endswith("bias"):
                tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + np.float32(0.1)).tobytes()
        return graph

    with pytest.raises(ParityError, match=r"nothing was written, nano\.onnx does not compute"):
        write_bundle(CHECKPOINT, "nano", copy, replace(READY, graph_of=others))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write into"):
        write_bundle(CHECKPOINT, "nano", tmp_path / "file", READY)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_graph_of_other_weights_does_not_point_into_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(MEASNet(VARIANTS["nano"]), tmp_path / "other.safetensors")
    model = read_graph(bundled("nano", ".onnx")).model
    with pytest.raises(UsageError, match="does not hold the weights of the graph"):
        share_weights(model, tmp_path / "other.safetensors")
