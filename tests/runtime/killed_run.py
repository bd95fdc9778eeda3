"""A program of ours that is sent a signal at the N-th step that makes something last: before a file is
synced, or before it gets its name.

    killed_run.py SIGNAL N FRAMES SCRIPT ARGUMENT...

Segments are of so many FRAMES.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measnet.runtime.sinks import segmented

_signal = signal.Signals(int(sys.argv[1]))
_left = int(sys.argv[2])
vars(segmented)["FRAMES"] = segmented.SegmentedVideoSink.segment_frames = int(sys.argv[3])
del sys.argv[:4]


def _counted(step: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        global _left
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), _signal)
        return step(*arguments)

    return counting


os.fsync = _counted(os.fsync)
Path.replace = _counted(Path.replace)  # type: ignore[method-assign]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
