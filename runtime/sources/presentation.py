"""Gives every decoded frame a time of its own, later than that of the frame before.

Decoders give frames out in the order they are shown, so their times must rise. In containers that store no
presentation times (AVI, and MPEG-4 copied from it) FFmpeg makes them up, wrongly where frames are stored out
of order; the decoding times it hands along with the frames do rise. Bare streams have neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import av

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

LOOKED_AT = 16  # frames that tell which times can be trusted: as many as H.264 may reorder


def with_rising_times(
    items: Iterator[av.VideoFrame | Packet[Stream]], step: int, *, look_ahead: bool = True
) -> Iterator[av.VideoFrame | Packet[Stream]]:
    """The same items, in the same order; ``pts`` of every frame is set and above that of the one before.

    ``step`` is how long a frame usually lasts, in units of the stream. Without ``look_ahead`` every frame is
    given out as it comes, and presentation times are trusted.
    """
    head = _until_frames(items, LOOKED_AT) if look_ahead else []
    frames = [item for item in head if isinstance(item, av.VideoFrame)]
    by_decoding = not _rise(frame.pts for frame in frames) and _rise(frame.dts for frame in frames)
    last: int | None = None
    after = 0  # when a frame without a time is shown
    for item in itertools.chain(head, items):
        if isinstance(item, av.VideoFrame):
            time = item.dts if by_decoding else item.pts
            if time is None:
                time = after
            item.pts = time if last is None or time > last else last + 1
            last, after = item.pts, item.pts + (item.duration or step)
        yield item


def _rise(times: Iterable[int | None]) -> bool:
    known = [time for time in times if time is not None]
    return len(known) > 1 and all(early < late for early, late in itertools.pairwise(known))


def _until_frames(
    items: Iterator[av.VideoFrame | Packet[Stream]], count: int
) -> list[av.VideoFrame | Packet[Stream]]:
    head = []
    for item in items:
        head.append(item)
        count -= isinstance(item, av.VideoFrame)
        if not count:
            break
    return head
