"""Segments: stretches of the result on disk, each made by an encoder of its own.

A segment's file is its packets end to end; then the state that a run needs to go on behind it; then a JSON
table with one row for each packet: bytes, presentation time, duration, and 1 for a key frame. The past that
fusion over time needs is as large as some frames, so it lies beside its segment, and only that of the last
segment and of the one before are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from av.packet import Packet
from msgspec import Meta

from measnet.runtime.sinks.part_folder import Count, is_plain_file
from measnet.whole_file import write_whole

if TYPE_CHECKING:
    from av.stream import Stream
    from av.video.stream import VideoStream

FRAMES = 96
"""Frames that each segment is made from, the last one excepted.

A cut costs at most this many frames' work, and every segment begins with a key frame: at 96 that is
one in four seconds of film, which seeking likes and which costs little in size.
"""

LARGEST_STATE = 1 << 22
"""Bytes that an engine may have kept from one segment to the next."""

_LARGEST_TABLE = 1 << 20

Time = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
"""A time in the result's time base."""

Row = tuple[
    Annotated[int, Meta(ge=1, le=1 << 28)],
    Time,
    Count,
    Annotated[int, Meta(ge=0, le=1)],
]
"""A packet's bytes, presentation time, duration, 1 for a key frame."""

LARGEST_PAST = 1 << 31


class PastFile(msgspec.Struct, frozen=True):
    """Tells the file of a segment's past from any other."""

    bytes: Annotated[int, Meta(ge=1, le=LARGEST_PAST)]
    sha256: str


class SegmentEntry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The manifest's line on a whole segment: its file, its frames, the time of the last one that has any,
    and how many frames so far were skipped and rounded."""

    bytes: Count
    table: Count
    state: Annotated[int, Meta(ge=0, le=LARGEST_STATE)]
    sha256: str
    frames: Annotated[int, Meta(ge=1, le=FRAMES)]
    last: Time | None
    skipped: Count
    rounded: Count
    past: PastFile | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A whole segment: its file, in which the table begins at byte ``table``, after ``state_bytes`` of the
    engine's.

    The table is read when it is asked for, or a long film's would fill memory.
    """

    path: Path
    table: int
    state_bytes: int = 0

    @property
    def picture_bytes(self) -> int:
        """Size of all packets; 0 if none of its frames could be placed."""
        return self.table - self.state_bytes

    def state(self) -> bytes | None:
        """Reads the state behind its last frame, if there is any. Raises OSError."""
        if not self.state_bytes:
            return None
        with self.path.open("rb") as file:
            file.seek(self.picture_bytes)
            return file.read(self.state_bytes)

    def rows(self) -> list[Row]:
        """The table. Raises OSError, also when it is none."""
        with self.path.open("rb") as file:
            file.seek(self.table)
            try:
                return msgspec.json.decode(file.read(_LARGEST_TABLE), type=list[Row])
            except (ValueError, RecursionError):
                raise OSError(f"{self.path} is no segment") from None

    def packets(self, time_base: Fraction) -> Iterator[Packet[Stream]]:
        """The packets as the encoder made them, but for their decoding times. Raises OSError."""
        rows = self.rows()
        with self.path.open("rb") as file:
            for size, pts, duration, key in rows:
                packet = Packet(file.read(size))
                packet.pts, packet.duration, packet.time_base = pts, duration, time_base
                packet.is_keyframe = bool(key)
                yield packet


class SegmentWriter:
    """A segment that is being written, under a name ending in ``.part`` until it is whole.

    Args:
        path: the name it will bear.

    Raises:
        OSError: here and everywhere, as writing does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(path.name + ".part")
        self._file = self._aside.open("w+b")
        self._rows: list[Row] = []

    def add(self, packets: list[Packet[VideoStream]]) -> None:
        """Append what the encoder gave out."""
        for packet in packets:
            data = bytes(packet)
            assert packet.pts is not None
            self._file.write(data)
            self._rows.append((len(data), packet.pts, packet.duration or 0, int(packet.is_keyframe)))

    def finish(self, state: bytes | None = None) -> tuple[Segment, int, str]:
        """Give it its name, for good; the segment, and the bytes and SHA-256 of its file."""
        state = state or b""
        self._file.write(state)
        table = self._file.tell()
        self._file.write(json.dumps(self._rows).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        self._aside.replace(self._path)
        return Segment(self._path, table, len(state)), size, digest

    def discard(self) -> None:
        """Leave nothing of it behind."""
        with contextlib.suppress(OSError):
            self._file.close()  # writes what is buffered, for which there may be no room
        self._aside.unlink(missing_ok=True)


def read_segment(path: Path, part: SegmentEntry) -> Segment | None:
    """The segment that lies at ``path``; None unless it is a plain file and all as ``part`` of the manifest
    says."""
    if not part.state <= part.table <= part.bytes <= part.table + _LARGEST_TABLE:
        return None
    if not is_plain_file(path, part.bytes):
        return None
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                return None
        segment = Segment(path, part.table, part.state)
        rows = segment.rows()
    except OSError:
        return None
    return segment if sum(row[0] for row in rows) == segment.picture_bytes else None


KEPT = 2
"""Segments whose past lies on disk; were the last one damaged, a run could go on one segment earlier."""


def write_past(folder: Path, number: int, past: bytes) -> PastFile:
    """Writes the past behind segment ``number``. Raises OutputError."""
    write_whole(_past_path(folder, number), past)
    return PastFile(len(past), hashlib.sha256(past).hexdigest())


def read_past(folder: Path, number: int, said: PastFile | None) -> bytes | None:
    """The past behind segment ``number``; None unless it is there and as the manifest ``said``. Raises
    OSError."""
    path = _past_path(folder, number)
    if said is None or not is_plain_file(path, said.bytes):
        return None
    past = path.read_bytes()
    return past if hashlib.sha256(past).hexdigest() == said.sha256 else None


def drop_past(folder: Path, number: int) -> None:
    """Removes a past that no run will need again. Raises OSError."""
    _past_path(folder, number).unlink(missing_ok=True)


def _past_path(folder: Path, number: int) -> Path:
    return folder / f"past-{number:05}"
