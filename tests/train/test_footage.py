"""Footage: frames of a video as pictures to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from measnet.runtime.frame import Frame
from measnet.runtime.sources.video import VideoFile
from measnet.train.data.footage import take_frames
from measnet.train.data.pictures import read_picture

VIDEO = Path(__file__).parents[2] / "examples" / "car-park.clean.mp4"


def test_frames_are_those_that_measnet_run_would_restore(tmp_path: Path) -> None:
    """PyAV's own conversion to RGB is about a level too dark."""
    images = take_frames(VIDEO, tmp_path / "frames", most=2, leads=True)
    source = VideoFile(VIDEO)
    theirs = next(item.pixels for item in source.read() if isinstance(item, Frame))
    source.close()
    assert len(images.pairs) == 2
    assert np.array_equal(read_picture(images.pairs[0].clean), theirs)
