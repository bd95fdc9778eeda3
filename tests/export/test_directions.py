"""One direction: checkpoint -> graph -> engine. Nobody imports whom it serves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "measnet"
FOLDERS = ("export", "calibration", "runtime", "network", "weights")


def modules() -> dict[str, Path]:
    files = [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    return {
        ".".join(("measnet", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in files
    }


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, inside functions too; not those for the type checker alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    known = modules()
    assert len(known) > 100
    return {name: imports(path, known) for name, path in known.items()}


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ends = list(edges[start])
    while ends:
        name = ends.pop()
        if name not in seen:
            seen.add(name)
            ends += edges[name]
    return seen


def test_no_module_of_the_export_or_of_the_calibration_is_in_a_circle(edges: dict[str, set[str]]) -> None:
    ours = [name for name in edges if name.startswith(("measnet.export.", "measnet.calibration."))]
    assert [name for name in ours if name in reached(edges, name)] == []


def test_exporting_knows_nothing_of_calibrating_and_only_its_pictures_of_running(
    edges: dict[str, set[str]],
) -> None:
    for name in edges:
        if name.startswith("measnet.export."):
            assert not {other for other in edges[name] if other.startswith("measnet.calibration")}, name
            if name != "measnet.export.pictures":
                assert not {other for other in edges[name] if other.startswith("measnet.runtime")}, name


def test_what_the_self_test_takes_of_the_export_stage_does_not_lead_back(
    edges: dict[str, set[str]],
) -> None:
    for name in edges:
        if name.startswith("measnet.runtime."):
            for other in edges[name]:
                if other.startswith("measnet.export."):
                    assert not {x for x in reached(edges, other) if x.startswith("measnet.runtime")}, other
