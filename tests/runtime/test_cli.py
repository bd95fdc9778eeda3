"""``measnet-run`` as seen from outside: files, lines, exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.errors import BackendError, GraphError
from measnet.image import Pixels
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.sinks.containers import CODECS

from .conftest import Answer, MakeClip, ffmpeg, probe
from .identity import IdentityRestorer, given_back
from .piped import pipe

Run = Callable[..., Answer]


def test_help_answers_without_the_heavy_packages() -> None:
    code = (
        "import sys\n"
        "from measnet.runtime.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'av', 'cv2', 'numpy', 'onnxruntime', 'torch', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "measnet-run clip.mp4" in done.stdout


def test_every_option_stands_under_one_heading_of_the_help() -> None:
    from measnet.runtime import cli

    named = sorted(name for names in cli.HEADINGS.values() for name in names)
    options = [option for option in cli.main.params if isinstance(option, click.Option)]
    assert named == sorted(str(option.name) for option in options)
    text = CliRunner().invoke(cli.main, ["--help-all"]).output
    places = [text.index(f"\n{heading}:") for heading in cli.HEADINGS]
    assert places == sorted(places)
    for option in options:
        assert max(option.opts, key=len) in text


def test_result_lies_beside_the_video(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, "--preset", "ultrafast")
    assert answer.status == 0, answer.err
    result = video.with_name("clip.restored.mp4")
    assert probe(result).times == probe(video).times
    assert str(result) in answer.out.replace("\n", "") and "20 frames" in answer.out
    assert sorted(p.name for p in video.parent.iterdir()) == ["clip.mp4", "clip.restored.mp4"]


def test_existing_result_is_kept_unless_asked(measnet_run: Run, video: Path) -> None:
    result = video.with_name("clip.restored.mp4")
    result.write_text("precious")
    answer = measnet_run(video)
    assert answer.status == 2 and "--overwrite" in answer.err
    assert result.read_text() == "precious"
    assert measnet_run(video, "-y").status == 0
    assert probe(result).times


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 1), (np.uint16, 301)])
def test_strength_mixes_the_source_into_the_result(
    measnet_run: Run, tmp_path: Path, dtype: type, unit: int
) -> None:
    class Bright(IdentityRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            return given_back(np.full_like(pixels, 200 * unit))

    source, result = tmp_path / "grey.png", tmp_path / "grey.restored.png"
    cv2.imwrite(str(source), np.full((16, 20, 3), 100 * unit, dtype))
    for strength, expected in (("0", 100), ("0.25", 125), ("1", 200)):
        answer = measnet_run(source, "-y", "--strength", strength, engine=Bright)
        assert answer.status == 0, answer.err
        written = cv2.imread(str(result), cv2.IMREAD_UNCHANGED)
        assert written is not None and written.dtype == dtype and (written == expected * unit).all()
    assert measnet_run(source, "-y", "--strength", "1.5").status == 2


def test_a_model_that_takes_bytes_says_that_it_rounds(measnet_run: Run, tmp_path: Path) -> None:
    class OfBytes(IdentityRestorer):
        description = IdentityRestorer.description | {"io": "uint8-nhwc"}

    measnet_run = partial(measnet_run, engine=OfBytes)
    for name, dtype in (("deep.png", np.uint16), ("plain.png", np.uint8)):
        cv2.imwrite(str(tmp_path / name), np.zeros((16, 20, 3), dtype))
    assert "the model takes 8 bits" in measnet_run(tmp_path / "deep.png").err
    assert "the model takes 8 bits" not in measnet_run(tmp_path / "plain.png").err


def test_result_is_never_the_input(measnet_run: Run, video: Path) -> None:
    before = video.read_bytes()
    answer = measnet_run(video, "-o", video, "-y")
    assert answer.status == 2 and "the input itself" in answer.err
    assert video.read_bytes() == before


def test_several_inputs_one_of_them_bad(measnet_run: Run, video: Path) -> None:
    folder = video.parent
    cv2.imwrite(str(folder / "photo.png"), np.zeros((8, 9, 3), np.uint8))
    (folder / "empty.mp4").touch()
    answer = measnet_run(folder / "empty.mp4", video, folder / "photo.png")
    assert answer.status == 2
    assert answer.err.count("error:") == 1 and "empty" in answer.err
    assert (folder / "clip.restored.mp4").exists() and (folder / "photo.restored.png").exists()


def test_folder_named_with_a_slash(measnet_run: Run, tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    cv2.imwrite(str(shots / "a.png"), np.zeros((8, 9, 3), np.uint8))
    assert measnet_run(f"{shots}/").status == 0
    assert (tmp_path / "shots.restored" / "a.png").exists()


def test_a_folder_of_pictures_does_not_become_a_folder_that_is_called_like_a_file(
    measnet_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shots").mkdir()
    cv2.imwrite("shots/a.png", np.zeros((8, 9, 3), np.uint8))
    answer = measnet_run("shots", "-o", "film.mp4")
    assert answer.status == 2 and "becomes a folder, and film.mp4 is the name of a file" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["shots"]
    answer = measnet_run("shots")
    assert answer.status == 0 and answer.out.startswith(
        "shots.restored "
    )  # as it was given, not from the root


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing.mp4"], "does not exist"),
        (["{video}", "-o", "nowhere/out.mp4"], "folder nowhere does not exist"),
        (["{video}", "-o", "out.xyz"], "ending '.xyz'"),
        (["{video}", "-o", "results/"], "folder results/ does not exist"),
        (["."], "name videos one by one: *"),
        (["{video}", "{video}", "-o", "out.mp4"], "several inputs"),
        (["{video}", "-o", "out.webm", "--codec", "h264"], "cannot hold libx264"),
        (["{video}", "--tile", "big"], "auto, off or a number"),
        (["camera:0x"], "by its number"),
        (["tcp://127.0.0.1:1"], "cannot be opened"),
        ([], "Missing argument 'INPUT...'"),
        (["{video}", "--report", "nowhere/run.json"], "folder nowhere does not exist"),
        (["{video}", "--report", "."], "--report . is a folder"),
        (["{video}", "-o", "out.mp4", "--report", "out.mp4"], "--report out.mp4 is the result"),
        (["{video}", "--crf", "99"], "99 is not a whole number from 0 to 63"),
        (
            ["{video}", "--backend", "cuda"],
            "there is no backend 'cuda'; choose one of auto, onnx",
        ),
        (["{video}", "--backend", "cuda"], "torch or triton://HOST:PORT/MODEL"),
        (["{video}", "--report", "run.svg"], "give it a name such as run.json"),
        (["{video}", "--report", "-"], "--report - would be a file called '-'"),
        (["{video}", "--verify-share", "0.5"], "--verify-share goes with --verify 1/N"),
        (["{video}", "--checkpoint", "{video}", "--on-fault", "stop"], "--checkpoint goes with --verify 1/N"),
        (["{video}", "--checkpoint", "x.ckpt"], "the checkpoint x.ckpt is no file that exists"),
        (["{video}", "--no-ladder", "--reconnect", "3", "--insecure"], "--reconnect is for cameras and"),
        (
            ["{video}", "--no-ladder", "--reconnect", "3", "--insecure"],
            "; --insecure is for addresses; leave",
        ),
        (["{video}", "-o", "out.svg.mkv", "--report", "./out.svg.mkv"], "is the result"),
    ],
)
def test_users_mistakes_are_one_line_and_status_2(
    measnet_run: Run, video: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(video.parent)
    answer = measnet_run(*[argument.format(video=video) for argument in arguments])
    assert answer.status == 2
    assert answer.err.count(reason) == 1 and "Traceback" not in answer.err
    assert sorted(p.name for p in video.parent.iterdir()) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("codec", "has"),
    [
        ("h264", "it takes ultrafast, superfast, veryfast"),
        ("hevc", "veryslow, placebo"),
        ("vp9", "it takes a number from 0 to 8"),
        ("av1", "it takes a number from 0 to 13"),
        ("prores", "it takes proxy, lt, standard, hq, 4444, 4444xq"),
        ("ffv1", "it has none; leave it away"),
    ],
)
def test_a_preset_that_the_encoder_does_not_know_is_refused_with_those_it_knows(
    measnet_run: Run, video: Path, codec: str, has: str
) -> None:
    answer = measnet_run(video, "--codec", codec, "--preset", "hasty", "-o", video.with_name("out.mkv"))
    assert answer.status == 2 and f"--preset hasty is none of {CODECS[codec].encoder}: " in answer.err
    assert has in answer.err and answer.err.count("\n") == 1
    assert [path.name for path in video.parent.iterdir()] == ["clip.mp4"]


def test_options_of_files_say_that_a_pipe_has_nothing_of_them(clip: MakeClip) -> None:
    done = pipe(clip("plain.mp4"), "-o", "-", "--bits", "10", "--crf", "3")
    assert done.status == 0 and done.sent.startswith(b"YUV4MPEG2")
    assert "warning: --crf, --bits: of files alone; bare pixels of 8 bits" in done.err


def test_closed_folder_is_refused_before_any_work() -> None:
    # In a process that has given up being root, who may write everywhere.
    code = """
import os, pathlib, tempfile
from measnet.errors import UsageError
from measnet.runtime.sinks.aside import check_target
folder = pathlib.Path(tempfile.mkdtemp())
folder.chmod(0o555)
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    check_target(folder / "out.mp4", [], overwrite=False)
except UsageError as error:
    assert error.exit_code == 2 and "cannot be written" in str(error), error
else:
    raise AssertionError("accepted")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_failure_on_the_way_is_status_1(measnet_run: Run, video: Path) -> None:
    class Failing(IdentityRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            raise BackendError("the engine ran out of memory; use --tile")

    report = video.with_name("report.json")
    answer = measnet_run(video, "--report", report, engine=Failing)
    assert answer.status == 1 and "the engine ran out of memory; use --tile" in answer.err
    assert sorted(p.name for p in video.parent.iterdir()) == ["clip.mp4", "report.json"]
    (run,) = json.loads(report.read_text())["runs"]
    assert run["status"] == "failed" and "out of memory" in run["error"]


def test_engine_that_cannot_be_loaded_is_status_2_and_in_the_report(measnet_run: Run, video: Path) -> None:
    def fail() -> None:
        raise GraphError("model.onnx is not one of ours")

    report = video.with_name("report.json")
    assert measnet_run(video, "--report", report, engine=fail).status == 2
    (run,) = json.loads(report.read_text())["runs"]
    assert "not one of ours" in run["error"] and run["status"] == "failed"
    assert sorted(p.name for p in video.parent.iterdir()) == ["clip.mp4", "report.json"]


def test_debug_shows_where(measnet_run: Run, tmp_path: Path) -> None:
    from measnet.errors import InputError
    from measnet.runtime import cli

    result = CliRunner().invoke(cli.main, [str(tmp_path / "missing.mp4"), "--debug"])
    assert isinstance(result.exception, InputError)


def test_report_has_all_figures(measnet_run: Run, video: Path) -> None:
    report = video.with_name("report.json")
    assert measnet_run(video, "--report", report, "--quiet").status == 0
    (run,) = json.loads(report.read_text())["runs"]
    assert run["status"] == "complete" and run["error"] is None
    assert (run["frames"], run["expected_frames"]) == (20, 20)
    assert (run["width"], run["height"], run["kind"]) == (96, 64, "video")
    assert set(run["seconds"]) == {"decode", "restore", "temporal", "encode", "verify", "total"}
    assert run["engine"] == IdentityRestorer.description
    assert run["output_bytes"] == Path(run["output"]).stat().st_size
    assert run["input_bytes"] == video.stat().st_size
    assert (run["damaged"], run["dropped"], run["skipped"]) == (0, 0, 0)


@pytest.mark.parametrize("name", ["clip.restored.mp4", "clip.compare.mp4", "elsewhere.mkv", "shown.png"])
def test_a_report_never_takes_the_place_of_a_result(measnet_run: Run, video: Path, name: str) -> None:
    there = video.with_name(name)
    there.write_text("precious")
    answer = measnet_run(video, "--report", there, "--compare", "side", "-y")
    assert answer.status == 2 and "give it a name such as run.json" in answer.err
    assert there.read_text() == "precious"
    assert sorted(p.name for p in video.parent.iterdir()) == sorted(["clip.mp4", name])


def test_a_report_never_takes_the_place_of_a_folder_of_results(
    measnet_run: Run, tmp_path: Path, video: Path
) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    ffmpeg("-i", video, "-frames:v", "2", shots / "%d.png")
    answer = measnet_run(shots, "--report", tmp_path / "shots.restored")
    assert answer.status == 2 and "would replace the result" in answer.err
    assert not (tmp_path / "shots.restored").exists()


def test_quiet_says_nothing(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, "--quiet")
    assert (answer.out, answer.err) == ("", "")


def test_frames_ends_early_with_a_whole_file(measnet_run: Run, video: Path) -> None:
    assert measnet_run(video, "--frames", "5").status == 0
    assert len(probe(video.with_name("clip.restored.mp4")).times) == 5


class Astray(Restorer):
    """Is a tenth brighter than the network."""

    def restore(self, *arguments: Any, **options: Any) -> RestoredFrame:
        restored = super().restore(*arguments, **options)
        return replace(restored, image=restored.image + np.float32(0.1))


def test_verify_checks_every_nth_frame(measnet_run: Run, video: Path) -> None:
    pytest.importorskip("torch")
    report, once = video.with_name("report.json"), ["--frames", "7", "--temporal", "0", "--verify"]
    answer = measnet_run(
        video, *once, "1/6", "--verify-share", "1", "--report", report, engine=partial(Restorer, threads=1)
    )
    assert answer.status == 0 and "parity with PyTorch passed on " in answer.out.replace("\n", " ")
    verify = json.loads(report.read_text())["runs"][0]["verify"]
    assert verify["frames"] >= 1 and verify["frames"] + verify["left_out"] == 2
    assert measnet_run(video, "--verify", "2/6").status == 2
    answer = measnet_run(video, *once, "6", "-y", engine=partial(Astray, threads=1))
    assert answer.status == 1
    assert "20.0 dB" in answer.err and "FAILED" in answer.out
    assert video.with_name("clip.restored.mp4").exists()


@pytest.mark.parametrize(("how", "name"), [("split", "compare.mp4"), ("slider", "compare.html")])
def test_a_comparison_lies_beside_the_result(measnet_run: Run, video: Path, how: str, name: str) -> None:
    answer = measnet_run(video, "--preset", "ultrafast", "--compare", how)
    assert answer.status == 0, answer.err
    target = video.with_name(f"clip.restored.{name}")
    assert target.stat().st_size > 0 and str(target) in answer.out.replace("\n", "")
    again = measnet_run(video, "-o", video.with_name("b.mp4"), "--compare", how)
    assert again.status == 0 and video.with_name(f"b.{name}").exists()
    video.with_name("clip.restored.mp4").unlink()
    refused = measnet_run(video, "--compare", how)
    assert refused.status == 2 and name in refused.err and "--overwrite" in refused.err
    assert not video.with_name("clip.restored.mp4").exists()


def test_a_piece_is_compared_with_the_same_piece(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, "--start", "0.4", "--compare", "slider")
    assert answer.status == 2 and "use side or split" in answer.err
    answer = measnet_run(video, "--start", "0.4", "--preset", "ultrafast", "--compare", "side")
    assert answer.status == 0, answer.err
    assert len(probe(video.with_name("clip.restored.compare.mp4")).times) == 10


def test_a_folder_of_pictures_is_compared_picture_by_picture(measnet_run: Run, tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    for index in range(2):
        cv2.imwrite(str(tmp_path / "shots" / f"{index}.png"), np.full((32, 48, 3), 90 * index, np.uint8))
    answer = measnet_run(tmp_path / "shots", "--compare", "side")
    assert answer.status == 0, answer.err
    for index in range(2):
        both = cv2.imread(str(tmp_path / "shots.restored.compare" / f"{index}.png"))
        assert both is not None and both.shape == (32, 96, 3) and (both == 90 * index).all()
    refused = measnet_run(tmp_path / "shots", "--compare", "slider", "-y")
    assert refused.status == 2 and "side or split" in refused.err
