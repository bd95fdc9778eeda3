"""The list of what is finished of a result that is still growing, one sealed line for each part.

The first line is the header: what the result is made of, and what was settled when it was begun. Every line
is a JSON object whose ``seal`` is the SHA-256 of the rest, so that a line is either as it was written or
counts as absent, with all lines behind it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from measnet.errors import UsageError

_FORMAT = 1
# Ours are below 10 kB; a longer one is not read into memory.
_LONGEST_LINE = 1 << 20
# Lines of a film of a month; what is more is not read either.
_MOST_BYTES = 256 << 20
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Header:
    """``made_of`` must be the same in every run that works on the result; its keys are words for the user.
    ``settings`` are decided by the run that begins it, and taken over by those that go on."""

    made_of: dict[str, Any]
    settings: dict[str, Any]


class Manifest:
    """A manifest on disk.

    Args:
        path: of the file, which need not be there.

    ``header`` is None where there is none that can be read. ``parts`` are the sound lines behind it.
    ``torn`` says that there were more.
    """

    def __init__(self, path: Path) -> None:
        self.header: Header | None = None
        self.parts: list[dict[str, Any]] = []
        self.torn = False
        self._path = path
        self._ends: list[int] = []
        self._read()

    def begin(self, header: Header) -> None:
        """Start anew with ``header``. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self.header, self.parts, self.torn, self._ends = header, [], False, []
        line = {"format": _FORMAT, "made_of": header.made_of, "settings": header.settings}
        self._append(line)

    def add(self, part: dict[str, Any]) -> None:
        """Note a finished part; it survives a power cut. Raises OSError."""
        self._append(part)
        self.parts.append(part)

    def keep(self, count: int) -> None:
        """Forget all parts but the first ``count``, and whatever follows the sound lines. Raises OSError."""
        del self.parts[count:], self._ends[count + 1 :]
        self.torn = False
        if self._ends and self._path.stat().st_size != self._ends[-1]:
            os.truncate(self._path, self._ends[-1])

    def _read(self) -> None:
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            while data := file.readline(_LONGEST_LINE):
                line = _unsealed(data) if file.tell() <= _MOST_BYTES else None
                if line is None or not self._take(line):
                    self.torn = True
                    return
                self._ends.append(file.tell())

    def _take(self, line: dict[str, Any]) -> bool:
        if self.header is not None:
            self.parts.append(line)
            return True
        made_of, settings = line.get("made_of"), line.get("settings")
        if line.get("format") != _FORMAT or not isinstance(made_of, dict) or not isinstance(settings, dict):
            return False
        self.header = Header(made_of, settings)
        return True

    def _append(self, line: dict[str, Any]) -> None:
        start = self._ends[-1] if self._ends else 0
        with self._path.open("ab") as file:
            try:
                file.write(_sealed(line))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # Half a line would hide those that a later part of this run adds.
                os.ftruncate(file.fileno(), start)
                raise
            self._ends.append(file.tell())


def differences(begun: dict[str, Any], now: dict[str, Any]) -> str:
    """What the user has to know when ``made_of`` is another one: each key with its two values."""
    lines = []
    for key in dict.fromkeys([*begun, *now]):
        old, new = begun.get(key), now.get(key)
        if old != new:
            lines.append(f"{_short(key)}: {_short(old)}, now {_short(new)}")
    return "; ".join(lines)


def check_made_of(place: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UsageError where a result was begun from something else."""
    if begun != now:
        raise UsageError(
            f"{place} was begun with other settings ({differences(begun, now)}); repeat the command that "
            "began it, or add --restart to begin anew"
        )


def is_count(value: Any, least: int = 0, most: int = 1 << 62) -> TypeGuard[int]:
    """Whether ``value`` is a whole number (True is none) from ``least`` to ``most``."""
    return type(value) is int and least <= value <= most


def _sealed(line: dict[str, Any]) -> bytes:
    return json.dumps({**line, "seal": _seal(line)}).encode() + b"\n"


def _unsealed(data: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(data)
        if not data.endswith(b"\n") or not isinstance(line, dict):
            return None
        seal = line.pop("seal", None)
        return line if seal == _seal(line) else None
    except (ValueError, RecursionError):
        return None


def _seal(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()


def _short(value: Any) -> str:
    if value is None:
        return "none"
    try:
        text = str(value)
    except RecursionError:
        return "…"
    # A terminal obeys what is not printable, and the manifest may be anybody's.
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= 4 * _SHOWN else f"{text[:_SHOWN]}…"
