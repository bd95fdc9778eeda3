"""``measnet-run`` as seen from outside: files, lines, exit statuses."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
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
from ports import is_up

from measnet.errors import BackendError, GraphError
from measnet.runtime.frame import Pixels
from measnet.runtime.job import Job
from measnet.runtime.options import RunOptions
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.sinks.containers import CODECS

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, ffmpeg, probe
from .identity import IdentityRestorer, given_back
from .piped import pipe

Run = Callable[..., Answer]


@pytest.fixture
def video(clip: MakeClip, tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    shutil.copy(clip("plain.mp4"), path)
    return path


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


def test_a_dry_run_tells_and_writes_nothing(measnet_run: Run, video: Path) -> None:
    report = video.parent / "plan.json"
    answer = measnet_run(video, "--dry-run", "--report", report)
    assert answer.status == 0, answer.err
    line = " ".join(answer.out.split())
    assert re.search(r"clip\.restored\.mp4: 20 frames of 96x64, about \d+ s at .* nothing was written", line)
    assert sorted(path.name for path in video.parent.iterdir()) == ["clip.mp4", "plan.json"]
    (planned,) = json.loads(report.read_text())["runs"]
    assert planned["status"] == "planned" and planned["fps"] > 0 and planned["frames"] == 0
    assert planned["seconds"]["expected"] == pytest.approx(20 / planned["fps"], abs=0.1)


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_what_a_dry_run_says_is_what_happens(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    upright = clip("plain.mov", "-c:v", "libx265", "-pix_fmt", "yuv422p10le", "-c:a", "mp2")
    source, target = tmp_path / "turned.mov", tmp_path / f"result{ending}"
    ffmpeg("-i", upright, "-c", "copy", "-metadata:s:v", "rotate=90", source)
    arguments = [
        source,
        "-o",
        target,
        "--frames",
        "9",
        "--preset",
        "ultrafast",
        "--report",
        tmp_path / "r.json",
    ]
    words = measnet_run(*arguments, "--dry-run")
    (said,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert words.status == 0 and f"{target}: 9 frames" in words.out.replace("\n", "")
    done = measnet_run(*arguments)
    (run,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert done.status == 0, done.err
    for key in ("output", "expected_frames", "engine", "encoding", "largest_tile_count"):
        assert said[key] == run[key], key
    assert set(said["warnings"]) <= set(run["warnings"])
    assert len(said["warnings"]) == (1 if ending == ".avi" else 0)  # how it is turned
    result, encoding = probe(target), said["encoding"]
    codec = {"libx264": "h264", "libx265": "hevc"}[encoding["encoder"]]
    assert len(result.times) == 9 and result.video["codec_name"] == codec
    for key, theirs in (("pixel_format", "pix_fmt"), ("width", "width"), ("height", "height")):
        assert encoding[key] == result.video[theirs] and str(encoding[key]) in words.out
    assert f"{encoding['bits']} bits" in words.out and "with it: sound" in words.out
    for warning in said["warnings"]:
        assert warning.split(":")[0] in words.err.replace("\n", "")


def test_dry_runs_of_several_inputs_are_added_up(measnet_run: Run, video: Path) -> None:
    shutil.copy(video, video.with_name("again.mp4"))
    answer = measnet_run(
        video, video.with_name("again.mp4"), "--dry-run", "--frames", "1000", "--verify", "5"
    )
    assert answer.status == 0, answer.err
    assert answer.out.count("20 frames of 96x64") == 2 and "one frame in 5 is checked" in answer.out
    assert re.search(r"^2 inputs: about \d+ s in all$", answer.out, re.MULTILINE)
    alone = measnet_run(video, "absent.mp4", "--dry-run")
    assert alone.status == 2 and re.search(r"^1 input: about \d+ s in all$", alone.out, re.MULTILINE)
    assert "in all" not in measnet_run("no.mp4", "absent.mp4", "--dry-run").out


def test_a_dry_run_of_a_slow_engine_tries_two_frames(video: Path) -> None:
    frames: list[Pixels] = []

    class Counted(IdentityRestorer):
        def restore(self, pixels: Pixels) -> RestoredFrame:
            frames.append(pixels)
            return super().restore(pixels)

    slow: Any = Counted()
    Job(str(video), RunOptions()).rehearse(slow, seconds=0.0)
    assert len(frames) == 2


def test_a_dry_run_finds_what_a_run_would_stumble_over(measnet_run: Run, video: Path) -> None:
    answer = measnet_run(video, "--dry-run", "-o", video.parent / "absent" / "out.mp4")
    assert answer.status == 2 and "does not exist" in answer.err


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


def interrupt(arguments: list[str | Path], number: int, part: Path) -> subprocess.Popen[str]:
    """Start a slow run and send a signal once it has begun to write."""
    running = subprocess.Popen(
        [*IDENTITY_COMMAND, "0.2", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not part.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(number)
    return running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_video_is_playable_and_called_partial(video: Path, number: int) -> None:
    part = video.with_name("clip.restored.mp4.part")
    # Without look-ahead the first packet, and with it the file, comes with the first frame.
    running = interrupt([video, "--preset", "ultrafast"], number, part)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    partial = video.with_name("clip.restored.partial.mp4")
    assert sorted(p.name for p in video.parent.iterdir()) == ["clip.mp4", partial.name]
    times = probe(partial).times
    assert 1 <= len(times) < 20 and times == probe(video).times[: len(times)]
    assert "partial" in out


def test_an_interruption_before_anything_has_begun_is_status_130_and_silent(
    measnet_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("measnet.runtime.cli.hide_arguments", interrupted)
    assert measnet_run("clip.mp4") == Answer(130, "", "")


def test_signals_are_taken_once_the_heavy_packages_are_there() -> None:
    code = (
        "import sys\n"
        "from measnet.runtime import cli, session\n"
        "session.stopping_on_signals = lambda stop: sys.exit('measnet.runtime.job' in sys.modules and 7)\n"
        "cli.main(['tcp://127.0.0.1:1', '-o', 'x.mkv'])"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 7


def test_interrupted_folder_is_called_partial(tmp_path: Path) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for number in range(40):
        cv2.imwrite(str(shots / f"{number:02}.png"), np.zeros((8, 8, 3), np.uint8))
    running = interrupt([shots], signal.SIGINT, tmp_path / "shots.restored.part")
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert not (tmp_path / "shots.restored").exists()
    assert 1 <= len(list((tmp_path / "shots.restored.partial").iterdir())) < 40


def test_interrupting_a_live_recording_is_its_normal_end(clip: MakeClip, tmp_path: Path) -> None:
    from .test_live import mpegts_over_tcp

    long = clip("long.mp4", "-g", "5", "-bf", "0", seconds=8.0)
    with mpegts_over_tcp(long) as url:
        until = time.monotonic() + 60
        while not is_up(int(url.rpartition(":")[2])) and time.monotonic() < until:
            time.sleep(0.02)
        part = tmp_path / "out.mp4.part"
        running = interrupt([url, "-o", tmp_path / "out.mp4", "--preset", "ultrafast"], 2, part)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert probe(tmp_path / "out.mp4").times


def test_file_size_limit_is_one_line_and_leaves_nothing(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("noisy.mp4", "-vf", "noise=alls=90:allf=t", size="320x240", seconds=1.0)
    done = subprocess.run(
        [*IDENTITY_COMMAND, "0", str(source), "-o", str(tmp_path / "out.mp4"), "--crf", "1"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: writing") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


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
