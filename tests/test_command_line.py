"""Conventions that all commands keep."""

from __future__ import annotations

import errno
import importlib
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from measnet.command_line import run_command
from measnet.errors import OutputError, UsageError
from measnet.number_options import Number, WholeNumber
from measnet.weights import bundled

SOURCES = Path(__file__).parents[1]
STAGES = ("runtime", "export", "train", "calibration")
COMMANDS = [
    ".".join(("measnet", *path.relative_to(SOURCES).with_suffix("").parts))
    for stage in STAGES
    for path in sorted((SOURCES / stage).rglob("*.py"))
    if "@click.command(" in path.read_text()
]
COMMANDS.append("measnet.evaluation.cli")


def command(module: str) -> click.Command:
    found = importlib.import_module(module).main
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_answers_to_the_short_form_of_help(module: str) -> None:
    short, long = (CliRunner().invoke(command(module), [form]) for form in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0 and short.output == long.output != ""


@pytest.mark.parametrize(
    "module", [name for name in COMMANDS if "evaluation" not in name and "serve" not in name]
)
def test_every_command_that_writes_a_result_takes_its_place_with_o_and_out(module: str) -> None:
    (out,) = (option for option in command(module).params if "-o" in option.opts)
    assert out.opts == ["-o", "--out"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("runtime", "clip.mp4 --model x.json --report x.json"),
        ("runtime", "clip.mp4 --model nano --checkpoint x.json --verify 1/2 --report x.json"),
        ("evaluation", "--clean pictures --model x.json --report x.json"),
        ("evaluation", "--clean pictures --against x.json --contact-sheet x.json"),
        ("doctor", "--self-test --model x.json -o x.json"),
        ("doctor", "--self-test --model x.json -o link.json"),
        ("export", "x.onnx -o x.onnx --no-verify"),
        ("export", "x.json -o x.onnx --fp16 --no-verify"),
        ("export", "nano -o x.onnx --pictures x.onnx"),
        ("export", "check x.json -o x.json"),
        ("calibration", "x.onnx pictures -o x.onnx"),
        ("calibration", "nano x.json -o x.onnx"),
        ("train.fusion", "pictures --model x.onnx -o x.onnx"),
        ("train.fusion", "pictures --clip x.onnx -o x.onnx"),
    ],
)
def test_no_command_replaces_what_it_reads(
    module: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    read = [tmp_path / name for name in ("x.json", "x.onnx", "clip.mp4")]
    for file in read:
        shutil.copy(bundled("nano", ".safetensors"), file)
    (tmp_path / "link.json").symlink_to("x.json")
    before = read[0].read_bytes()
    answer = CliRunner().invoke(command(f"measnet.{module}.cli"), words.split())
    assert answer.exit_code == UsageError.exit_code and "is what is read; give it another" in answer.stderr
    assert {file.read_bytes() for file in read} == {before} and (tmp_path / "link.json").is_symlink()


@pytest.mark.parametrize("module", ["measnet.runtime.cli", "measnet.export.cli"])
def test_help_fits_one_screen(module: str) -> None:
    shown = CliRunner().invoke(command(module), ["--help"], terminal_width=100).output
    assert len(shown.splitlines()) <= 44
    assert "Examples:" in shown and "Exit status:" in shown
    assert "-h, --help " in shown


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (OutputError("the disk is full"), "the disk is full", 1),
        (UsageError("no"), "no", 2),
        (OSError(errno.EACCES, "Permission denied", "x/a.mp4"), "x/a.mp4 may not be used by this user", 2),
        (OSError(errno.ENAMETOOLONG, "too long", "n" * 300), "…nnn", 2),
        (OSError(errno.EIO, "I/O error", "a"), "(a fault of this program", 1),
        (ValueError("x"), "ValueError: x (a fault of this program", 1),
    ],
)
def test_every_error_ends_in_words_and_a_status(error: Exception, said: str, status: int) -> None:
    def fail() -> None:
        raise error

    @click.command
    def main() -> None:
        run_command(fail, debug=False, interrupted="")

    answer = CliRunner().invoke(main, [])
    assert answer.exit_code == status and said in answer.stderr and answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (WholeNumber(1, 51), "52", "52 is not a whole number from 1 to 51"),
        (WholeNumber(min=1), "many", "many is not a whole number from 1 on"),
        (WholeNumber(max=3), "4", "4 is not a whole number up to 3"),
        (Number(0, 1, max_open=True), "1", "1 is not a number from 0 below 1"),
        (Number(0, 1, min_open=True), "0", "0 is not a number above 0 up to 1"),
        (Number(0, min_open=True), "-1", "-1 is not a number above 0"),
    ],
)
def test_limits_are_told_in_words(kind: click.ParamType[Any], value: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(value, None, None)
    assert caught.value.message == said


@pytest.mark.parametrize("module", COMMANDS)
def test_no_help_tells_limits_in_signs(module: str) -> None:
    run = command(module)
    everything = ["--help-all"] if any("--help-all" in option.opts for option in run.params) else ["--help"]
    assert "<=" not in CliRunner().invoke(run, everything).output


def test_all_options_are_shown_by_help_all_alone() -> None:
    run = command("measnet.runtime.cli")
    usual, everything = (CliRunner().invoke(run, [form]).output for form in ("--help", "--help-all"))
    names = {
        option.opts[-1] for option in run.params if isinstance(option, click.Option) and not option.hidden
    }
    assert {name for name in names if name not in everything} == set()
    assert "--out" in usual and "--keep-tracks" not in usual and "--help-all" in usual
