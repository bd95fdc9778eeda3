"""Boxes of MP4 and MOV that say how a picture's views are laid out, which FFmpeg writes for copies only."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from measnet.runtime.frame import StreamInfo

STEREO = {"top_bottom": 1, "left_right": 2}
"""The numbers that ``st3d`` has for two views in one picture, by Matroska's names."""

PROJECTIONS = (0, 1, 2)
"""Views all around that ``sv3d`` has, by FFmpeg's numbers: a sphere unrolled, a cube, a part of the first."""

_TO_THE_PICTURE = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_HEADER, _LIST_HEADER = 8, 16  # bytes before what a box holds, and a list of entries


def views_of(info: StreamInfo) -> bytes:
    """The boxes for a picture's entry; empty where there is nothing to say, or no box for it."""
    boxes = b""
    if info.stereo in STEREO:
        boxes += _box(b"st3d", struct.pack(">IB", 0, STEREO[info.stereo]))
    if info.spherical is not None and info.spherical[0] in PROJECTIONS:
        projection, yaw, pitch, roll, left, top, right, bottom, padding = info.spherical
        shape = (
            _box(b"cbmp", struct.pack(">3I", 0, 0, padding))
            if projection == 1
            else _box(b"equi", struct.pack(">5I", 0, top, bottom, left, right))
        )
        pose = _box(b"prhd", struct.pack(">I3i", 0, yaw, pitch, roll))
        boxes += _box(b"sv3d", _box(b"svhd", bytes(5)) + _box(b"proj", pose + shape))
    return boxes


def add_views(path: Path, boxes: bytes) -> None:
    """Puts ``boxes`` into the entry of the first picture of a complete file, whose index is its end.

    Raises OSError.
    """
    with path.open("r+b") as file:
        place = _place_of_index(file)
        file.seek(place)
        index = bytearray(file.read())
        grown, start, end = [], 0, len(index)
        for name in _TO_THE_PICTURE:
            start, end = next((s, e) for found, s, e in _boxes(index, start, end) if found == name)
            grown.append(start)
            start += _LIST_HEADER if name == b"stsd" else _HEADER
        entry, entry_end = next((s, e) for _, s, e in _boxes(index, start, end))
        index[entry_end:entry_end] = boxes
        for start in (*grown, entry):
            struct.pack_into(">I", index, start, struct.unpack_from(">I", index, start)[0] + len(boxes))
        file.seek(place)
        file.write(index)


def _place_of_index(file: BinaryIO) -> int:
    place = 0
    while len(head := file.read(16)) >= _HEADER:
        size, name = struct.unpack_from(">I4s", head)
        if name == b"moov":
            return place
        place += struct.unpack_from(">Q", head, 8)[0] if size == 1 else size
        file.seek(place)
    raise OSError("its index is not there")


def _boxes(index: bytes | bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start < end:
        size, name = struct.unpack_from(">I4s", index, start)
        yield name, start, start + size
        start += size


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", _HEADER + len(content), name) + content
