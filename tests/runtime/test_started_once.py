"""Programs that wait, already linked, give what they give when they are started anew."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import started_once
from .conftest import MakeClip


def test_a_program_that_waits_gives_what_one_started_anew_gives(
    clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clip("plain.mp4")
    monkeypatch.chdir(source.parent)
    for command in (
        ["ffprobe", "-v", "error", "-show_packets", source.name],
        ["ffmpeg", "-v", "error", "-i", source.name, "-f", "rawvideo", "-"],  # more than a pipe holds
        ["ffprobe", "-v", "error", str(tmp_path / "none.mp4")],
    ):
        anew = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        again = started_once.run(*command)
        assert (again.returncode, again.stdout, again.stderr) == (anew.returncode, anew.stdout, anew.stderr)


def test_without_a_compiler_it_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(started_once, "_library", lambda: None)
    monkeypatch.setattr(started_once, "_not_here", set())
    assert started_once.run("ffprobe", "-version").stdout.startswith(b"ffprobe version")
