"""The folder in which a result grows so that a run that was cut off can be taken up again.

Its manifest lists what is finished, one sealed line for each part. The first line is the header: what the
result is made of, and what was settled when it was begun; a later run goes on with it only if it would have
made the same. Every line is a JSON object whose ``seal`` is the SHA-256 of the rest: a line is either as it
was written or counts as absent, with all lines behind it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import av
import cv2
import msgspec
import PIL

from measnet.errors import InputError, UsageError
from measnet.printable import printable
from measnet.runtime.sinks.aside import write_error

# A file up to this size is read whole, which takes a second or two. Reading 50 GB would hold a run up for
# minutes: of a larger one the head, the tail, the size and the time of the last change have to do.
_WHOLE = 256 << 20
_END = 16 << 20

# The engine's own words for what changes its results -> ours. A driver or a path does not.
_ENGINE = {
    "weights_sha256": "weights",
    "precision": "precision",
    "backend": "backend",
    "version": "backend's version",
    "provider": "computed on",
    "built_for": "engine built for",
}


def of_input(path: Path) -> dict[str, Any]:
    """Tells one input file from another, and from itself before it was changed. Raises InputError."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_size <= _WHOLE:
                return {"input's SHA-256": hashlib.file_digest(file, "sha256").hexdigest()}
            ends = hashlib.sha256(file.read(_END))
            file.seek(-_END, os.SEEK_END)
            ends.update(file.read(_END))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return {
        "input's size": found.st_size,
        "input's time of change": found.st_mtime_ns,
        "input's head and tail": ends.hexdigest(),
    }


def of_engine(description: dict[str, Any]) -> dict[str, Any]:
    """The network and what computes it, from a restorer's description of itself."""
    return {word: description[key] for key, word in _ENGINE.items() if key in description}


def of_programs() -> dict[str, Any]:
    """The programs whose versions change a result."""
    return {
        "measnet": importlib.metadata.version("measnet"),
        "PyAV": av.__version__,
        "FFmpeg": av.ffmpeg_version_info,
        "OpenCV": cv2.__version__,
        "Pillow": PIL.__version__,
    }


_FORMAT = 2
# Ours are below 10 kB; a longer one is not read into memory.
_LONGEST_LINE = 1 << 20
# Lines of a film of a month; what is more is not read either.
_MOST_BYTES = 256 << 20
_SHOWN = 48
_OF_LONGER = 13


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

    ``header`` is None where there is none that can be read. ``parts`` are the intact lines behind it.
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
        """Forget all parts but the first ``count``, and whatever follows the intact lines. Raises OSError."""
        del self.parts[count:], self._ends[count + 1 :]
        self.torn = False
        if self._ends and self._path.stat().st_size != self._ends[-1]:
            os.truncate(self._path, self._ends[-1])

    def _read(self) -> None:
        try:
            # A pipe under this name would keep an ordinary open waiting for ever.
            descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            return
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            self.torn = True
            return
        with os.fdopen(descriptor, "rb") as file:
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
    """Tells a user how ``made_of`` differs: each key with its two values."""
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


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]

_Kind = TypeVar("_Kind")


def as_said(line: Any, kind: type[_Kind]) -> _Kind | None:
    """A manifest's value as ``kind``; None where a damaged manifest has something else."""
    try:
        return msgspec.convert(line, kind)
    except (ValueError, RecursionError):
        return None


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
    return printable(text, _SHOWN if len(text) <= _SHOWN else _OF_LONGER)


class PartFolder:
    """``NAME.part`` beside the target, with a manifest of the parts in it that are whole.

    Only one run at a time works on it: it is locked from ``begin`` until ``release`` or ``discard``, or
    until the process ends, however that happens.

    Args:
        target: the result's own name.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self.lost = False
        """True where there was a manifest of which nothing could be read."""
        self._target = target
        self._lock: int | None = None
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Manifest of the folder that ``begin`` opened."""
        assert self._manifest is not None, "begin comes first"
        return self._manifest

    @property
    def is_open(self) -> bool:
        """Says whether this run holds the folder."""
        return self._lock is not None

    def begin(self, header: Header, *, restart: bool) -> Header:
        """Make the folder, or take up the one that is there; the header that holds from now on.

        Args:
            restart: whatever is there is thrown away.

        Raises:
            UsageError: another run is at work on it, or it was begun from something else.
            OutputError: it cannot be made.
        """
        try:
            self._open()
            manifest = Manifest(self.path / "manifest.jsonl")
            self.lost = manifest.torn and not manifest.parts and not restart
            if restart or manifest.header is None or not manifest.parts:
                self._clear()
                manifest.begin(header)
            else:
                check_made_of(self._target, manifest.header.made_of, header.made_of)
            self._manifest = manifest
        except OSError as error:
            self.release()
            raise write_error(self._target, error) from None
        except BaseException:
            self.release()
            raise
        assert manifest.header is not None
        return manifest.header

    def begun_before(self, header: Header, *, restart: bool) -> Manifest | None:
        """Reads the manifest of a folder that ``begin`` would take up, and changes nothing; else None.

        Raises UsageError, OutputError as ``begin``.
        """
        if self.path.is_symlink() or not self.path.is_dir():
            return None
        try:
            self._refuse_while_locked()
        except OSError as error:
            raise write_error(self._target, error) from None
        if restart:
            return None
        manifest = Manifest(self.path / "manifest.jsonl")
        if manifest.header is None or not manifest.parts:
            return None
        check_made_of(self._target, manifest.header.made_of, header.made_of)
        return manifest

    def sync(self) -> None:
        """Make the names in the folder survive a power cut. Raises OSError."""
        sync_folder(self.path)

    def release(self) -> None:
        """Leave the folder as it is to the next run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Leave nothing behind, of a folder that this run holds."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.release()

    def _open(self) -> None:
        # A file of this name was left by a run that could not be resumed. A link is not followed.
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            self.path.unlink()
        self.path.mkdir(exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            _lock_file(descriptor)
            # The run that held it may have finished, and taken the folder away.
            if not os.path.samestat(os.fstat(descriptor), (self.path / "lock").stat()):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError, PermissionError):
            os.close(descriptor)
            raise self._at_work() from None
        self._lock = descriptor

    def _refuse_while_locked(self) -> None:
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return  # of a run that could not be resumed
        try:
            _lock_file(descriptor)
        except (BlockingIOError, PermissionError):
            raise self._at_work() from None
        finally:
            os.close(descriptor)

    def _at_work(self) -> UsageError:
        return UsageError(
            f"another measnet-run is writing {self._target}; wait for it or choose another --out"
        )

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def is_plain_file(path: Path, size: int) -> bool:
    """Says whether ``path`` itself, not what it may link to, is a file of ``size`` bytes."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def sync_file(path: Path) -> None:
    """Make what was written to ``path`` survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in ``path`` survive a power cut. Raises OSError."""
    if sys.platform == "win32":
        return  # folders cannot be opened there; NTFS keeps a journal of names
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems know no such thing.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock_file(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
