"""Runs that are cut off, and what is left of them, for the tests of going on."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet.decision_layout import Vector
from measnet.errors import BackendError
from measnet.image import Pixels
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.sinks.segmented import SegmentedVideoSink

from . import started_once
from .conftest import (
    Answer,
    MakeClip,
    run_here,
)
from .identity import IdentityRestorer

Run = Callable[..., Answer]

FRAMES = 24
"""Frames of a segment in these tests: as many as elsewhere would only take longer."""

WHOLE = 2 * FRAMES
LENGTH = WHOLE + 9  # two whole segments and a shorter one
FAILS = WHOLE + 5
UNEVEN = "setpts=(floor(N/3)*6+gte(mod(N\\,3)\\,1)+3*gte(mod(N\\,3)\\,2))/25/TB"
# A preset with B-frames, and the one whose choices differed from run to run with AVX-512.
OPTIONS = ["--preset", "veryfast"]
ALONE = [*OPTIONS, "--temporal", "0"]
"""Every frame by itself, which is quicker: for what lies behind the fusion of frames."""


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("measnet.runtime.sinks.segmented.FRAMES", FRAMES)
        patch.setattr(SegmentedVideoSink, "segment_frames", FRAMES)
        yield


@pytest.fixture(scope="module")
def source(clip: MakeClip) -> Path:
    """Frames after 40, 120 and 80 ms in turn, with sound."""
    return clip(
        "uneven.mp4",
        *["-vf", UNEVEN, "-fps_mode", "vfr", "-video_track_timescale", "90000"],
        size="64x48",
        seconds=LENGTH / 25,
    )


@pytest.fixture
def video(source: Path, tmp_path: Path) -> Path:
    shutil.copy(source, tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


def frame_sums(path: Path) -> list[str]:
    """Times, lengths, sizes and sums of picture and sound, by ``ffmpeg -f framemd5``."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v", "-map", "0:a?", "-f", "framemd5", "-"]
    done = started_once.run(*command)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.decode().splitlines() if not line.startswith("#software")]


class FailingRestorer(IdentityRestorer):
    """Gives up at frame ``last``."""

    def __init__(self, last: int = FAILS) -> None:
        self.last = last
        self.frames = 0

    def restore(self, pixels: Pixels) -> RestoredFrame:
        self.frames += 1
        if self.frames > self.last:
            raise BackendError("the engine gave up")
        return super().restore(pixels)


@pytest.fixture(scope="module")
def once(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The sums of an uninterrupted result, and the folder of a run whose engine failed."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copy(source, folder / "clip.mp4")
    failed = run_here(folder / "clip.mp4", *OPTIONS, engine=FailingRestorer)
    assert failed.status == 1
    message = " ".join(failed.err.split())
    assert f"frame {FAILS} came back wrong from identity fp32: the engine gave up" in message
    assert message.endswith(f"the same command then goes on at frame {WHOLE}"), message
    whole = folder / "whole.mp4"
    assert run_here(folder / "clip.mp4", "-o", whole, *OPTIONS).status == 0
    return frame_sums(whole), folder / "clip.restored.mp4.part"


@pytest.fixture
def whole(once: tuple[list[str], Path]) -> list[str]:
    return once[0]


@pytest.fixture
def part(once: tuple[list[str], Path], video: Path) -> Path:
    """The folder of a run that failed, beside ``video``."""
    part = video.with_name("clip.restored.mp4.part")
    shutil.copytree(once[1], part)
    return part


def result(video: Path) -> Path:
    return video.with_name("clip.restored.mp4")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def resumed_at(report: Path) -> int:
    (run,) = json.loads(report.read_text())["runs"]
    assert run["frames"] == LENGTH and run["status"] == "complete"
    return int(run["resumed_at"])


NEVER = 10**9


def sent_at_a_step(
    number: signal.Signals, moment: int, *command: str | Path
) -> subprocess.CompletedProcess[str]:
    """A program of ours to which a signal was sent at its ``moment``-th step that makes something last."""
    script = Path(__file__).parent / "killed_run.py"
    words = [sys.executable, script, number.value, moment, FRAMES, *command]
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)


class Steerable(FailingRestorer):
    """Is steered by a number that jumps: held steady, every result depends on all frames before it."""

    steerable = True

    def __init__(self, last: int = FAILS, decisions_size: int = 1) -> None:
        super().__init__(last)
        self.decisions_size = decisions_size

    def settle(self, pixels: Pixels) -> tuple[Vector, float]:
        return np.full(self.decisions_size, pixels.sum(dtype=np.int64) % 256, np.float32), 1

    def steer(self, vector: Vector, share: float) -> tuple[Vector, float]:
        return vector, share

    def restore(self, pixels: Pixels, steering: Any = None) -> RestoredFrame:
        restored, (own, _), (before, share) = super().restore(pixels), self.settle(pixels), steering
        held = share * before + (1 - share) * own
        return replace(restored, pixels=restored.pixels // 2 + np.uint8(held[0] / 2), decisions=own)


def joining_fails(
    monkeypatch: pytest.MonkeyPatch, measnet_run: Run, video: Path, engine: Any = IdentityRestorer
) -> Path:
    """The folder of a run that failed when all was done but for joining it."""

    def fail(self: SegmentedVideoSink, target: Path, *, cut: bool) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr(SegmentedVideoSink, "_join", fail)
        answer = measnet_run(video, *OPTIONS, engine=engine)
    assert answer.status == 1 and answer.err.strip().endswith(f"then goes on at frame {LENGTH}"), answer.err
    return video.with_name("clip.restored.mp4.part")
