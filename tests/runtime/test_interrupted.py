"""``measnet-run`` that is interrupted, or cut short by a limit: what is left, lines, exit statuses."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest
from ports import is_up

from measnet import Restorer
from measnet.runtime.console import Console
from measnet.runtime.options import RunOptions
from measnet.runtime.session import Session

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, probe

Run = Callable[..., Answer]


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
    assert "partial" in out and "the same command begins anew" in out


def test_an_interruption_while_the_engine_is_loaded_is_status_130_and_silent(
    measnet_run: Run, video: Path
) -> None:
    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    assert measnet_run(video, engine=interrupted) == Answer(130, "", "")
    assert list(video.parent.iterdir()) == [video]


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
    quick = ["--crf", "1", "--preset", "ultrafast", "--temporal", "0"]
    done = subprocess.run(
        [*IDENTITY_COMMAND, "0", str(source), "-o", str(tmp_path / "out.mp4"), *quick],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: writing") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_session_opens_its_engine_anew_for_each_run(video: Path) -> None:
    opened: list[Restorer] = []

    def opens(options: RunOptions) -> Restorer:
        opened.append(Restorer("nano"))
        return opened[-1]

    session = Session(Console(quiet=True), RunOptions(overwrite=True), opens=opens)
    assert [session.run((str(video),)) for _ in range(2)] == [0, 0]
    assert len(opened) == 2
