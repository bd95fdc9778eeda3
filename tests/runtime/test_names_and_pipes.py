"""Pipes and devices where files belong, bare pixels, and names of any bytes and any length."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.doctor.cli import main as doctor
from measnet.errors import OutputError, UsageError
from measnet.evaluation.cli import main as evaluate
from measnet.runtime.restorer import Restorer
from measnet.weights import bundled
from measnet.whole_file import write_whole

from .conftest import IDENTITY_COMMAND, Answer, MakeClip

Run = Callable[..., Answer]
LATIN_1 = os.fsdecode(b"caf\xe9")
"""A name that is not in UTF-8."""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full((16, 20, 3), 90, np.uint8))
    return path


@pytest.mark.parametrize("name", ["pipe.mkv", "pipe.png"])
def test_a_pipe_as_an_input_is_refused_with_the_way_that_reads_it(
    measnet_run: Run, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)  # opening it would wait for ever
    answer = measnet_run(tmp_path / name)
    assert answer.status == 2 and f"measnet-run - < {tmp_path / name}" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["{long}.mp4"],
        ["{long}[ab]*.mp4"],
        ["{picture}", "-o", "{long}/a.png"],
        ["{picture}", "--report", "{long}/run.json"],
        ["{picture}", "--verify", "1", "--checkpoint", "{long}.ckpt"],
    ],
)
def test_a_name_that_no_file_can_have_is_a_users_mistake(
    measnet_run: Run, picture: Path, arguments: list[str]
) -> None:
    answer = measnet_run(*(word.format(long="n" * 300, picture=picture) for word in arguments))
    assert answer.status == 2 and answer.err.count("\n") == 1, answer.err
    assert "fault of this program" not in answer.err and len(answer.err) < 600


def test_a_pipe_as_an_output_is_neither_replaced_nor_waited_for(
    measnet_run: Run, clip: MakeClip, picture: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    answer = measnet_run(clip("plain.mp4"), "-y", "-o", pipe)
    assert answer.status == 2 and f"--out - > {pipe}" in answer.err
    (tmp_path / "pipe.json").symlink_to(pipe)
    report = measnet_run(picture, "--report", tmp_path / "pipe.json")
    assert report.status == 2 and "is a pipe or a device" in report.err
    with pytest.raises(OutputError, match="is a pipe or a device"):
        write_whole(pipe, b"")
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "ask",
    [
        lambda run, picture, place: run(picture, "--report", place).err,
        lambda run, picture, place: CliRunner().invoke(doctor, ["-o", place]).output,
        lambda run, picture, place: (
            CliRunner().invoke(evaluate, ["--clean", str(picture.parent), "--report", place]).output
        ),
    ],
    ids=["measnet-run", "measnet-doctor", "measnet-eval"],
)
@pytest.mark.parametrize(("place", "reason"), [("{}" + "n" * 252, "is too long"), ("{}", "is a folder")])
def test_figures_that_will_have_no_place_are_refused_before_any_work(
    measnet_run: Run, picture: Path, ask: Callable[[Run, Path, str], str], place: str, reason: str
) -> None:
    place = place.format(f"{picture.parent}{os.sep}")
    said = ask(measnet_run, picture, place)
    assert said.startswith("error:") and reason in said and said.count("\n") == 1


def test_bare_pixels_without_a_description_say_what_to_give(measnet_run: Run, tmp_path: Path) -> None:
    for ending in (".yuv", ".nv12"):
        path = tmp_path / f"bare{ending}"
        path.write_bytes(bytes(range(256)) * 24)
        answer = measnet_run(path)
        assert answer.status == 2 and "--raw 640x360:yuv420p@25" in answer.err, answer.err
    assert measnet_run(tmp_path / "bare.yuv", "--raw", "64x64:yuv420p@25").status == 0


@pytest.mark.parametrize("encoding", ["utf-8:surrogateescape", "utf-8:strict", "ascii:strict"])
def test_names_that_are_not_in_utf_8_are_restored_reported_and_shown(
    clip: MakeClip, tmp_path: Path, encoding: str
) -> None:
    shutil.copy(clip("plain.mp4"), tmp_path / f"{LATIN_1}.mp4")
    command = [*IDENTITY_COMMAND, "0", f"{LATIN_1}.mp4", "--frames", "3", "--compare", "slider"]
    done = subprocess.run(
        [*command, "--report", f"{LATIN_1}.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"caf" in done.stdout and (tmp_path / f"{LATIN_1}.restored.mp4").is_file()
    (run,) = json.loads((tmp_path / f"{LATIN_1}.json").read_bytes())["runs"]
    assert run["output"] == f"{LATIN_1}.restored.mp4"
    assert b"caf%E9.restored.mp4" in (tmp_path / f"{LATIN_1}.restored.compare.html").read_bytes()


@pytest.mark.parametrize("ending", [".onnx", ".safetensors"])
def test_a_model_whose_name_its_library_cannot_take_is_to_be_renamed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"{LATIN_1}{ending}"
    shutil.copy(bundled("nano", ending), path)
    shutil.copy(bundled("nano", ".safetensors"), tmp_path)
    with pytest.raises(UsageError, match="its name is not in UTF-8; rename it"):
        Restorer(str(path))


def test_quiet_keeps_what_an_encoder_says_of_itself_off_the_screen(clip: MakeClip, tmp_path: Path) -> None:
    command = [*IDENTITY_COMMAND, "0", str(clip("plain.mp4")), "--codec", "av1", "--frames", "2", "--quiet"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "x.mkv")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
