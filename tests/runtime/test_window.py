"""A window on the screen: the real ffplay, which draws where nobody sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from measnet.runtime.serve.cli import main as serve

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, probe
from .senders import over_tcp, sending

Run = Callable[..., Answer]

pytestmark = pytest.mark.skipif(shutil.which("ffplay") is None, reason="ffplay is not on PATH")


@pytest.fixture(autouse=True)
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def started(*arguments: str | Path, seconds: str = "0.05") -> subprocess.Popen[str]:
    command = [*IDENTITY_COMMAND, seconds, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def player_of(process: subprocess.Popen[str]) -> int:
    """The number of the ffplay that it has started."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            if b"-window_title" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.02)
    pytest.fail(f"no window: {process.communicate()}")


def wait_for_pictures(player: int) -> None:
    """It shows them soon after it has begun to listen to signals."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        listens = re.search(r"SigCgt:\s(\w+)", Path(f"/proc/{player}/status").read_text())
        if listens and int(listens[1], 16) & 1 << signal.SIGINT - 1:
            break
        time.sleep(0.02)
    time.sleep(0.5)


def close(player: int) -> None:
    """Nobody can click here: a signal ends it as well."""
    wait_for_pictures(player)
    os.kill(player, signal.SIGINT)


def test_a_video_is_shown_to_its_end(clip: MakeClip) -> None:
    process = started(clip("a.mp4"), "-o", "window", seconds="0")
    player = player_of(process)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors, errors
    assert said.startswith("window  20 frames")
    assert not Path(f"/proc/{player}").exists()


def test_a_closed_window_ends_a_run_that_has_nothing_else(clip: MakeClip) -> None:
    process = started(clip("long.mp4", seconds=20), "-o", "window")
    player = player_of(process)
    close(player)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.splitlines()[0].endswith("long.mp4: the window was closed") and "error" not in errors
    assert 0 < int(said.split()[1]) < 500


def test_other_results_go_on_without_the_window(clip: MakeClip, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    process = started(clip("a.mp4", seconds=3), "-o", "window", "-o", out)
    player = player_of(process)
    close(player)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "the window was closed" in errors, errors
    assert len(probe(out).times) == 75


@pytest.mark.parametrize("beside", [False, True])
def test_the_window_of_a_stream_is_closed(beside: bool, tmp_path: Path) -> None:
    out, sender = tmp_path / "out.mkv", over_tcp()
    with sending(sender):
        address = sender.url.replace("tcp://", "tcp://bob:s3cret@")
        more: list[str | Path] = ["-o", out, "--frames", "120"] if beside else []
        process = started(address, "-o", "window", *more, seconds="0")
        player = player_of(process)
        title = Path(f"/proc/{player}/cmdline").read_bytes()
        assert b"tcp://***@127.0.0.1" in title and b"s3cret" not in title
        close(player)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the window was closed" in errors and "lost" not in errors and "failed" not in errors
    if beside:
        assert len(probe(out).times) > 60


def test_a_player_that_is_killed_is_a_failure(clip: MakeClip) -> None:
    process = started(clip("long.mp4", seconds=20), "-o", "window")
    player = player_of(process)
    wait_for_pictures(player)
    os.kill(player, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: the window is gone" in errors, errors


@pytest.mark.parametrize(
    ("lacking", "live"), [("player", False), ("screen", False), ("driver", False), ("driver", True)]
)
def test_without_player_or_screen_nothing_is_begun(
    lacking: str,
    live: bool,
    clip: MakeClip,
    measnet_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender = over_tcp() if live else None
    source = clip("a.mp4") if sender is None else sender.url
    if sender is not None:
        sender.start()
    if lacking == "player":
        monkeypatch.setenv("PATH", str(tmp_path))
        words = "apt install ffmpeg"
    elif lacking == "screen":
        for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        words = "set DISPLAY"
    else:
        monkeypatch.setenv("SDL_VIDEODRIVER", "none-such")
        words = "no window can be opened"
    out, answer = tmp_path / "out.mkv", None
    try:
        until = time.monotonic() + 30
        while answer is None or (words not in answer.err and live and time.monotonic() < until):
            answer = measnet_run(source, "-o", out, "-o", "window")
    finally:
        if sender is not None:
            sender.kill()
    assert answer.status == 2 and words in " ".join(answer.err.split()), answer.err
    assert not list(tmp_path.iterdir())


def test_cameras_have_a_window_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cameras.yaml"
    cameras = [f"  - {{name: {name}, source: 'tcp://h:{name}', sinks: [window]}}" for name in "12"]
    path.write_text("\n".join(["cameras:", *cameras]))
    done = CliRunner().invoke(serve, ["--dry-run", str(path)])
    assert done.exit_code == 0, done.output
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(serve, ["--dry-run", str(path)])
    assert done.exit_code == 2 and "camera 2: a window needs ffplay" in " ".join(done.stderr.split())
