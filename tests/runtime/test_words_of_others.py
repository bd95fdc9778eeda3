"""Names of files and models of strangers: nothing of theirs is obeyed by a terminal, or fills it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from measnet.config import PROMPT_BASIS
from measnet.description import GraphDescription
from measnet.errors import GraphError
from measnet.runtime.cli import main
from measnet.runtime.console import Console
from measnet.runtime.live.events import Event
from measnet.runtime.run_report import RunReport
from measnet.weights import bundled

from .conftest import Answer, MakeClip

Run = Callable[..., Answer]
NAME = "\x1b]0;owned\x07 a  b\n[red]"
SHOWN = r"\x1b]0;owned\x07 a  b\n[red]"


def is_harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


def test_a_files_name_is_shown_and_reported_as_it_is(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    source = tmp_path / f"{NAME}.mp4"
    shutil.copy(clip("plain.mp4"), source)
    report = tmp_path / "run.json"
    for more in ([], ["--dry-run", "-y"]):
        answer = measnet_run(source, "--report", report, *more)
        assert answer.status == 0, answer.err
        assert f"{SHOWN}.restored.mp4" in answer.out and is_harmless(answer.out + answer.err)
    assert json.loads(report.read_text())["runs"][0]["input"] == str(source)
    for refused in (measnet_run(source), measnet_run(tmp_path / f"no{NAME}.mp4"), measnet_run(f"--{NAME}")):
        assert refused.status == 2 and SHOWN in refused.err and is_harmless(refused.err)


def test_all_that_a_run_says_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    report = RunReport(input=NAME, output=NAME, warnings=[NAME], frames=2, status="complete")
    report.engine = {"model": NAME, "precision": NAME}
    report.experts = {"damage": {NAME: 1.0}}
    console.result(report, again=NAME)
    report.status = "planned"
    console.result(report)
    report.output = None
    console.result(report)
    console.rehearsed([report])
    console.event(Event(NAME, "note", NAME))
    for say in (console.note, console.warn, console.error):
        say(NAME)
    console.also(Path(NAME))
    said = capsys.readouterr()
    assert is_harmless(said.out + said.err) and said.err.count(SHOWN) >= 6


def hostile(folder: Path, **entries: str) -> Path:
    """The bundled graph, with other words in its description."""
    model = onnx.load(bundled("nano", ".onnx"), load_external_data=False)
    for entry in list(model.metadata_props):
        if entry.key == "measnet.sha256":
            model.metadata_props.remove(entry)
        elif entry.key.removeprefix("measnet.") in entries:
            entry.value = entries.pop(entry.key.removeprefix("measnet."))
    assert not entries
    onnx.save(model, folder / "x.onnx")
    shutil.copy(bundled("nano", ".safetensors"), folder)
    return folder / "x.onnx"


SCORES = [0.0] * PROMPT_BASIS


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"precision": "\x1b[31mfp32"}, r"precision '\x1b[31mfp32'"),
        ({"format": "\x1b" * 100_000}, r"is of format '\x1b\x1b"),
        ({"io": "\x1b[2J" * 9999}, r"\x1b[2J"),
        ({"size": "9" * 100_000}, "damaged MEASNet description"),
        ({"task_prompts": json.dumps({"dehaze": [1e308] * len(SCORES)})}, "<= 1000000.0"),
        ({"task_prompts": json.dumps({"n" * 100_000: SCORES})}, "length <= 64"),
    ],
)
def test_a_models_own_words_are_refused_in_a_line(
    entries: dict[str, str], said: str, clip: MakeClip, tmp_path: Path
) -> None:
    graph = hostile(tmp_path, **entries)
    found = CliRunner().invoke(
        main, [str(clip("plain.mp4")), "--model", str(graph), "-o", str(tmp_path / "o.mp4")]
    )
    assert found.exit_code == 2 and said in found.stderr, found.stderr
    assert is_harmless(found.stderr) and found.stderr.count("\n") == 1 and len(found.stderr) < 2500


def test_a_tasks_name_is_shown_harmlessly(clip: MakeClip, tmp_path: Path) -> None:
    graph = hostile(tmp_path, task_prompts=json.dumps({"\x1b[31mdehaze": SCORES}))
    found = CliRunner().invoke(
        main, [str(clip("plain.mp4")), "--model", str(graph), "--task", "x", "-o", str(tmp_path / "o.mp4")]
    )
    assert found.exit_code == 2 and r"they know \x1b[31mdehaze" in found.stderr and is_harmless(found.stderr)


def test_a_description_from_anywhere_is_bounded() -> None:
    with pytest.raises(GraphError) as caught:
        GraphDescription.from_metadata({"measnet.format": "x" * 10**6}, "the model")
    assert len(str(caught.value)) < 200
