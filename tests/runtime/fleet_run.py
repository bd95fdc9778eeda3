"""measnet-run whose workers in a cluster make short segments, and dawdle behind the first one of a video
until a file is there, so that they are surely at work when they are killed or stopped.

    fleet_run.py FILE ARGUMENT...
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from measnet.runtime import cli
from measnet.runtime.fleet import worker
from measnet.runtime.fleet.archive import Item
from measnet.runtime.options import RunOptions
from measnet.runtime.run_report import RunReport

FRAMES = 24
"""As in ``resuming.py``."""

_go_on = Path(sys.argv.pop(1))


def restore(item: Item, options: RunOptions) -> tuple[int, RunReport]:
    """Is sent to the workers as it stands here; there ``worker.restore`` is the honest one."""
    from measnet.runtime.fleet import worker
    from measnet.runtime.frame import Frame
    from measnet.runtime.sinks import segmented

    Sink = segmented.SegmentedVideoSink  # noqa: N806
    if Sink.segment_frames != FRAMES:
        vars(segmented)["FRAMES"] = Sink.segment_frames = FRAMES
        honest = Sink.write

        def write(sink: segmented.SegmentedVideoSink, frame: Frame) -> None:
            if sink.done and not _go_on.exists():
                time.sleep(1)
            honest(sink, frame)

        vars(segmented)["SegmentedVideoSink"].write = write
    return worker.restore(item, options)


worker.restore = restore
cli.main()
