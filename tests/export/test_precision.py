"""16-bit graphs: typed as strongly typed engines want it, and still the network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from measnet.checkpoint import load_checkpoint
from measnet.description import GraphDescription
from measnet.errors import GraphError
from measnet.export.check import check_file
from measnet.export.cli import main
from measnet.export.emulation import emulated
from measnet.export.graph import Graph, read_graph
from measnet.export.graph_session import GraphSession
from measnet.export.make import SMALLER, Making, _runs
from measnet.export.measure import Measured, measure, network_answer, parity_with
from measnet.export.pictures import real_pictures
from measnet.export.precision import TypedGraph, lost, rounded_to_16_bits, typed_graph
from measnet.export.ranges import largest_magnitudes
from measnet.metrics import FP16_TOLERANCE, TOLERANCES, Tolerance
from measnet.network import MEASNet
from measnet.runtime.parity import Verifier
from measnet.runtime.restorer import Restorer
from measnet.weights import bundled

Precision = Literal["fp16", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16")
TYPED = [("nano", "fp16"), ("nano", "bf16"), ("tiny", "fp16"), ("tiny", "bf16")]

SMALL = Making(any_size=SMALLER)
"""Tries graphs for any size on a quarter of the pixels, where what comes out of it is not the point."""


@pytest.fixture(scope="module")
def typed(dynamic_graph: Path) -> dict[tuple[str, str], TypedGraph]:
    """Typed graphs by name and precision: of the bundled weights, whose network is gated, and of the golden
    ones."""
    paths = {"nano": bundled("nano", ".onnx"), "tiny": dynamic_graph}
    return {
        (name, precision): typed_graph(read_graph(paths[name]).model, precision)  # type: ignore[arg-type]
        for name, precision in TYPED
    }


@pytest.fixture(params=TYPED, ids=lambda pair: " ".join(pair))
def one(request: pytest.FixtureRequest, typed: dict[tuple[str, str], TypedGraph]) -> TypedGraph:
    return typed[request.param]


def types_in(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def before(model: onnx.ModelProto, name: str) -> set[str]:
    """All tensors that lead to one, itself included."""
    maker = {output: node for node in model.graph.node for output in node.output}
    found, open_ends = set(), [name]
    while open_ends:
        tensor = open_ends.pop()
        if tensor and tensor not in found:
            found.add(tensor)
            open_ends += maker[tensor].input if tensor in maker else []
    return found


def small_graph(nodes: list[onnx.NodeProto], constants: dict[str, float], out: str = "y") -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, [4])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def measured_on(pictures: np.ndarray, typed: TypedGraph, network: MEASNet) -> Measured:
    graph = Graph.described(typed.model).become(typed.model, precision=typed.precision)
    tolerance = TOLERANCES[typed.precision]
    return measure(_runs(graph), network, [("two", pictures)], tolerance, pictures="")


@pytest.mark.parametrize(("precision", "least"), [("fp16", 55.0), ("bf16", 45.0)])
def test_the_bundled_weights_keep_their_picture_and_their_experts(
    precision: Precision, least: float, typed: dict[tuple[str, str], TypedGraph]
) -> None:
    network = load_checkpoint(bundled("nano", ".safetensors"))
    pictures, _ = real_pictures(None, 2, 192, 240)
    measured = measured_on(pictures, typed["nano", precision], network)
    assert set(measured.parity) == ({"rounded", "onnxruntime"} if precision == "fp16" else {"rounded"})
    for parity in measured.parity.values():
        assert parity.psnr_db > least
        assert parity.experts_agree > 0.999
        assert parity.largest_difference < 0.05


@pytest.mark.parametrize(("precision", "least"), [("fp16", 60.0), ("bf16", 42.0)])
def test_the_golden_weights_keep_their_output_relative_to_its_span(
    precision: Precision,
    least: float,
    typed: dict[tuple[str, str], TypedGraph],
    golden_checkpoint: Callable[[str], Path],
) -> None:
    pictures, _ = real_pictures(None, 1, 136, 200)
    expected = network_answer(load_checkpoint(golden_checkpoint("tiny")), pictures)
    graph = emulated(typed["tiny", precision].model).SerializeToString()
    parity = parity_with(GraphSession(graph), expected, pictures)
    span = float(expected.restored.max() - expected.restored.min())
    assert parity.psnr_db + 20 * np.log10(span) > least
    assert parity.experts_agree > 0.99


@pytest.mark.parametrize("precision", PRECISIONS)
def test_of_a_gated_network_the_picture_itself_is_float32_and_products_are_not(
    precision: Precision, typed: dict[tuple[str, str], TypedGraph]
) -> None:
    reasons = typed["nano", precision].reasons
    for name in (
        "tone/Mul",
        "tone/AveragePool",
        "tone.see/Gemm",
        "tone/ReduceSum",
        "measnet/Mul",
        "measnet/Add",
    ):
        assert reasons[name] == "last sum", name
    assert reasons["pixel_experts1/ScatterElements"] == "pixel ensemble"
    for name in ("pixel_experts1.sum/Conv", "encoder2.0/Mul", "latent.0.mix_value/Conv", "up3/Add"):
        assert reasons[name] == "", name


def test_every_operator_has_operands_of_one_type_and_inputs_and_outputs_stay_float32(one: TypedGraph) -> None:
    onnx.checker.check_model(one.model, full_check=True)
    types = types_in(one.model)
    reals = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    for node in one.model.graph.node:
        if node.op_type not in ("Cast", "Shape", "Size"):
            operands = (
                node.input[:1] if node.op_type == "Resize" else node.input
            )  # its scales are float32 ever
            assert len(reals & {types[name] for name in (*operands, *node.output) if name}) <= 1, node.name
    assert types["image"] == types["restored"] == types["prompt_weights"] == TensorProto.FLOAT


def test_most_weights_take_half_the_room(one: TypedGraph) -> None:
    sizes = Counter[int]()
    for tensor in one.model.graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    low = TensorProto.FLOAT16 if one.precision == "fp16" else TensorProto.BFLOAT16
    assert sizes[low] > 4 * sizes[TensorProto.FLOAT]


def test_casts_stand_at_borders_alone_and_once_per_tensor(one: TypedGraph) -> None:
    maker = {name: node for node in one.model.graph.node for name in node.output}
    ours = [n for n in one.model.graph.node if n.op_type == "Cast" and "/to_" in n.name]
    assert ours
    for cast in ours:
        made_by = maker.get(cast.input[0])
        assert made_by is None or made_by not in ours, f"{cast.name} casts a cast"
    assert len({(cast.input[0], cast.attribute[0].i) for cast in ours}) == len(ours)
    names = [node.name for node in one.model.graph.node]
    assert len(set(names)) == len(names)


def test_no_number_goes_down_up_and_down_again_without_being_computed_on(one: TypedGraph) -> None:
    from measnet.export.precision import MOVES

    maker = {name: node for node in one.model.graph.node for name in node.output}
    types = types_in(one.model)
    for node in one.model.graph.node:
        if node.op_type != "Cast" or types[node.input[0]] != TensorProto.FLOAT:
            continue
        if types[node.output[0]] not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            continue
        behind = maker.get(node.input[0])
        while behind is not None and behind.op_type in MOVES and len(behind.input):
            behind = maker.get(behind.input[0])
        assert behind is None or behind.op_type != "Cast" or "/to_" not in behind.name, node.name


def test_the_whole_path_into_the_pixel_router_is_float32(one: TypedGraph) -> None:
    types = types_in(one.model)
    router = next(n for n in one.model.graph.node if n.name == "pixel_experts1/TopK")
    path = before(one.model, router.input[0])
    assert "image" in path
    assert not [name for name in path if types[name] in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]


def test_image_routers_are_float32_from_the_mean_of_their_features_on(one: TypedGraph) -> None:
    types = types_in(one.model)
    maker = {name: node for node in one.model.graph.node for name in node.output}
    routers = [n for n in one.model.graph.node if n.op_type == "TopK" and n.name.startswith("fd_mee")]
    assert routers
    for router in routers:
        node = maker[router.input[0]]
        chain = [node.op_type]
        while node.op_type != "ReduceMean":
            assert types[node.output[0]] == types[node.input[0]] == TensorProto.FLOAT
            node = maker[node.input[0]]
            chain.append(node.op_type)
        assert types[node.input[0]] == TensorProto.FLOAT
        assert chain == ["Softmax", "Gemm", "ReduceMean"]


def test_delicate_operators_are_float32(one: TypedGraph) -> None:
    types = types_in(one.model)
    delicate = {"Softmax", "LogSoftmax", "Exp", "Log", "ReduceL2", "ReduceMean", "LayerNormalization", "TopK"}
    for node in one.model.graph.node:
        if node.op_type in delicate:
            assert types[node.input[0]] == TensorProto.FLOAT, node.name
    filters = [n for n in one.model.graph.node if ".decompose.norm/" in n.name]
    assert filters and all(types[node.output[0]] == TensorProto.FLOAT for node in filters)


def test_every_typed_graph_passes_our_own_check(one: TypedGraph, tmp_path: Path) -> None:
    Graph.described(one.model).write(tmp_path / "x.onnx")
    assert [f for f in check_file(tmp_path / "x.onnx") if f.level != "note"] == []


def test_a_floor_that_16_bits_cannot_hold_keeps_its_operator_in_float32() -> None:
    model = small_graph(
        [
            helper.make_node("Add", ["image", "floor"], ["a"], "floored"),
            helper.make_node("Mul", ["a", "huge"], ["b"], "raised"),
            helper.make_node("Mul", ["b", "half"], ["y"], "halved"),
        ],
        {"floor": 1e-12, "huge": 1e6, "half": 0.5},
    )
    fp16 = typed_graph(model, "fp16").reasons
    assert fp16["floored"] == "the constant floor cannot be FP16"
    assert fp16["raised"] == "the constant huge cannot be FP16"
    assert fp16["halved"] == ""
    assert set(typed_graph(model, "bf16").reasons.values()) == {""}


def test_a_tiny_weight_beside_large_ones_is_no_reason_and_a_lone_one_is() -> None:
    assert not lost(np.array([1.0, 1e-12], np.float32), "fp16")
    assert lost(np.array([0.0, 1e-12], np.float32), "fp16")
    assert lost(np.array([1.0, 7e4], np.float32), "fp16")
    assert not lost(np.zeros(3, np.float32), "fp16")
    assert not lost(np.array([1e-12, 7e4], np.float32), "bf16")


def test_an_operator_whose_values_come_near_the_limit_stays_float32() -> None:
    model = small_graph(
        [
            helper.make_node("Mul", ["image", "many"], ["a"], "large"),
            helper.make_node("Mul", ["a", "few"], ["y"], "small"),
        ],
        {"many": 30000.0, "few": 1e-4},
    )
    ranges = largest_magnitudes(model, np.array([0, 0.5, 1, -1], np.float32))
    assert ranges["a"] == pytest.approx(30000) and ranges["y"] == pytest.approx(3)
    reasons = typed_graph(model, "fp16", ranges=ranges).reasons
    assert "values of up to 3e+04" in reasons["large"] and "values of up to 3e+04" in reasons["small"]
    assert set(typed_graph(model, "bf16", ranges=ranges).reasons.values()) == {""}


def test_a_network_that_is_not_finite_is_not_typed() -> None:
    model = small_graph([helper.make_node("Log", ["image"], ["y"], "log")], {})
    with pytest.raises(GraphError, match="tensor y of the graph is not finite"):
        largest_magnitudes(model, np.array([0, 1, 1, 1], np.float32))


def test_an_operator_without_a_16_bit_form_stays_float32(dynamic_graph: Path) -> None:
    typed = typed_graph(onnx.load(dynamic_graph), "bf16", keep=lambda node: None)
    assert typed.reasons["pixel_experts1/TopK"] == "TopK has no BF16 form"


def test_a_graph_with_branches_is_refused() -> None:
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])
    branch = helper.make_graph([helper.make_node("Identity", ["image"], ["z"])], "b", [], [out])
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch)
    with pytest.raises(GraphError, match="branches or loops"):
        typed_graph(small_graph([node], {}), "fp16")


def test_rounding_is_that_of_the_hardware_types() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(20000) * 10 ** rng.uniform(-9, 4, 20000)).astype(np.float32)
    tensor = torch.from_numpy(values)
    np.testing.assert_array_equal(rounded_to_16_bits(values, "fp16"), tensor.half().float().numpy())
    np.testing.assert_array_equal(rounded_to_16_bits(values, "bf16"), tensor.bfloat16().float().numpy())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_emulation_rounds_after_every_operator(precision: Precision) -> None:
    model = small_graph(
        [
            helper.make_node("Mul", ["image", "third"], ["a"], "m"),
            helper.make_node("Add", ["a", "third"], ["y"], "a"),
        ],
        {"third": 1 / 3},
    )
    image = np.random.default_rng(0).random(4, np.float32)
    graph = emulated(typed_graph(model, precision).model)
    got = ort.InferenceSession(graph.SerializeToString()).run(None, {"image": image})[0]
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    third = torch.tensor(1 / 3).to(kind)
    np.testing.assert_array_equal(got, (torch.from_numpy(image).to(kind) * third + third).float().numpy())


def test_our_operators_mean_the_same_in_the_opset_of_bfloat16() -> None:
    pictures, _ = real_pictures(None, 1, 128, 160)
    model = read_graph(bundled("nano", ".onnx")).model
    results = []
    for opset in (20, 22):
        model.opset_import[0].version = opset
        session = ort.InferenceSession(model.SerializeToString())
        results.append(session.run(["restored"], {"image": pictures})[0])
    np.testing.assert_array_equal(results[0], results[1])


def test_without_an_option_the_bundled_weights_become_a_typed_graph_with_a_report(
    tmp_path: Path, noisy_picture: np.ndarray
) -> None:
    result = CliRunner().invoke(main, ["--fp16", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nano-dynamic.fp16.json", "nano-dynamic.fp16.onnx"]
    assert "nano, any size, FP16" in result.output
    assert "every 16-bit tensor rounded" in result.output

    report = json.loads((tmp_path / "nano-dynamic.fp16.json").read_text())
    assert report["graph"]["measnet.precision"] == "fp16"
    assert report["bytes"]["graph"] < 0.6 * report["bytes"]["float32"]
    assert report["parity"]["figures"]["rounded"]["psnr_db"] > 55
    assert report["parity"]["figures"]["rounded"]["experts_agree"] > 0.99
    assert report["parity"]["breaches"] == []
    assert set(report["modules"]["pixel_experts1"]) == {"fp16", "fp32"}
    assert report["float32"]["stem/Conv"] == "pixel router"

    graph = tmp_path / "nano-dynamic.fp16.onnx"
    metadata = {entry.key: entry.value for entry in onnx.load(graph).metadata_props}
    assert GraphDescription.from_metadata(metadata, "x").precision == "fp16"
    restorer = Restorer(str(graph))
    verifier = Verifier(restorer, str(bundled("nano", ".safetensors")))
    verifier.check(noisy_picture, restorer.restore(noisy_picture))
    assert restorer.description["precision"] == "fp16"
    assert verifier.figures["tolerance"] == vars(FP16_TOLERANCE)
    assert verifier.figures["passed"]


def test_a_graph_that_loses_too_much_is_not_written(tmp_path: Path) -> None:
    strict = replace(SMALL, tolerances={name: Tolerance(200, 0, 1) for name in PRECISIONS})
    result = CliRunner().invoke(main, ["--bf16", "-o", str(tmp_path / "x.onnx")], obj=strict)
    assert result.exit_code == 1
    assert "BF16 loses too much of this network" in result.stderr and "below 200 dB" in result.stderr
    assert list(tmp_path.iterdir()) == []

    unverified = ["--bf16", "--no-verify", "-o", str(tmp_path / "x.onnx")]
    assert CliRunner().invoke(main, unverified, obj=strict).exit_code == 0
    assert json.loads((tmp_path / "x.json").read_text())["parity"] is None


def test_pictures_to_verify_on_are_the_users_own(tmp_path: Path, noisy_picture: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "mine.png"), noisy_picture)
    options = ["--bf16", "-o", str(tmp_path), "--pictures"]
    result = CliRunner().invoke(main, [*options, str(tmp_path / "mine.png")], obj=SMALL)
    assert result.exit_code == 0, result.output
    assert "1 of mine.png at 128x160" in result.output
    missing = CliRunner().invoke(main, [*options, str(tmp_path / "nothing.mp4")])
    assert missing.exit_code == 2 and "nothing.mp4 does not exist" in missing.stderr


def test_a_bf16_graph_says_on_a_cpu_that_it_needs_a_gpu(
    typed: dict[tuple[str, str], TypedGraph], tmp_path: Path
) -> None:
    Graph.described(typed["nano", "bf16"].model).write(tmp_path / "x.onnx")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("ONNX Runtime may run it here")
    with pytest.raises(GraphError, match="BF16 needs a GPU"):
        Restorer(str(tmp_path / "x.onnx"))
