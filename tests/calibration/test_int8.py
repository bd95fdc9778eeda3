"""``measnet-calibrate``: from a checkpoint and frames to a graph that runs, and what is said of it."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

from measnet.calibration.cli import Calibrating, main
from measnet.calibration.int8 import Int8Graph, int8_network
from measnet.export.build_settings import BuildSettings
from measnet.export.check import check_file
from measnet.export.engine import engine_facts
from measnet.export.graph import read_graph
from measnet.export.pictures import sample_clip
from measnet.export.target import EngineTarget
from measnet.metrics import INT8_TOLERANCE, TOLERANCES, Tolerance
from measnet.runtime.parity import Verifier
from measnet.runtime.restorer import Restorer
from measnet.weights import bundled

CLIP = sample_clip()
needs_clip = pytest.mark.skipif(CLIP is None, reason="no examples/car-park.mp4 here")
ABSENT = [
    name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None
]
needs_rtx = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'measnet[rtx]'"
)


def export(*options: str, network: Callable[..., Int8Graph] = int8_network) -> Result:
    """Calibrates and measures on a quarter of the pixels of each frame."""
    calibrating = Calibrating(any_size=(128, 160), network=network)
    return CliRunner().invoke(main, ["nano", *options], obj=calibrating)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The INT8 graph of the bundled weights, calibrated on four frames, and what was printed."""
    if CLIP is None:
        pytest.skip("no examples/car-park.mp4 here")
    folder = tmp_path_factory.mktemp("int8")
    result = export(str(CLIP), "--limit", "4", "-o", str(folder))
    assert result.exit_code == 0, result.output
    return folder / "nano-dynamic.int8.onnx", result.output


@pytest.fixture(scope="module")
def graph(exported: tuple[Path, str]) -> onnx.ModelProto:
    return onnx.load(exported[0])


def test_the_loss_on_other_frames_is_printed_and_reported(exported: tuple[Path, str]) -> None:
    path, output = exported
    assert "nano, any size, INT8" in output and "convolutions and products are INT8" in output
    assert "calibrated on 4 frames of car-park.mp4, 128x160 of each" in output
    assert "on 1 other frame" in output
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["graph"]["measnet.precision"] == "int8"
    assert report["bytes"]["graph"] == path.stat().st_size < 0.5 * report["bytes"]["float32"]
    loss = report["loss"]
    assert set(loss["figures"]) == {"rounded", "onnxruntime", "without_int8"}
    for way in ("rounded", "onnxruntime"):
        assert 30 < loss["figures"][way]["psnr_db"] < loss["figures"]["without_int8"]["psnr_db"]
        assert loss["figures"][way]["psnr_db"] > loss["effect_db"] + 10
    calibration = report["calibration"]
    assert len(calibration["frames"]) == 4 and len(calibration["sha256"]) == 64
    assert not set(loss["frames"]) & set(calibration["frames"])
    assert report["not_int8"]["output/Conv"] == "output head"
    assert report["modules"]["latent"]["int8"] > 0 and "int8" not in report["modules"]["stem"]
    assert report["float32"]["stem/Conv"] == "pixel router"


def test_the_graph_says_what_it_was_calibrated_on(exported: tuple[Path, str], graph: onnx.ModelProto) -> None:
    report = json.loads(exported[0].with_suffix(".json").read_text())
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["measnet.calibration"]) == {
        "source": "car-park.mp4",
        "frames": 4,
        "sha256": report["calibration"]["sha256"],
    }
    target = EngineTarget("tensorrt-rtx", "1.7", "8.9")
    facts = engine_facts(read_graph(exported[0]), (), BuildSettings(), target)
    assert facts.calibration_sha256 == report["calibration"]["sha256"]


def test_every_convolution_in_int8_adds_up_its_bias_in_fp16_and_nothing_else_is_quantised(
    graph: onnx.ModelProto,
) -> None:
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    assert types["image"] == types["restored"] == TensorProto.FLOAT
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    dequantise = [node for node in graph.graph.node if node.op_type == "DequantizeLinear"]
    assert len(dequantise) > 100
    for node in dequantise:
        assert types[node.input[0]] == TensorProto.INT8
        assert types[node.output[0]] == TensorProto.FLOAT16
        for user in users[node.output[0]]:
            assert user.op_type == "Conv" and node.output[0] in user.input[:2]
            if len(user.input) > 2:
                assert types[user.input[2]] == TensorProto.FLOAT16
    quantised = [node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert len(set(quantised)) == len(quantised)
    assert len({node.name for node in graph.graph.node}) == len(graph.graph.node)


def test_our_own_check_finds_nothing_wrong_with_it(exported: tuple[Path, str]) -> None:
    assert [finding for finding in check_file(exported[0]) if finding.level != "note"] == []


def test_it_restores_frames_and_is_verified_with_int8s_own_tolerance(
    exported: tuple[Path, str], noisy_picture: np.ndarray
) -> None:
    restorer = Restorer(str(exported[0]))
    assert restorer.description["precision"] == "int8"
    verifier = Verifier(restorer, str(bundled("nano", ".safetensors")))
    verifier.check(noisy_picture, restorer.restore(noisy_picture))
    assert verifier.figures["tolerance"] == vars(INT8_TOLERANCE)
    assert verifier.figures["psnr_db"] > 30


@needs_rtx
def test_tensorrt_rtx_builds_it(exported: tuple[Path, str], tmp_path: Path) -> None:
    from measnet.engine_file import read_engine
    from measnet.export.build_settings import BuildSettings, Profile
    from measnet.export.engine import build_engines
    from measnet.export.target import find_targets

    settings = BuildSettings((Profile.parse("128x160"),), optimization_level=0)
    targets = find_targets(("tensorrt-rtx",), ("sm75",))
    (built,) = build_engines([exported[0]], targets, tmp_path, settings, cache=None)
    facts, plan = read_engine(built.path)
    assert facts.compute_capability == "7.5" and len(plan) > 100_000
    assert facts.description.precision == "int8"
    assert facts.calibration_sha256 == read_graph(exported[0]).description.calibration.sha256


@needs_clip
def test_a_large_loss_is_said_and_the_graph_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TOLERANCES, "int8", Tolerance(200, 0, 1))
    result = export(str(CLIP), "--limit", "1", "-o", str(tmp_path / "x.onnx"))
    assert result.exit_code == 0, result.output
    assert "A LARGE LOSS: PSNR" in result.output and "below 200 dB" in result.output
    assert json.loads((tmp_path / "x.json").read_text())["loss"]["breaches"]


def test_one_picture_calibrates_only_where_the_loss_need_not_be_measured(
    tmp_path: Path, noisy_picture: np.ndarray
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), noisy_picture)
    options = [str(tmp_path / "one.png"), "-o", str(tmp_path / "x.onnx")]
    refused = export(*options)
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert "one.png has one frame; INT8 needs two" in refused.stderr
    assert not (tmp_path / "x.onnx").exists()
    taken = export(*options, "--no-verify")
    assert taken.exit_code == 0, taken.output
    assert "its loss was not measured" in taken.output
    assert json.loads((tmp_path / "x.json").read_text())["loss"] is None


def test_a_graph_whose_result_is_not_finite_is_not_written(tmp_path: Path, noisy_picture: np.ndarray) -> None:
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.roll(noisy_picture, 9 * index, 1))

    def broken(model: onnx.ModelProto, *_: object) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(model)
        head = next(t for t in result.graph.initializer if t.name == "network.output.weight")
        head.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(head.dims), np.nan, np.float32), head.name))
        return result

    network = functools.partial(int8_network, quantise=broken)
    result = export(str(tmp_path), "-o", str(tmp_path / "x.onnx"), network=network)
    assert result.exit_code == 1 and "is not finite" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing.mp4"], "nothing.mp4 does not exist"),
        (["."], "holds no images"),
    ],
)
def test_a_users_mistake_ends_in_one_line_and_exit_code_2(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = export(*options)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert message in result.stderr and list(tmp_path.iterdir()) == []
