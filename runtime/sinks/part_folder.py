"""The folder in which a result grows so that a run that was cut off can be taken up again."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.sinks.aside import write_error
from measnet.runtime.sinks.manifest import Header, Manifest, check_made_of


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
        """Whether there was a manifest of which nothing could be read."""
        self._target = target
        self._lock: int | None = None
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Of the folder that ``begin`` opened."""
        assert self._manifest is not None, "begin comes first"
        return self._manifest

    @property
    def is_open(self) -> bool:
        """Whether this run holds the folder."""
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

    def begun_before(self, header: Header) -> Manifest | None:
        """Reads the manifest of a folder that could be taken up, and changes nothing; else None.

        Raises UsageError if it was begun from something else.
        """
        if self.path.is_symlink() or not self.path.is_dir():
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
        # What else bears the name was left by a run that could not be resumed. A link is not followed.
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
            raise UsageError(
                f"another measnet-run is writing {self._target}; wait for it or choose another --out"
            ) from None
        self._lock = descriptor

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def is_plain_file(path: Path, size: int) -> bool:
    """Whether ``path`` itself, not what it may link to, is a file of ``size`` bytes."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


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
