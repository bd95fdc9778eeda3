"""Messages of TensorRT's parser and builder, as sentences with our module, the operator and the remedy."""

from __future__ import annotations

import re

BRAND = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

SHOWN = 3  # of several faults

REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"^(?:NonZero|Compress|Unique)\b",
        "choose with TopK, GatherElements, ScatterElements or Where, which keep their shapes",
    ),
    (r"^DFT\b", "a few frequencies are a MatMul with constant cosines and sines"),
    (r"^\w*(?:Integer|QLinear)\w*\b|^DynamicQ", "use QuantizeLinear and DequantizeLinear around operators"),
    (r"INT16|UINT16|UINT32|UINT64|STRING|COMPLEX|ONNX date type", "cast it to a type that TensorRT has"),
    (
        r"violate shape constraints|not self-consistent",
        "choose profile sizes that the network takes (measnet-run pads frames to them)",
    ),
    (
        r"[Pp]lugin.*(?:not found|was not found)|[Pp]lugin not found|creator &&",
        "the operator needs a plugin that is not there; measnet-export writes graphs without such operators",
    ),
    (
        r"identical types|same (?:type|input types)|must have same|types? (?:mismatch|disagree)",
        "the graph's types disagree; write it again with measnet-export --fp16 or --bf16, "
        "and leave types to it",
    ),
    (r"type Int32 but must have type", "leave biases unquantized"),
    (
        r"[Zz]ero point|UINT8|Uint8|kENABLE_UINT8",
        "quantize symmetrically to INT8, with zero points of 0",
    ),
    (r"K exceeds the maximum", "TopK chooses among 3840 at most"),
    (r"reduction", "scatter without a reduction and add outside"),
    (r"[Aa]ntialias", "resize without antialias"),
    (r"build.time constant", "make that input a constant of the graph"),
    (r"workspace limit", "give it more --workspace"),
    (
        r"out of memory|OutOfMemory|MEM_ALLOC|insufficient memory|bad_alloc",
        "lower --workspace, the largest size of the profile or its batch",
    ),
    (
        r"status == CUDA_SUCCESS|CUDA.*(?:initialization|no device|driver)|cudaGetDevice",
        "this step asks for a GPU, which is not there: build on the target machine",
    ),
    (r"lean", "leave --version-compatible away, or install TensorRT's lean runtime"),
    (
        r"check_turing|FP32 GEMM is not supported",
        "Turing cards multiply matrices in FP16 alone with TensorRT-RTX: export the graph with --fp16",
    ),
    (
        r"HW-specific datatypes: b",
        "BF16 is for cards of compute capability 8.0 and later: export the graph with --fp16",
    ),
    (r"[Nn]o importer registered|unsupported operator|UNSUPPORTED_NODE$", "express it in other operators"),
    (r"ParseFromString|parse.*protobuf|Failed to parse|ModelProto", "the file is damaged; export it again"),
)

UNKNOWN = "measnet-export check FILE may know more; for a graph of ours, please report this"

# In the builder's text our nodes appear by their names, "encoder1.0.attention/Softmax_2".
NODE = re.compile(r"\b([A-Za-z_][\w.]*)/([A-Z][A-Za-z]+)(?:_\d+)?\b")


def parse_failed(target: str, faults: list[dict[str, str]]) -> str:
    """One line on the parser's ``faults``, each with name, operator, text and code."""
    distinct = _distinct(faults)
    told = [
        f"{_place(fault['name'], fault['operator'])}: {gist(fault['text'])} "
        f"({remedy(' '.join((fault['operator'], fault['text'], fault['code'])))})"
        for fault in distinct[:SHOWN]
    ]
    others = f"; in {len(faults)} operators in all" if len(faults) > len(told) else ""
    return f"{target} does not take this graph: {'; '.join(told)}{others}"


def build_failed(target: str, messages: list[str]) -> str:
    """One line on the builder's error ``messages``."""
    text = max(messages, key=_telling)
    node = NODE.search(text)
    place = f" at {_place(node[0], node[2])}" if node else ""
    return f"{target} built nothing{place}: {gist(text)} ({remedy(text)})"


def remedy(text: str) -> str:
    """The advice on a message of TensorRT."""
    return next((advice for pattern, advice in REMEDIES if re.search(pattern, text)), UNKNOWN)


def _telling(text: str) -> int:
    """A message with a remedy says more than one without; a node's name more than none."""
    return 2 * (remedy(text) != UNKNOWN) + bool(NODE.search(text))


def _place(name: str, operator: str) -> str:
    module, slash, _ = name.rpartition("/")
    if not name:
        return f"operator {operator}" if operator else "the graph"
    operator = operator or name.rpartition("/")[2]
    return f"module {module}, operator {operator}" if slash else f"node {name}, operator {operator}"


def _distinct(faults: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first of the faults that say the same of the same kind of operator."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for fault in faults:
        first.setdefault((fault["operator"], fault["text"]), fault)
    return list(first.values())


def gist(text: str) -> str:
    """The gist of a message: without where in TensorRT's source it was raised."""
    text = " ".join(text.split())
    text = re.sub(r"\s*(?:In \w+ at|at) /_src/.*$", "", text)
    text = re.sub(r"\s*\(/_src/.*?\)", "", text)
    text = re.sub(r"^(?:\w+::\w+: )?Error Code \d+: ", "", text)
    if text == "false":
        return "the parser has no such operator"
    return text if len(text) <= 240 else text[:239] + "…"
