"""``measnet-export check``: says what TensorRT would refuse, of any file, without being harmed by it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from measnet.errors import GraphError
from measnet.export.builder_process import ParserAnswer, ask_parser
from measnet.export.check import LARGEST_FILE, Parser, check_file
from measnet.export.cli import main
from measnet.export.precision import typed_graph
from measnet.export.rules import Finding
from measnet.weights import at_hand, bundled

needs_rtx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorrt_rtx", "polygraphy", "filelock")),
    reason="not installed: tensorrt_rtx, polygraphy, filelock; pip install 'measnet[rtx]'",
)


def pleased(graph: bytes) -> ParserAnswer:
    """A parser that takes everything, whether NVIDIA's is here or not, which takes a second a time."""
    return ParserAnswer("a parser", ())


Node = onnx.NodeProto
FLOAT, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
IMAGE = [1, 4, 8, 8]


def node(operator: str, inputs: list[str], output: str = "y", **attributes: Any) -> Node:
    return helper.make_node(operator, inputs, [output], f"block.0/{operator}", **attributes)


def model_of(
    *nodes: Node,
    constants: dict[str, Any] | None = None,
    kind: int = FLOAT,
    shape: list[int | str] | None = None,
    out: int | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, IMAGE if shape is None else shape)],
        [helper.make_tensor_value_info("y", kind if out is None else out, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(model: onnx.ModelProto, folder: Path, parser: Parser = pleased) -> list[Finding]:
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    return check_file(path, parser)


def the_one(findings: list[Finding], rule: str) -> Finding:
    found = [finding for finding in findings if finding.rule == rule]
    assert len(found) == 1, findings
    return found[0]


K_OF_4000 = {"k": np.array([3841], np.int64)}
SIZES = {"s": np.array([1, 4, 4, 4], np.int64)}
SCATTERED = {"i": np.zeros(IMAGE, np.int64)}
SCALES = {"scale": np.float32(0.1), "zero": np.int8(3)}
I64 = TensorProto.INT64
BOOL = TensorProto.BOOL

FAULTS = {
    "TopK above 3840": (
        model_of(
            helper.make_node("TopK", ["x", "k"], ["y", "i"], "block.0/TopK", axis=1),
            constants=K_OF_4000,
            shape=[1, 4000, 2, 2],
        ),
        "top-k",
        "at most 3840",
    ),
    "unsigned quantization": (
        model_of(
            node("QuantizeLinear", ["x", "scale", "zero"]),
            constants={"scale": np.float32(0.1), "zero": np.uint8(0)},
            out=TensorProto.UINT8,
        ),
        "quantized-type",
        "INT8",
    ),
    "infinite FP16 constant": (
        model_of(node("Mul", ["x", "b"]), constants={"b": np.array([np.inf], np.float16)}, kind=HALF),
        "constant",
        "float32",
    ),
}

REFUSED = {
    "NonZero": (model_of(node("NonZero", ["x"]), out=I64), "TopK"),
    "DFT": (
        model_of(
            node("DFT", ["x", "", "a"]), constants={"a": np.int64(2)}, shape=[1, 4, 8, 1], opset=20, out=FLOAT
        ),
        "MatMul",
    ),
    "Compress": (
        model_of(node("Compress", ["x", "c"]), constants={"c": np.array([True])}),
        "TopK",
    ),
    "scatter with a sum": (
        model_of(
            node("ScatterElements", ["x", "i", "x"], axis=1, reduction="add"),
            constants=SCATTERED,
        ),
        "without a reduction",
    ),
    "antialiased resize": (
        model_of(node("Resize", ["x", "", "", "s"], mode="linear", antialias=1), constants=SIZES),
        "without antialias",
    ),
    "foreign domain": (
        model_of(helper.make_node("FusedConv", ["x"], ["y"], "block.0/FusedConv", domain="com.microsoft")),
        "plugin",
    ),
    "zero point": (
        model_of(node("QuantizeLinear", ["x", "scale", "zero"]), constants=SCALES, out=TensorProto.INT8),
        "symmetrically",
    ),
    "mixed types": (
        model_of(node("Add", ["x", "b"]), constants={"b": np.ones(1, np.float16)}),
        "types disagree",
    ),
    "a type that TensorRT lacks": (
        model_of(node("Identity", ["x"]), kind=TensorProto.INT16),
        "cast it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_that_names_node_operator_and_remedy(fault: str, tmp_path: Path) -> None:
    model, rule, remedy = FAULTS[fault]
    finding = the_one([f for f in check(model, tmp_path) if f.level == "error"], rule)
    assert remedy in finding.message + finding.remedy
    operator = model.graph.node[0].op_type
    if fault != "infinite FP16 constant":
        assert finding.places == (f"block.0/{operator}",)
        assert finding.operator == operator
    else:
        assert finding.places == ("b",) and "Mul" in finding.message


DOUBTS = {
    "control flow": (
        model_of(
            node("Greater", ["m", "m"], "c"),
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                "block.0/If",
                **{
                    name: helper.make_graph(
                        [helper.make_node("Identity", ["x"], [name])],
                        name,
                        [],
                        [helper.make_tensor_value_info(name, FLOAT, IMAGE)],
                    )
                    for name in ("then_branch", "else_branch")
                },
            ),
            constants={"m": np.float32(0)},
        ),
        "control-flow",
    ),
    "opset": (model_of(node("Relu", ["x"]), opset=12), "opset"),
    "dead node": (model_of(node("Relu", ["x"]), node("Exp", ["x"], "unused")), "dead"),
    "free dimensions": (model_of(node("Relu", ["x"]), shape=["batch", 4, "h", 8]), "dimensions"),
    "softmax in FP16": (model_of(node("Softmax", ["x"]), kind=HALF), "delicate"),
    "norm in BF16": (
        model_of(
            node("Cast", ["s"], "t", to=BF16),
            node("LayerNormalization", ["x", "t"]),
            constants={"s": np.ones(8, np.float32)},
            kind=BF16,
        ),
        "delicate",
    ),
    "a floor that is 0 in FP16": (
        model_of(node("Add", ["x", "f"]), constants={"f": np.float16(1e-12)}, kind=HALF),
        "constant",
    ),
    "scores in FP16": (
        model_of(
            helper.make_node("TopK", ["x", "k"], ["y", "i"], "r/TopK", axis=1),
            constants={"k": np.array([2], np.int64)},
            kind=HALF,
        ),
        "router",
    ),
    "cast of a cast": (
        model_of(node("Cast", ["x"], "h", to=HALF), helper.make_node("Cast", ["h"], ["y"], "b", to=FLOAT)),
        "casts",
    ),
    "double": (model_of(node("Relu", ["x"]), kind=TensorProto.DOUBLE), "type"),
}


@needs_rtx
@pytest.mark.parametrize("fault", REFUSED)
def test_what_nvidias_parser_refuses_is_an_error_with_its_words_and_our_remedy(
    fault: str, tmp_path: Path
) -> None:
    model, remedy = REFUSED[fault]
    finding = the_one(check(model, tmp_path, ask_parser), "parser")
    assert finding.level == "error" and finding.source.startswith("TensorRT-RTX 1.7")
    assert remedy in finding.remedy and "_src" not in finding.message
    operator = model.graph.node[0].op_type
    if finding.places:
        assert finding.places == (f"block.0/{operator}",) and finding.operator == operator


@needs_rtx
def test_constants_in_another_file_are_given_to_the_parser_too(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    found = check(with_external("w.bin"), tmp_path, ask_parser)
    assert [(f.level, f.rule) for f in found] == [("note", "external-data")]


def test_where_there_is_no_parser_the_check_says_so(tmp_path: Path) -> None:
    (finding,) = check(model_of(node("Relu", ["x"])), tmp_path, lambda graph: None)
    assert finding.level == "note" and "pip install 'measnet[rtx]'" in finding.remedy


@needs_rtx
def test_a_parser_that_does_not_survive_a_graph_is_a_fault_of_the_graph() -> None:
    answer = ask_parser(model_of(node("Relu", ["x"])).SerializeToString(), seconds=0.0)
    assert answer is None or "did not survive" in answer.faults[0]["text"]


@pytest.mark.parametrize("doubt", DOUBTS)
def test_what_builds_and_may_disappoint_is_a_warning(doubt: str, tmp_path: Path) -> None:
    model, rule = DOUBTS[doubt]
    findings = check(model, tmp_path)
    assert the_one(findings, rule).level == "warning"
    assert not [finding for finding in findings if finding.level == "error"]


def test_a_large_constant_is_a_warning(tmp_path: Path) -> None:
    large = np.zeros((4, 2048, 2049), np.float32)  # 67 MB
    model = model_of(node("Add", ["x", "w"]), constants={"w": large}, shape=list(large.shape))
    assert the_one(check(model, tmp_path), "constant-size").level == "warning"


def test_a_constant_that_fp16_would_lose_is_noted_with_what_uses_it(tmp_path: Path) -> None:
    model = model_of(node("Add", ["x", "f"]), constants={"f": np.float32(1e-12)})
    finding = the_one(check(model, tmp_path), "constant")
    assert finding.level == "note" and "Add must stay float32" in finding.message


@pytest.mark.parametrize(
    ("shape", "told"), [([1, 8], []), ([1, 4, 8], [("warning", "turing")])], ids=["rewritten", "refused"]
)
def test_a_float32_product_in_an_fp16_graph_is_a_warning_unless_turings_form_writes_it_otherwise(
    shape: list[int | str], told: list[tuple[str, str]], tmp_path: Path
) -> None:
    product = node("MatMul", ["x", "w"], "z")
    narrowed, scaled = node("Cast", ["z"], "h", to=HALF), node("Mul", ["h", "h"])
    weights = {"w": np.ones((8, 3), np.float32)}
    model = model_of(product, narrowed, scaled, constants=weights, shape=shape, out=HALF)
    assert [(finding.level, finding.rule) for finding in check(model, tmp_path)] == told


def test_a_float32_graph_is_noted_to_be_none_for_turing(tmp_path: Path) -> None:
    model = model_of(node("MatMul", ["x", "w"]), constants={"w": np.ones((8, 3), np.float32)})
    finding = the_one(check(model, tmp_path), "turing")
    assert finding.level == "note" and "--fp16" in finding.remedy


@pytest.mark.parametrize("name", at_hand(".steerable.onnx"))
def test_fp16_graphs_of_bundled_networks_have_no_product_that_turing_refuses(
    name: str, tmp_path: Path
) -> None:
    model = typed_graph(onnx.load(bundled(name, ".steerable.onnx")), "fp16").model
    assert [finding for finding in check(model, tmp_path) if finding.rule == "turing"] == []


def test_a_plain_graph_is_found_faultless(tmp_path: Path) -> None:
    assert check(model_of(node("Relu", ["x"])), tmp_path) == []


def test_the_same_fault_of_many_nodes_is_said_once(tmp_path: Path) -> None:
    names = ["x", *(f"t{i}" for i in range(5)), "y"]
    nodes = [
        helper.make_node("Softmax", [a], [b], f"layer{i}/Softmax")
        for i, (a, b) in enumerate(itertools.pairwise(names))
    ]
    (tmp_path / "x.onnx").write_bytes(model_of(*nodes, kind=HALF).SerializeToString())
    result = CliRunner().invoke(main, ["check", str(tmp_path / "x.onnx")], obj=pleased)
    assert result.exit_code == 0
    assert "Softmax at layer0/Softmax, layer1/Softmax, layer2/Softmax and 3 more" in result.output


@pytest.mark.parametrize("graph", ["dynamic_graph", "static_graph", "bundled"])
def test_our_own_float32_graphs_pass(graph: str, request: pytest.FixtureRequest) -> None:
    path = bundled("nano", ".onnx") if graph == "bundled" else request.getfixturevalue(graph)
    findings = check_file(path, pleased)
    assert [finding for finding in findings if finding.level != "note"] == []
    name = "nano" if graph == "bundled" else str(path)
    assert CliRunner().invoke(main, ["check", name], obj=pleased).exit_code == 0


def test_an_error_ends_in_exit_code_1_and_in_json(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(FAULTS["TopK above 3840"][0].SerializeToString())
    out = tmp_path / "found.json"
    result = CliRunner().invoke(main, ["check", str(tmp_path / "x.onnx"), "-o", str(out)], obj=pleased)
    assert result.exit_code == 1
    assert "error: TopK at block.0/TopK: " in result.output and "1 error" in result.output
    found = json.loads(out.read_text())["findings"][0]
    assert found["rule"] == "top-k" and found["source"] == "TensorRT-RTX 1.7.1"


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01 no graph at all", b"PK\x03\x04" * 50])
def test_what_is_no_onnx_file_ends_in_one_line_and_exit_code_2(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    result = CliRunner().invoke(main, ["check", str(path)], obj=pleased)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_a_folder_and_a_file_beyond_the_limit_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="not a file"):
        check_file(tmp_path)
    (tmp_path / "x.onnx").touch()
    os.truncate(tmp_path / "x.onnx", LARGEST_FILE + 1)  # with nothing in it
    with pytest.raises(GraphError, match="at most"):
        check_file(tmp_path / "x.onnx")


def with_external(location: str, length: int = 16) -> onnx.ModelProto:
    model = model_of(node("Add", ["x", "w"]))
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4, 1, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "", "a\0b", "link.bin"])
def test_constants_outside_the_graphs_folder_are_an_error_and_not_opened(
    location: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    found = [f for f in check(with_external(location), folder) if f.rule == "external-data"]
    assert "outside the graph's own folder" in found[0].message and found[0].level == "error"


def test_constants_beside_the_graph_are_a_note_unless_they_are_cut_short(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    assert [f.level for f in check(with_external("w.bin"), tmp_path)] == ["note"]
    assert check(with_external("w.bin", length=17), tmp_path)[0].level == "error"
    assert check(with_external("gone.bin"), tmp_path)[0].level == "error"


def test_damaged_and_hostile_files_end_in_findings_or_one_error(tmp_path: Path) -> None:
    # Bytes and fields of a sound graph are changed at random; nothing but GraphError may come out.
    rng = random.Random(0)
    sound = FAULTS["TopK above 3840"][0].SerializeToString()
    operators = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
    for turn in range(300):
        content = bytearray(sound)
        model = onnx.load_model_from_string(sound)
        if turn % 2:
            for _ in range(rng.choice([1, 3])):
                content[rng.randrange(len(content))] = rng.randrange(256)
        else:
            constant, first = model.graph.initializer[0], model.graph.node[0]
            change = rng.randrange(6)
            if change == 0:
                constant.dims[0] = rng.choice([-1, 0, 1 << 40, 1 << 62])
            elif change == 1:
                constant.data_type = rng.randrange(40)
            elif change == 2:
                first.op_type = rng.choice(operators)
            elif change == 3:
                model.opset_import[0].version = rng.choice([-3, 0, 1, 99, 1 << 40])
            elif change == 4:
                first.input[0] = rng.choice(["", "y", "nothing"])
            else:
                first.name = "\x1b[31mred\n" * rng.choice([1, 100])
            content = bytearray(model.SerializeToString())
        (tmp_path / "x.onnx").write_bytes(content)
        result = CliRunner().invoke(main, ["check", str(tmp_path / "x.onnx"), "--debug"], obj=pleased)
        assert isinstance(result.exception, SystemExit | GraphError | None), result.exception
        assert "\x1b" not in result.output
