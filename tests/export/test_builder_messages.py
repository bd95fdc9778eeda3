"""TensorRT's messages become one sentence with our module, the operator and what to do."""

from __future__ import annotations

import pytest

from measnet.export.builder_messages import UNKNOWN, build_failed, parse_failed, remedy


def fault(name: str, operator: str, text: str, code: str = "UNSUPPORTED_NODE") -> dict[str, str]:
    return {"name": name, "operator": operator, "text": text, "code": code}


def test_a_parser_error_names_module_operator_and_remedy() -> None:
    said = "Assertion failed: creator && NonZero plugin creator version 1 was not found in plugin registry."
    message = parse_failed("TensorRT 11.4", [fault("pixel_experts1.router/NonZero_2", "NonZero", said)])
    assert message.startswith(
        "TensorRT 11.4 does not take this graph: module pixel_experts1.router, operator"
    )
    assert "operator NonZero: Assertion failed" in message
    assert message.endswith(
        "(choose with TopK, GatherElements, ScatterElements or Where, which keep their shapes)"
    )
    other = parse_failed("TensorRT 11.4", [fault("a/FusedConv", "FusedConv", said.replace("NonZero", "F"))])
    assert other.endswith(
        "(the operator needs a plugin that is not there; measnet-export writes graphs without such operators)"
    )


def test_the_same_fault_in_many_places_is_told_once() -> None:
    faults = [fault(f"encoder1.{index}/Resize", "Resize", "antialias == 0") for index in range(9)]
    message = parse_failed("TensorRT", faults)
    assert message.count("Resize") == 1 and message.endswith("; in 9 operators in all")


def test_a_fault_without_a_name_still_has_its_operator() -> None:
    assert "operator DFT: " in parse_failed("TensorRT", [fault("", "DFT", "Plugin not found")])
    assert "node n0, operator TopK: " in parse_failed("TensorRT", [fault("n0", "TopK", "no")])


def test_a_builders_error_names_the_node_it_speaks_of() -> None:
    said = [
        "Something before it",
        "IBuilder::buildSerializedNetwork: Error Code 4: Internal Error (kOPT values for profile 0 violate "
        "shape constraints: IShuffleLayer down3/Reshape_2: reshaping failed for tensor: val_381 Reshape "
        "dimension of -1 has no solution. In executeReshape at /_src/runtime/core/shapeMachine.cpp:340 In x",
    ]
    message = build_failed("TensorRT", said)
    assert message.startswith(
        "TensorRT built nothing at module down3, operator Reshape: Internal Error (kOPT"
    )
    assert "/_src/" not in message and "choose profile sizes" in message


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("Non-zero zero point is not supported.", "zero points of 0"),
        ("Found unsupported input type of UINT8", "zero points of 0"),
        ("input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8", "biases unquantized"),
        ("`input` and `scale` must have identical types. `input` type is Half", "types disagree"),
        ("IConvolutionLayer `input` and `bias` must be of same type.", "types disagree"),
        ("ElementWiseOperation SUM must have same input types. But they are of types Half", "types disagree"),
        ("n0: K exceeds the maximum value allowed (3840).", "3840"),
        ("Unsupported reduction type", "without a reduction"),
        ('(antialias == 0) && "Antialiasing is not supported currently."', "without antialias"),
        ("Depth input of IOneHotLayer must be a build time constant", "a constant of the graph"),
        (
            "Tactic Selection: no tactics to implement the operation within workspace limit.",
            "more --workspace",
        ),
        ("CHECK(status == CUDA_SUCCESS) failed.", "asks for a GPU"),
        ("Unable to load library: libnvinfer_lean.so.1", "--version-compatible"),
        ("Requested amount of GPU memory could not be allocated: OutOfMemory", "lower --workspace"),
        ("Cannot compile operation 'n0' for Turing (SM75): FP32 GEMM is not supported.", "--fp16"),
        (
            "Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16.",
            "BF16 is",
        ),
        ("a message of next year's", UNKNOWN),
    ],
)
def test_what_nvidia_says_has_its_remedy(text: str, advice: str) -> None:
    # The texts are TensorRT-RTX 1.7.1's own, but for the one on GPU memory and the last.
    assert advice in remedy(text)
