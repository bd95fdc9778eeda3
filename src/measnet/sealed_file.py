"""A file that proves it is whole before anybody looks inside: facts, then a payload, both with checksums.

    magic 16 bytes | format 4 | length of the facts 4 | SHA-256 of the facts 32 | facts (JSON) | payload

Numbers are little-endian. The facts name the payload's kind, length and SHA-256. TensorRT ends the whole
process when it is given a plan or a timing cache with a flipped byte, so it is given none.

A checksum tells damage, not intent: whoever can write such a file can also seal it. A plan is code; take it
only from where you would take a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from measnet.errors import EngineError
from measnet.whole_file import write_whole

MAGIC = b"MEASNet sealed\r\n"  # a transfer that rewrites line ends breaks it
FORMAT = 1
HEADER = struct.Struct("<16sII32s")
LONGEST_FACTS = 1 << 20  # bytes


class _Said(msgspec.Struct):
    kind: str
    bytes: int
    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Sealed:
    """The content of a sealed file, checked."""

    facts: dict[str, Any]
    payload: bytes


def write_sealed(path: Path, kind: str, facts: dict[str, Any], payload: bytes) -> None:
    """Writes ``payload`` and ``facts`` (JSON) to ``path`` as a whole. Raises ``OutputError``."""
    digest = hashlib.sha256(payload).hexdigest()
    sealed = {"kind": kind, "bytes": len(payload), "sha256": digest, "facts": facts}
    text = json.dumps(sealed, sort_keys=True, allow_nan=False).encode()
    header = HEADER.pack(MAGIC, FORMAT, len(text), hashlib.sha256(text).digest())
    write_whole(path, b"".join((header, text, payload)))


def read_sealed(path: Path, kind: str) -> Sealed:
    """Reads and checks all of ``path``.

    Raises ``EngineError`` when it is absent, cut short, changed, or of another ``kind`` or version.
    """
    with _opened(path) as file:
        said = _read_facts(file, path, kind)
        payload = _read(file, path)
    if len(payload) != said.bytes:
        raise EngineError(
            f"{path} is cut short or has something behind it: it holds {len(payload)} bytes of "
            f"{kind} and says {said.bytes}; build it again"
        )
    if hashlib.sha256(payload).hexdigest() != said.sha256:
        raise EngineError(f"{path} is damaged: its {kind} is not the one that was written; build it again")
    return Sealed(said.facts, payload)


def read_facts(path: Path, kind: str) -> dict[str, Any]:
    """The facts of ``path`` alone, for lists; the payload is not looked at. Raises as ``read_sealed``."""
    with _opened(path) as file:
        return _read_facts(file, path, kind).facts


def _opened(path: Path) -> BinaryIO:
    try:
        # A pipe under this name would keep an ordinary open waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise EngineError(f"{path} is not a file")
    return os.fdopen(descriptor, "rb")


def _read(file: BinaryIO, path: Path, length: int = -1) -> bytes:
    try:
        return file.read(length)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror or error}") from None


def _read_facts(file: BinaryIO, path: Path, kind: str) -> _Said:
    start = _read(file, path, HEADER.size)
    if len(start) < HEADER.size or not start.startswith(MAGIC):
        raise EngineError(
            f"{path} is not a file of ours: a {kind} written by measnet-export is expected, "
            f"not one straight from TensorRT"
        )
    _, version, length, digest = HEADER.unpack(start)
    if version != FORMAT:
        raise EngineError(
            f"{path} has format {version}, this version of measnet reads {FORMAT}; build it again"
        )
    if length > LONGEST_FACTS:
        raise EngineError(f"{path} is damaged: it claims {length} bytes of description; build it again")
    text = _read(file, path, length)
    if hashlib.sha256(text).digest() != digest:
        raise EngineError(f"{path} is damaged: its description is not the one written; build it again")
    try:
        said = msgspec.json.decode(text, type=_Said)
    except (ValueError, RecursionError):
        raise EngineError(
            f"{path} is damaged: its description says nothing that can be read; build it again"
        ) from None
    if said.kind != kind:
        raise EngineError(f"{path} is a {said.kind[:40]} of ours; expected: {kind}")
    return said
