"""Memory of runs that last: what frames took is given back."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from measnet.runtime.frame import Frame
from measnet.runtime.live import upkeep
from measnet.runtime.sources.choose import open_source

CLIP = Path(__file__).parents[2] / "examples" / "car-park.mp4"

HOLES = """
import sys
import numpy as np
from measnet.runtime.memory import give_back_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

np.ones(4_000_000)  # from here on glibc takes what is smaller from its heaps
before = resident()
frames, kept = [], []
for _ in range(100):
    frames.append(np.ones((360, 640, 3), np.uint8))
    kept.append(np.ones(2000, np.uint8))
frames.clear()
if sys.argv[1] == "given back":
    give_back_freed_memory()
print((resident() - before) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_frames_between_things_that_stay_are_given_back_to_the_system() -> None:
    def left(case: str) -> int:
        command = [sys.executable, "-c", HOLES, case]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert left("as usual") > 50, "MiB: else nothing has to be done"
    assert left("given back") < 10


def test_a_live_run_gives_memory_back_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    given: list[float] = []
    monkeypatch.setattr(upkeep, "time", clock)
    monkeypatch.setattr(upkeep, "give_back_freed_memory", lambda: given.append(clock.now))
    keeper, frame = upkeep.Upkeep(), SimpleNamespace()
    for clock.now in range(150):
        passing: Any = frame
        keeper.finished(passing)
    assert given == [60, 120]


def test_a_frame_goes_when_its_last_user_lets_go() -> None:
    """Not when Python next looks for circles: by then a camera's run holds hundreds."""
    source = open_source(str(CLIP))
    gc.collect()
    gc.disable()
    try:
        seen = sum(isinstance(item, Frame) for item in source.read())
        left = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
        source.close()
    assert seen == 38 and left < 4
