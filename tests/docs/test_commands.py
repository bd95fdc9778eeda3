"""Every command in README.md, docs/ and examples/ works as written."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from docs.pages import PAGES, ROOT, blocks
from short_training import SOON

from measnet.doctor import step
from measnet.doctor.cli import Doctor
from measnet.doctor.machine import Machine
from measnet.doctor.self_test import self_test
from measnet.export.make import SMALLER, Making

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
NEEDS_WHAT_A_TEST_HAS_NOT = re.compile(r"camera:|rtsp:|McMaster")


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


def self_test_here(machine: Machine, model: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The doctor's self-test with its steps in this process, which has imported PyTorch. Frames of 1280x720
    say no more, a median of two times is one, and engines are built elsewhere."""

    def perform(name: str, arguments: dict[str, Any], seconds: float) -> step.Result:
        if name != "run":
            return {"skipped": "not here"}
        return step.perform(name, {**arguments, "sizes": [(128, 160)], "warm_up": 1, "rounds": 2})

    return self_test(machine, model, say, perform)


HANDED_IN: dict[str, object] = {
    # In this process, which has imported everything; that programs start is tested elsewhere.
    "measnet-doctor": Doctor(self_test=self_test_here),
    # Graphs are held against the network on a quarter of the pixels, and runs fit and look back shortly.
    # Bundled ones were traced once, and so tests/export holds them to what is traced today.
    "measnet-export": Making(any_size=SMALLER),
    "measnet.export.bundle": Making(any_size=SMALLER),
    "measnet-train": SOON,
    "measnet.train": SOON,
}
"""The objects that commands are given besides their arguments, by command."""


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
    handed_in = HANDED_IN.get(module if program == "python" else program)
    if program == "measnet-export" and arguments[0] in ("check", "engine", "cache", "triton"):
        handed_in = None
    result = CliRunner().invoke(getattr(importlib.import_module(module), name), arguments, obj=handed_in)
    assert result.exit_code == 0, (result.output, result.exception)
    assert r"\n" not in result.output  # several lines said as one


def test_programs_are_installed_as_the_project_says() -> None:
    installed = {found.name: found.value for found in entry_points(group="console_scripts")}
    assert {name: installed.get(name) for name in SCRIPTS} == SCRIPTS
