"""Python of README.md, docs/ and examples/ runs as written, and what pages name is there."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from docs.pages import PAGES, ROOT, blocks

WEIGHTS = ROOT / "src" / "measnet" / "weights" / "README.md"
STAGES = ("train", "export", "calibration", "runtime")


def indented_python(page: Path) -> Iterator[str]:
    """Indented blocks that are Python: formulas and commands are none."""
    outside_fences = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"(?:^    .*\n(?:\n(?=    ))*)+", outside_fences, re.MULTILINE):
        block = textwrap.dedent(match[0])
        with contextlib.suppress(SyntaxError):
            if any(
                isinstance(node, ast.Import | ast.ImportFrom | ast.Assign) for node in ast.parse(block).body
            ):
                yield block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_snippets_run(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    for snippet in blocks(page, "python"):
        frame = np.zeros((40, 60, 3), np.uint8)
        exec(compile(snippet, str(page), "exec"), {"frame": frame})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_that_needs_a_gpu_or_a_server_names_what_there_is(page: Path) -> None:
    """Such blocks are indented; fenced ones run."""
    for snippet in indented_python(page):
        assert re.search(r"TensorRT|cuda|cupy|triton|tickets", snippet), f"fence what can run: {snippet}"
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("measnet"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_python_is_found_where_pages_have_it() -> None:
    pages = {page.stem for page in PAGES if any(indented_python(page)) or any(blocks(page, "python"))}
    assert {"README", "data", "embedding", "network", "restoring", "serving"} <= pages


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", WEIGHTS]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_curve_and_picture_stands_on_a_page() -> None:
    text = "".join(page.read_text() for page in [*PAGES, WEIGHTS])
    there = [*ROOT.glob("docs/curves/*.jsonl"), *ROOT.glob("docs/images/*")]
    assert len(there) > 8 and [path.name for path in there if path.name not in text] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    assert len(named_in(ROOT / page)) > 10
    assert [name for name in named_in(ROOT / page) if not (ROOT / name).exists()] == []


def test_tests_that_pages_name_are_there() -> None:
    named = {name for page in PAGES for name in named_in(page) if name.startswith("tests/")}
    assert len(named) > 10 and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def named_in(page: Path) -> list[str]:
    folders = "src/measnet|train|export|calibration|runtime|tests|bench"
    return sorted(set(re.findall(rf"`((?:{folders})/[\w./]*)`", page.read_text())))


def test_every_folder_of_code_is_on_the_page_about_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = {
        path.parent
        for stage in (*STAGES, "src/measnet/evaluation", "src/measnet/doctor")
        for path in (ROOT / stage).rglob("*.py")
    }
    unnamed = [
        str(folder.relative_to(ROOT)) for folder in folders if f"{folder.relative_to(ROOT)}/" not in text
    ]
    assert sorted(unnamed) == []


def test_the_table_of_lines_is_nearly_true() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)` \| ([\d,]+) \| ([\d,]+) \|", text, re.MULTILINE)
    assert len(rows) > 10
    for folder, *said in rows:
        # The stages' links in src/measnet are not followed.
        there = [
            path for path in (ROOT.resolve() / folder).rglob("*.py") if path.resolve() == path.absolute()
        ]
        found = [len(there), sum(len(path.read_text().splitlines()) for path in there)]
        assert found == pytest.approx([int(figure.replace(",", "")) for figure in said], rel=0.1), folder


def test_the_table_of_parts_of_the_runtime_is_nearly_true() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| [^|`]+ \| ((?:`[\w/*]+`(?:, )?)+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) > 5
    for named, said in rows:
        there = [list((ROOT / "runtime").glob(f"{one}.py")) for one in re.findall(r"`([\w/*]+)`", named)]
        assert all(there), named
        lines = sum(len(path.read_text().splitlines()) for paths in there for path in paths)
        assert lines == pytest.approx(int(said.replace(",", "")), rel=0.1), named
