"""Checks of an ONNX file before any library allocates what the file claims to hold.

Reads the protobuf itself, so that running needs no ``onnx`` package and constants are passed over unread.
Sources: onnx.proto (field numbers), the protobuf encoding guide.

A graph that ``measnet-export`` writes ends in a seal: a metadata entry of fixed length whose value is the
SHA-256 of all bytes before it. To every other reader it is one more entry. It tells damage, not intent.
A graph whose weights lie in a file beside it says that file's SHA-256 too: its offsets fit no other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from measnet.errors import GraphError

SEAL = "measnet.sha256"
"""The key of the seal."""

DATA_SEAL = "measnet.data_sha256"
"""The key of the SHA-256 of the file beside the graph in which its weights lie."""

_ENTRY = b"\x0a" + bytes([len(SEAL)]) + SEAL.encode() + b"\x12\x40"  # key, then a value of 64 characters
_HEAD = b"\x72" + bytes([len(_ENTRY) + 64]) + _ENTRY  # field 14 of the model
_SEAL_LENGTH = len(_HEAD) + 64

DEEPEST = 16
"""Graphs within graphs; ours have none."""

MOST_PER_BYTE = 4
"""Elements that a stored byte can hold at most: the narrowest types have 2 bits."""

# Message -> its fields that hold further messages on the way to constants.
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
# A second one would be merged into the first, and its claims be others than either's.
_ONCE = {("model", 7), ("attribute", 5), ("attribute", 6), ("attribute", 22)}
# Of a tensor: everything that holds its elements.
_ELEMENTS = (4, 5, 6, 7, 9, 10, 11)


@dataclass
class Constant:
    """A tensor as the file describes it. ``stored`` are the bytes of its elements in the file itself."""

    name: str = ""
    dims: list[int] = field(default_factory=list)
    stored: int = 0
    external: bool = False
    sparse: bool = False
    entries: dict[str, str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        return self.entries.get("location", "")


class DamagedError(Exception):
    """The bytes are no ONNX model."""


class DataFiles:
    """The files in ``folder`` that hold a graph's constants. Each is looked at once: one holds hundreds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._outside: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}

    def is_outside(self, location: str) -> bool:
        """Tells whether a file named by the graph lies outside the folder, links followed."""
        if location not in self._outside:
            self._outside[location] = self._lies_outside(location)
        return self._outside[location]

    def size(self, location: str) -> int:
        """Bytes of a file named by the graph; -1 where there is none in the folder."""
        if location not in self._sizes:
            self._sizes[location] = self._bytes(location)
        return self._sizes[location]

    def _lies_outside(self, location: str) -> bool:
        try:
            return not location or not (self.folder / location).resolve().is_relative_to(self.folder)
        except (ValueError, OSError, RuntimeError):
            return True

    def _bytes(self, location: str) -> int:
        if self.is_outside(location):
            return -1
        try:
            there = self.folder / location
            return there.stat().st_size if there.is_file() else -1
        except (ValueError, OSError):
            return -1


def sealed(content: bytes) -> bytes:
    """A serialised model with its seal behind it."""
    return content + _HEAD + hashlib.sha256(content).hexdigest().encode()


def check_graph_file(path: Path) -> None:
    """Refuses a graph file that must not be given to a library.

    Raises ``GraphError``: it cannot be read, is no ONNX file, is not as it was when it was sealed, holds
    constants that claim to be larger than what is stored of them, or keeps them in a file that is missing,
    too short, not the one it was written with or outside its own folder.
    """
    check_graph(_content(path), path)


def check_graph(content: bytes, path: Path) -> None:
    """As ``check_graph_file``, of the bytes that were read from ``path``."""
    if _is_broken(content):
        raise GraphError(
            f"{path} is not as measnet-export wrote it; copy or export it again, or, where you have changed "
            f"it yourself, remove its metadata entry {SEAL}"
        )
    try:
        found, files = list(each_constant(content)), DataFiles(path.parent)
        if fault := data_fault(content, found, files):
            raise GraphError(f"{path} {fault}")
        for constant in found:
            if fault := fault_of(constant, files):
                raise GraphError(f"{path}: constant '{constant.name[:80]}' {fault}; export it again")
    except DamagedError as error:
        raise GraphError(f"{path} is not a sound ONNX file: {error}") from None


def each_constant(content: bytes) -> Iterator[Constant]:
    """Every constant of a model, those inside attributes, branches and functions included.

    Raises ``DamagedError``.
    """
    yield from _constants(memoryview(content), "model", 0)


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of the graph file at ``path``, without a library.

    Raises ``GraphError`` when it cannot be read or is no ONNX file.
    """
    try:
        return _metadata(_content(path))
    except DamagedError as error:
        raise GraphError(f"{path} is not a sound ONNX file: {error}") from None


def data_fault(content: bytes, found: list[Constant], files: DataFiles) -> str:
    """Finds a fault in the files that hold the constants ``found`` of a graph: a predicate for a message that
    begins with the graph's name, or "". Files outside the graph's own folder are not looked at. Raises
    ``DamagedError``."""
    locations = sorted({constant.location for constant in found if constant.external})
    expected = _metadata(content).get(DATA_SEAL) if locations else None
    for location in locations:
        if files.is_outside(location):
            continue
        shown = repr(location[:80])
        if not (files.folder / location).exists():
            return (
                f"keeps its weights in {shown}, which is not beside it; copy that file there too, or let "
                "measnet-export write a graph, which is one file"
            )
        if expected is not None and _sha256(files.folder / location) != expected:
            return (
                f"does not belong to the {shown} beside it, where it keeps its weights; copy both from one "
                "place, or export it again"
            )
    return ""


def fault_of(constant: Constant, files: DataFiles) -> str:
    """Finds a fault in a constant of a graph: a predicate for a message, or ""."""
    if constant.sparse:
        return "is sparse, as none of ours is: a few bytes could become any size"
    if any(side < 0 for side in constant.dims):
        return f"claims the shape {constant.dims[:8]}"
    stored = constant.stored
    if constant.external:
        stored = external_length(constant, files)
        if stored < 0:
            return (
                f"lies in {constant.location[:80]!r}, which is missing, too short or not in the graph's own "
                "folder; it is not opened"
            )
    if math.prod(constant.dims) > MOST_PER_BYTE * stored:
        return f"claims the shape {constant.dims[:8]}, and {stored} bytes are stored of it"
    return ""


def external_length(constant: Constant, files: DataFiles) -> int:
    """Bytes of a constant that is kept in another file; -1 where that is not beside the graph or not as long
    as the graph says."""
    size = files.size(constant.location)
    try:
        start = int(constant.entries.get("offset", 0))
        length = int(constant.entries.get("length", size - start))
    except ValueError:
        return -1
    return length if start >= 0 and length >= 0 and start + length <= size else -1


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"cannot read {path}: {error.strerror or error}") from None


def _sha256(path: Path) -> str:
    """Gives the SHA-256 of a file's bytes; "" where it is no file or cannot be read."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _metadata(content: bytes) -> dict[str, str]:
    entries: dict[str, str] = {}
    for number, value in _fields(memoryview(content)):
        if number == 14 and isinstance(value, memoryview):
            entry = {key: _text(text) for key, text in _fields(value) if isinstance(text, memoryview)}
            entries[entry.get(1, "")] = entry.get(2, "")
    return entries


def _is_broken(content: bytes) -> bool:
    """Tells whether there is a seal that does not match the bytes before it."""
    head, digest = content[-_SEAL_LENGTH:-64], content[-64:]
    if head != _HEAD:
        return False
    return hashlib.sha256(memoryview(content)[:-_SEAL_LENGTH]).hexdigest().encode() != digest


def _constants(message: memoryview, kind: str, depth: int) -> Iterator[Constant]:
    if depth > 4 * DEEPEST:  # a graph, a node, an attribute, and the next graph
        raise DamagedError("its graphs lie too deep within each other")
    inside, seen = _INSIDE[kind], set()
    for number, value in _fields(message):
        inner = inside.get(number)
        if inner is None:
            continue
        if not isinstance(value, memoryview) or ((kind, number) in _ONCE and number in seen):
            raise DamagedError("its parts are not in order")
        seen.add(number)
        if inner == "sparse":
            yield Constant(sparse=True)
        elif inner == "tensor":
            yield _constant(value)
        else:
            yield from _constants(value, inner, depth + 1)


def _constant(message: memoryview) -> Constant:
    found = Constant()
    for number, value in _fields(message):
        if number == 1:
            found.dims += _signed(value)
        elif number in _ELEMENTS:
            found.stored += len(value) if isinstance(value, memoryview) else 8
        elif number == 8 and isinstance(value, memoryview):
            found.name = _text(value)
        elif number == 13 and isinstance(value, memoryview):
            entry = {key: _text(text) for key, text in _fields(value) if isinstance(text, memoryview)}
            found.entries[entry.get(1, "")] = entry.get(2, "")
            found.external = True
        elif number == 14:
            found.external = found.external or value == 1
    return found


def _signed(value: int | memoryview) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(_varints(value))
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        number, at = _varint(message, at)
        yield number


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of a message's fields; fixed-width values as their bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = (message[at], at + 1) if message[at] < 0x80 else _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise DamagedError("its fields are of no known kind")
        if at + length > end:
            raise DamagedError("it is cut off")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & ((1 << 64) - 1), at
    raise DamagedError("it is cut off")
