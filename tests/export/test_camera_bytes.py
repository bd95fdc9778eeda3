"""Graphs that take and return camera bytes: they are ``Restorer`` in one file, byte by byte."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conftest import thin_graph
from onnx import TensorProto

from measnet import GraphError, Restorer
from measnet.description import GraphDescription
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.camera_bytes import MODULE, camera_graph, reflected
from measnet.export.check import check_file
from measnet.export.cli import main
from measnet.export.graph import Graph, read_graph
from measnet.export.graph_session import GraphSession, run_graph
from measnet.export.make import SMALLER, Making
from measnet.export.precision import typed_graph
from measnet.image import ChannelOrder
from measnet.weights import bundled

SMALL = Making(any_size=SMALLER)
"""Tries graphs for any size on a quarter of the pixels, where what comes out of it is not the point."""

ROOT = Path(__file__).parents[2]
NANO = bundled("nano", ".onnx")
needs_rtx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "polygraphy", "filelock")),
    reason="not installed: tensorrt_rtx, polygraphy, filelock; pip install 'measnet[rtx]'",
)


def saved(graph: Graph, path: Path) -> Path:
    graph.write(path)
    return path


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Two frames of the sample clip: 2 360 640 3, uint8, RGB."""
    with av.open(str(ROOT / "examples" / "car-park.mp4")) as clip:
        taken = itertools.islice(clip.decode(video=0), 0, 20, 10)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in taken])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytes")


@pytest.fixture(scope="module")
def rgb(folder: Path) -> Path:
    return saved(camera_graph(read_graph(NANO)), folder / "nano.bytes.onnx")


@pytest.fixture(scope="module")
def bgr(folder: Path) -> Path:
    return saved(camera_graph(read_graph(NANO), channel_order="bgr"), folder / "nano.bytes-bgr.onnx")


@pytest.fixture(scope="module")
def half() -> Graph:
    """nano in FP16."""
    graph = read_graph(NANO)
    return graph.become(typed_graph(graph.model, "fp16").model, precision="fp16")


# From a single pixel over sides smaller than the network takes to odd ones that it does not.
SIZES = [(1, 1), (2, 130), (5, 70), (97, 131), (128, 144), (137, 173)]


@pytest.mark.parametrize(("order", "sizes"), [("rgb", SIZES), ("bgr", [(97, 131)])])
def test_the_bytes_are_those_of_the_restorer_at_every_size(
    order: ChannelOrder,
    sizes: list[tuple[int, int]],
    frames: np.ndarray,
    request: pytest.FixtureRequest,
) -> None:
    graph = GraphSession(request.getfixturevalue(order))
    restorer = Restorer("nano", channel_order=order)
    for height, width in sizes:
        batch = np.ascontiguousarray(frames[:, 100 : 100 + height, 200 : 200 + width])
        restored = graph.run(batch)["restored"]
        assert restored.dtype == np.uint8 and restored.shape == batch.shape
        for given, found in zip(batch, restored, strict=True):
            steps = np.abs(found.astype(int) - restorer(given))  # what lies on a half may fall to either side
            assert steps.max() <= 1 and np.count_nonzero(steps) <= 2


def test_a_picture_of_sixteen_bits_goes_through_rounded_and_is_verified_so(
    rgb: Path, frames: np.ndarray
) -> None:
    from measnet.runtime.parity import Verifier

    restorer = Restorer(str(rgb))
    frame = np.minimum(frames[0, :97, :131], 254)
    deep = frame * np.uint16(257) + np.uint16(90)  # rounds to the frame
    restored = restorer.restore(deep)
    assert (restored.pixels == restorer(frame) * np.uint16(257)).all()
    verifier = Verifier(restorer, str(bundled("nano", ".safetensors")))
    assert verifier.check(deep, restored).psnr_db > 80


def test_a_graph_of_one_size_takes_frames_of_exactly_the_size_asked_for(
    nano_graph: Path, folder: Path, frames: np.ndarray
) -> None:
    made = camera_graph(read_graph(nano_graph), frame_size=(125, 159))
    graph = saved(made, folder / "static.onnx")
    assert made.description.static_size == (125, 159)
    for value in (made.model.graph.input[0], made.model.graph.output[0]):
        dimensions = value.type.tensor_type.shape.dim
        assert [d.dim_value for d in dimensions[1:]] == [125, 159, 3]
        assert dimensions[0].dim_param == "batch"
    frame = np.ascontiguousarray(frames[0, :125, :159])
    assert (run_graph(graph, frame[None])["restored"][0] == Restorer(str(nano_graph))(frame)).all()
    whole = camera_graph(read_graph(nano_graph)).model
    assert not {"Slice", "Shape", "Range"} & {
        n.op_type for n in whole.graph.node if n.name.startswith(MODULE)
    }


def test_around_half_precision_the_conversion_stays_float32(
    half: Graph, folder: Path, frames: np.ndarray
) -> None:
    made = camera_graph(half, channel_order="bgr")
    model, description = made.model, made.description
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    ours = {name for node in model.graph.node if node.name.startswith(f"{MODULE}/") for name in node.output}
    assert {kinds[name] for name in ours & set(kinds)} == {TensorProto.FLOAT, TensorProto.INT64}
    assert description.precision == "fp16" and description.takes_bytes
    plain = saved(half, folder / "half.onnx")
    graph = saved(made, folder / "half.bytes-bgr.onnx")
    frame = frames[0, :97, :131]
    assert (
        run_graph(graph, frame[None])["restored"][0] == Restorer(str(plain), channel_order="bgr")(frame)
    ).all()


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_reflection_goes_to_and_fro_like_numpys(side: int) -> None:
    for grown in range(side, 4 * side + 2):
        assert (reflected(side, grown) == np.pad(np.arange(side), (0, grown - side), mode="reflect")).all()


def test_what_else_the_graph_says_stays(rgb: Path, frames: np.ndarray) -> None:
    outputs = run_graph(rgb, frames[:, :128, :144])
    before = run_graph(NANO, np.float32(1 / 255) * frames[:, :128, :144].transpose(0, 3, 1, 2))
    assert set(outputs) == set(before)
    for name in ("pixel_experts", "image_experts"):
        assert (outputs[name] == before[name]).all()


def test_the_file_says_what_it_takes(rgb: Path, bgr: Path) -> None:
    for path, order in ((rgb, "rgb"), (bgr, "bgr")):
        graph = read_graph(path)
        model, description = graph.model, graph.description
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert (description.io, description.channel_order) == ("uint8-nhwc", order)
        assert description.fit(1, 77) == (1, 77)
        assert metadata["measnet.size_rule"] == "any"
        assert metadata["measnet.input"] == f"image: B H W 3, {order.upper()}, uint8"
        assert metadata["measnet.output"] == f"restored: B H W 3, {order.upper()}, uint8"
    # What was written before there was a choice says nothing, and means the other form.
    assert read_graph(NANO).description.io == "nchw"
    metadata["measnet.io"] = "nchw"  # with BGR, which there is not
    with pytest.raises(GraphError, match="damaged MEASNet description"):
        GraphDescription.from_metadata(metadata, "x.onnx")


def test_nothing_in_it_is_what_tensorrt_refuses(rgb: Path) -> None:
    before = {
        (finding.level, finding.rule, finding.places)
        for finding in check_file(NANO)
        if finding.rule != "external-data"  # the note that its weights lie beside it
    }
    after = {(finding.level, finding.rule, finding.places) for finding in check_file(rgb)}
    assert after == before
    assert not any(level == "error" for level, _, _ in after)


def test_the_restorer_runs_it_whole_and_in_tiles_and_verifies_it(bgr: Path, frames: np.ndarray) -> None:
    from measnet.runtime.parity import Verifier

    frame = frames[0, 40:177, 60:281]
    assert (Restorer(str(bgr))(frame) == Restorer("nano")(frame)).all()
    for tile in ("off", 128):
        restorer = Restorer(str(bgr), tile=tile)
        verifier = Verifier(restorer, str(bundled("nano", ".safetensors")))
        parity = verifier.check(frame, restorer.restore(frame))
        assert parity.experts_agree > 0.999
        assert parity.psnr_db > 60 and verifier.figures["passed"]


def test_the_command_line_writes_it_and_holds_it_against_the_network(tmp_path: Path) -> None:
    arguments = ["--fp16", "--io", "uint8-nhwc", "--channel-order", "bgr", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments, obj=SMALL)
    assert result.exit_code == 0, result.output
    assert "nano, any size, BGR bytes in and out, FP16" in result.output
    assert re.search(r"camera bytes in and out +\d+\.\d dB .*(100\.0000|99\.\d+)%", result.output)
    stem = "nano-dynamic.fp16.bytes-bgr"
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.onnx", f"{stem}.json"}


def test_a_graph_for_one_size_is_for_that_size_and_not_for_the_networks(tmp_path: Path) -> None:
    arguments = ["--shape", "127x159", "--io", "uint8-nhwc", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "nano, 127x159 pixels, RGB bytes in and out" in result.output
    assert "parity with PyTorch on 127x159" in result.output
    assert read_graph(tmp_path / "nano-127x159.bytes.onnx").description.static_size == (127, 159)


def test_a_conversion_that_is_wrong_leaves_no_graph(tmp_path: Path) -> None:
    def swapped(graph: Graph, **form: Any) -> Graph:
        plain = camera_graph(graph, **{**form, "channel_order": "rgb"})
        return plain.become(plain.model, channel_order=form["channel_order"])

    arguments = ["--io", "uint8-nhwc", "--channel-order", "bgr", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments, obj=replace(SMALL, bytes_of=swapped))
    assert result.exit_code == 1 and "does not compute what the network does" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_example_pipes_raw_frames_through(rgb: Path, frames: np.ndarray) -> None:
    part = np.ascontiguousarray(frames[:, :101, :131])
    program = [sys.executable, str(ROOT / "examples" / "restore_bytes.py"), str(rgb), "101x131"]
    done = subprocess.run(program, input=part.tobytes(), capture_output=True, check=True)
    restored = np.frombuffer(done.stdout, np.uint8).reshape(part.shape)
    assert (restored[1] == Restorer("nano")(part[1])).all()


def test_an_order_of_channels_is_for_bytes_alone() -> None:
    result = CliRunner().invoke(main, ["--channel-order", "bgr"])
    assert result.exit_code == 2 and "--channel-order goes with --io uint8-nhwc" in result.stderr


@needs_rtx
def test_tensorrt_rtx_builds_it_for_frames_smaller_than_the_network_takes(tmp_path: Path) -> None:
    """Around next to no network: ``test_engine_matrix.py`` builds it around whole ones."""
    from measnet.engine_file import read_engine
    from measnet.export.engine import build_engines
    from measnet.export.target import find_targets

    thin = thin_graph()
    half = thin.become(typed_graph(thin.model, "fp16").model, precision="fp16")
    graph = saved(camera_graph(half), tmp_path / "thin.fp16.bytes.onnx")
    settings = BuildSettings((Profile.parse("1x17x33:1x128x190:2x250x256"),), optimization_level=0)
    targets = find_targets(("tensorrt-rtx",), ("sm75",))
    (built,) = build_engines([graph], targets, tmp_path, settings, cache=None)
    facts, _ = read_engine(built.path)
    assert built.notes == () and facts.compute_capability == "7.5"
    assert facts.profiles[0]["image"] == ((1, 17, 33, 3), (1, 128, 190, 3), (2, 250, 256, 3))
    assert facts.description.takes_bytes
