"""``measnet-export check``: reads any ONNX file, hostile ones included; says what TensorRT would refuse.

Sound files are given to NVIDIA's own parser, where there is one, in a process of its own; ``export/rules.py``
has what that lacks. Nothing outside the file's own folder is opened, nothing is run, and no operator is
trusted to be what its name says before ONNX's own checker has seen it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from measnet.errors import GraphError, first_line
from measnet.export.builder_messages import gist, remedy
from measnet.export.builder_process import ParserAnswer, ask_parser
from measnet.export.graph import take_in
from measnet.export.rules import RULES, Finding, Inspected, all_nodes
from measnet.onnx_file import (
    DamagedError,
    DataFiles,
    data_fault,
    each_constant,
    external_length,
    fault_of,
)
from measnet.printable import printable
from measnet.whole_file import write_whole

LARGEST_FILE = 1 << 30  # bytes; what is larger keeps its constants in another file
MOST_NODES = 200_000
PLACES_SHOWN = 3


Parser = Callable[[bytes], ParserAnswer | None]
"""Is asked about an ONNX file; None where it does not work here."""


def check_file(path: str | Path, parser: Parser = ask_parser) -> list[Finding]:
    """Everything found in the ONNX file at ``path``, errors first; empty when nothing is wrong.

    Raises ``GraphError`` when there is no such file, it is larger than 1 GiB, or it is no ONNX file.
    """
    path = Path(path)
    content, model = _read(path)
    findings = list(_constants(content, path))
    inside = _without_external_data(model)
    count = sum(1 for _ in all_nodes(model.graph))
    if not count or count > MOST_NODES:
        return [Finding("error", "nodes", f"the graph has {count} operators", "export it again")]
    try:
        # First inferred loosely: the checker wants a shape at every output, and many files have none.
        inside = onnx.shape_inference.infer_shapes(inside)
        onnx.checker.check_model(inside)
        inferred = onnx.shape_inference.infer_shapes(inside, check_type=True, strict_mode=True)
    # The checker is C++ and has no common exception; whatever it says, the file is not sound ONNX.
    except Exception as error:
        findings.append(_unsound(error))
        inferred = inside
    graph = Inspected(model, inferred)
    for rule in RULES:
        try:
            findings.extend(rule(graph))
        # A rule may trip over a file that the checker refused: that is already said.
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            if not any(finding.rule == "unsound" for finding in findings):
                findings.append(_unsound(error))
    if not any((finding.level, finding.rule) == ("error", "external-data") for finding in findings):
        findings.extend(_parser(model, path.parent, parser))
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(_merged(findings), key=lambda finding: order[finding.level])


def lines(path: str | Path, findings: list[Finding]) -> list[str]:
    """The findings as lines of text, the last one a summary."""
    found = [_line(finding) for finding in findings]
    counts = {level: sum(f.level == level for f in findings) for level in ("error", "warning", "note")}
    summary = ", ".join(
        f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count
    )
    return [*found, f"{path}: {summary or 'nothing found'}"]


def write_findings(target: Path, path: str | Path, findings: list[Finding]) -> None:
    """Writes the findings as JSON, whole or not at all. Raises ``OutputError``."""
    content = {"file": str(path), "findings": [asdict(finding) for finding in findings]}
    write_whole(target, json.dumps(content, indent=2) + "\n")


def _read(path: Path) -> tuple[bytes, onnx.ModelProto]:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise GraphError(f"{path} is not a file")
        if size > LARGEST_FILE:
            raise GraphError(
                f"{path} has {size / 1e9:.1f} GB, at most {LARGEST_FILE / 1e9:.1f} GB are read; "
                "keep its constants in an external data file"
            )
        content = path.read_bytes()
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RecursionError):
        raise GraphError(f"{path} is not an ONNX file, or a damaged one") from None
    if not model.HasField("graph"):
        raise GraphError(f"{path} holds no ONNX graph")
    return content, model


def _constants(content: bytes, path: Path) -> Iterator[Finding]:
    """Constants in other files must lie beside the graph and be as long as they say; others no larger."""
    other_files: set[str] = set()
    missing = False
    try:
        found, files = list(each_constant(content)), DataFiles(path.parent)
    except DamagedError:
        raise GraphError(f"{path} is not an ONNX file, or a damaged one") from None
    for constant in found:
        location = constant.location[:80]
        if constant.external and files.is_outside(constant.location):
            yield Finding(
                "error",
                "external-data",
                f"constants lie in {location!r}, outside the graph's own folder; it is not opened",
                "put the file beside the graph and save the graph again",
                (constant.name,),
            )
        elif constant.external and external_length(constant, files) < 0:
            missing = True
            yield Finding(
                "error",
                "external-data",
                f"constants should lie in {location!r}, which is missing or too short",
                "copy the file that belongs to the graph beside it",
                (constant.name,),
            )
        elif not constant.sparse and (fault := fault_of(constant, files)):
            yield Finding(
                "error",
                "unsound",
                f"a constant {fault}",
                "export it again",
                (constant.name,),
                source="measnet",
            )
        if constant.external:
            other_files.add(location)
    if not missing and (fault := data_fault(content, found, files)):
        said, _, remedy = fault.partition("; ")
        yield Finding("error", "external-data", f"it {said}", remedy, source="measnet")
    if other_files:
        yield Finding(
            "note",
            "external-data",
            f"constants lie in {len(other_files)} other file(s), which must travel along; they are not "
            "looked into",
            "",
        )


def _without_external_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every constant of another file as an input of its type and shape."""
    if not any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.initializer[:]
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            result.graph.initializer.append(tensor)
        elif tensor.name not in given:
            result.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return result


def _parser(model: onnx.ModelProto, folder: Path, parser: Parser) -> Iterator[Finding]:
    """Findings of NVIDIA's own parser; a note where there is none to ask."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    try:
        take_in(whole, folder)
        answer = parser(whole.SerializeToString())
    except (ValueError, OSError):  # more than a protobuf holds, with the constants of other files inside
        answer = None
    if answer is None:
        advice = "pip install 'measnet[rtx]' brings it, and needs no GPU"
        yield Finding("note", "parser", "NVIDIA's own parser was not asked: none works here", advice)
        return
    for fault in answer.faults:
        said = f"it is refused: {gist(fault['text'])}"
        advice = remedy(f"{fault['operator']} {fault['text']} {fault['code']}")
        places = (fault["name"],) if fault["name"] else ()
        yield Finding("error", "parser", said, advice, places, fault["operator"], answer.asked)


def _unsound(error: Exception) -> Finding:
    return Finding(
        "error",
        "unsound",
        f"it is not sound ONNX: {' '.join(str(error).split())[:300] or first_line(error)}",
        "export it again with the tool that made it",
        source="onnx.checker",
    )


def _merged(findings: list[Finding]) -> list[Finding]:
    """Findings that say the same of several places become one."""
    merged: dict[Finding, list[str]] = {}
    for finding in findings:
        # A name that is not UTF-8 comes as bytes.
        alone = replace(finding, places=(), operator=str(finding.operator))
        merged.setdefault(alone, []).extend(str(place) for place in finding.places)
    return [replace(finding, places=tuple(places)) for finding, places in merged.items()]


def _line(finding: Finding) -> str:
    shown = ", ".join(finding.places[:PLACES_SHOWN])
    if len(finding.places) > PLACES_SHOWN:
        shown += f" and {len(finding.places) - PLACES_SHOWN} more"
    operator = f"{finding.operator} at " if finding.operator and shown else ""
    where = f"{operator}{shown}: " if shown else ""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    source = f" [{finding.source}]" if finding.source else ""
    text = f"{finding.level}: {where}{finding.message}{remedy}{source}"
    return printable(text)
