"""Every command and every Python snippet in README.md, docs/ and examples/ works as written."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import shlex
import shutil
import subprocess
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.export.trace import exact_graph
from measnet.weights import bundled

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
STAGES = ("train", "export", "calibration", "runtime")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
NEEDS_WHAT_A_TEST_HAS_NOT = re.compile(r"camera:|rtsp:|McMaster")


def blocks(page: Path, language: str) -> Iterator[str]:
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield match[1]


def commands() -> list[object]:
    """Every command once, in the order of the pages, with the pages that print it."""
    pages: dict[str, list[str]] = {}
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    pages.setdefault(line[2:].split("  #")[0].strip(), []).append(page.stem)
    return [
        pytest.param(command, id=f"{', '.join(dict.fromkeys(where))}: {command}")
        for command, where in pages.items()
    ]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, golden_checkpoint: Callable[[str], Path]) -> Path:
    """A folder with the files that the documents speak of."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    for place in ("photos", "shots"):
        (folder / place).mkdir()
        for index in range(2):
            blocks = np.kron(rng.integers(30, 225, (5, 5, 3)), np.ones((30, 30, 1))).astype(np.uint8)
            cv2.imwrite(str(folder / place / f"{index}.png"), blocks)
    for name in ("photo.jpg", "noisy.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (90, 120, 3), np.uint8))
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=1", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-shortest", str(folder / "clip.mp4")], check=True)
    angles = ["-i", str(folder / "clip.mp4"), "-map", "0:v", "-map", "0:v", "-map", "0:a", "-c", "copy"]
    subprocess.run(["ffmpeg", "-v", "error", *angles, str(folder / "two-angles.mkv")], check=True)
    shutil.copy(bundled("nano", ".safetensors"), folder / "mine.safetensors")
    shutil.copy(golden_checkpoint("tiny"), folder / "epoch=149.ckpt")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.restored.*"))
    (folder / "bench").symlink_to(ROOT / "bench")
    return folder


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_works(command: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    if NEEDS_WHAT_A_TEST_HAS_NOT.search(command):
        arguments = [*arguments, "--help"]  # its options are checked, the camera or data set is not there
    if program == "measnet-run":
        arguments = ["-y", *arguments]  # commands on several pages share one result
    # They work as written, but longer: two frames and two steps say so too.
    if program == "measnet-eval" and "--limit" not in arguments:
        arguments = [*arguments, "--limit", "2"]
    if program == "measnet-train" and "--dry-run" not in arguments:
        arguments = [*arguments, "--set", "steps=2"]
    if program == "python":
        assert arguments.pop(0) == "-m"
        module, name = arguments.pop(0), "main"
    else:
        module, _, name = SCRIPTS[program].partition(":")
    # Of one size tests have a trace that they share.
    arguments = ["127x159" if argument == "360x640" else argument for argument in arguments]
    monkeypatch.chdir(desk)
    # Its graphs were traced once, and so tests/export holds them to what is traced today.
    monkeypatch.setattr("measnet.export.bundle.traced_graph", exact_graph)
    # Frames of 1280x720 say no more, and engines are built elsewhere.
    monkeypatch.setattr("measnet.doctor.self_test.SIZES", [(128, 160)])
    monkeypatch.setattr("measnet.doctor.self_test.PACKAGES", {})
    # In this process, which has imported everything; that programs start is tested elsewhere.
    result = CliRunner().invoke(getattr(importlib.import_module(module), name), arguments)
    assert result.exit_code == 0, (result.output, result.exception)


def test_programs_are_installed_as_the_project_says() -> None:
    installed = {found.name: found.value for found in entry_points(group="console_scripts")}
    assert {name: installed.get(name) for name in SCRIPTS} == SCRIPTS


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
    assert {"README", "data", "embedding", "network", "running", "serving"} <= pages


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:src/measnet|train|export|calibration|runtime|tests|bench)/[\w./]*)`", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


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
