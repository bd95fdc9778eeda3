"""A graph's claims are checked before a library builds it; a graph that was altered is noticed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from measnet.errors import GraphError
from measnet.export.check import check_file
from measnet.export.graph import Graph, read_graph
from measnet.onnx_file import check_graph_file
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.weights import bundled

NANO = bundled("nano", ".onnx")


def unsealed() -> onnx.ModelProto:
    """The bundled graph as a stranger would hand it on: nothing says how it was written."""
    model = read_graph(NANO).model
    return model


def changed(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = unsealed()
    change(model)
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives a graph to a library fails."""

    def build(*_: object, **__: object) -> None:
        pytest.fail("the graph was given to ONNX Runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", build)


def refused(path: Path, words: str) -> None:
    """Running refuses it and so does building engines; --check finds an error in it."""
    with pytest.raises(GraphError, match=words):
        OnnxRuntimeBackend(path).activate()
    with pytest.raises(GraphError, match=words):
        read_graph(path)


def external(tensor: TensorProto, location: str, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(length))


PLACES = [
    "{}/secret.bin",
    "../secret.bin",
    "inside/../../secret.bin",
    "link.bin",
    "away/secret.bin",
    "",
    "a\0b",
]


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("location", PLACES)
@pytest.mark.parametrize("place", ["initialiser", "attribute", "branch"])
def test_constants_outside_the_graphs_folder_are_not_opened(
    place: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "away").symlink_to(tmp_path)
    monkeypatch.chdir(folder)

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        if place == "attribute":
            model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
            tensor = model.graph.node[-1].attribute[0].t
        elif place == "branch":
            inner = helper.make_graph([], "inner", [], [], [tensor])
            model.graph.node.append(
                helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
            )
            tensor = model.graph.node[-1].attribute[0].g.initializer[0]
        external(tensor, location.format(tmp_path), 16)

    path = changed(folder, change)
    refused(path, "not in the graph's own folder; it is not opened")
    first = next(finding for finding in check_file(path) if finding.rule == "external-data")
    assert first.level == "error" and "outside the graph's own folder" in first.message


def test_constants_beside_the_graph_are_read(tmp_path: Path) -> None:
    model = unsealed()
    onnx.save(model, tmp_path / "x.onnx", save_as_external_data=True, location="x.bin", size_threshold=4096)
    OnnxRuntimeBackend(tmp_path / "x.onnx").activate()
    os.truncate(tmp_path / "x.bin", 5000)
    with pytest.raises(GraphError, match="missing, too short"):
        OnnxRuntimeBackend(tmp_path / "x.onnx").activate()


def grown(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [100_000, 100_000]


def grown_in_branch(model: onnx.ModelProto) -> None:
    tensor = TensorProto(dims=[1 << 40], data_type=TensorProto.FLOAT, raw_data=bytes(4))
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]).reshape(-1)[:1], "v")
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20]))


def negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (grown, r"claims the shape \[100000, 100000\], and \d+ bytes are stored"),
        (grown_in_branch, r"claims the shape \[1099511627776\], and 4 bytes"),
        (sparse, "is sparse"),
        (negative, r"claims the shape \[-1"),
    ],
)
def test_constants_that_claim_more_than_there_is_are_not_built(
    change: Callable[[onnx.ModelProto], None], words: str, tmp_path: Path
) -> None:
    refused(changed(tmp_path, change), words)


@pytest.mark.usefixtures("unbuilt")
def test_a_graph_written_twice_into_one_file_is_refused(tmp_path: Path) -> None:
    # Protobuf would merge them, and the claims of the whole be others than those of the parts.
    (tmp_path / "x.onnx").write_bytes(unsealed().SerializeToString() * 2)
    refused(tmp_path / "x.onnx", "not in order")


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("size", ["99999999x99999999", "16385x8", "0x0", "1x1x1"])
def test_a_description_of_an_absurd_size_is_refused(size: str, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        next(e for e in model.metadata_props if e.key == "measnet.size").value = size

    with pytest.raises(GraphError, match="damaged MEASNet description"):
        read_graph(changed(tmp_path, change))


def test_a_graph_that_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    Graph.described(onnx.load(NANO)).write(path)
    check_graph_file(path)
    Graph.described(onnx.load(path)).write(path)  # one seal, not two
    sound = path.read_bytes()
    assert sound.count(b"measnet.sha256") == 1
    assert onnx.load(path).metadata_props[-1].key == "measnet.sha256"
    for at in (0, len(sound) // 2, len(sound) - 300, len(sound) - 1):
        flipped = bytearray(sound)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        refused(path, "is not as measnet-export wrote it")
    for length in (0, 5, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(GraphError):
            OnnxRuntimeBackend(path).activate()


def test_a_sealed_graph_runs(tmp_path: Path) -> None:
    Graph.described(onnx.load(NANO)).write(tmp_path / "x.onnx")
    OnnxRuntimeBackend(tmp_path / "x.onnx").activate()
    (tmp_path / "unsealed.onnx").write_bytes(unsealed().SerializeToString())
    check_graph_file(tmp_path / "unsealed.onnx")
