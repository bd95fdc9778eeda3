"""Memory of runs that last: frames are freed as soon as nobody needs them."""

from __future__ import annotations

import gc
from pathlib import Path

import av

from measnet.runtime.frame import Frame
from measnet.runtime.sources.choose import open_source

CLIP = Path(__file__).parents[2] / "examples" / "car-park.mp4"


def test_a_frame_goes_when_its_last_user_lets_go() -> None:
    """Not when Python next looks for circles: by then a camera's run holds hundreds."""

    def frames() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    source = open_source(str(CLIP))
    gc.collect()
    before = frames()
    gc.disable()
    try:
        seen = sum(isinstance(item, Frame) for item in source.read())
        left = frames() - before
    finally:
        gc.enable()
        source.close()
    assert seen == 38 and left < 4
