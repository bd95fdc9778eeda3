"""A result is written aside and gets its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from av.error import FFmpegError

from measnet.errors import OutputError, UsageError
from measnet.runtime.sinks.target import Target
from measnet.whole_file import check_length, is_same, is_special


def check_target(target: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before any work is done.

    Raises:
        UsageError: it is one of the inputs, by whatever name or link, or an input lies where it would grow;
            it exists already; its folder is missing or closed to this user; or its name is too long.
    """
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; create it or choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; choose another --out")
    check_length(target, [target, *_grows_at(target)], "--out")
    for place in _grows_at(target):
        if any(_is_in(source, place) for source in inputs):
            raise UsageError(f"the input is {place}, where {target} would grow; choose another --out")
    if not target.exists():
        return
    if is_special(target):
        raise UsageError(f"{target} is a pipe or a device; write a video into it with: --out - > {target}")
    if any(is_same(source, target) for source in inputs):
        raise UsageError(f"{target} is the input itself; choose another --out")
    if not overwrite:
        raise UsageError(exists_already(target))


def exists_already(target: Path) -> str:
    """The line that says why a result is not written."""
    return f"{target} exists already; add --overwrite or choose another --out"


def _grows_at(target: Path) -> tuple[Path, ...]:
    """Names the places where files are made, replaced and thrown away on the way to ``target``."""
    return _growing(target), partial_name(target), partial_name(target, folder=True)


def _is_in(source: Path, place: Path) -> bool:
    """Says whether ``source`` is ``place``, or lies in it."""
    return any(is_same(path, place) for path in (source, *source.resolve().parents))


def _growing(target: Path) -> Path:
    return target.with_name(target.name + ".part")


class Aside:
    """The place beside ``target`` where the result grows.

    ``path`` is ``target`` with ``.part`` behind its name. A folder of that name, left by a run that can be
    resumed, is not touched.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = _growing(target)

    def keep(self, *, partial: bool = False) -> Path:
        """Give the result its name, or with ``partial`` one that says it is not whole."""
        target = partial_name(self._target) if partial else self._target
        try:
            self.path.replace(target)
        except OSError as error:
            self.discard()
            raise write_error(target, error) from None
        return target

    def discard(self) -> None:
        """Leave nothing behind."""
        if not self.path.is_dir():
            self.path.unlink(missing_ok=True)


def partial_name(target: Path, *, folder: bool = False) -> Path:
    """``clip.mp4`` -> ``clip.partial.mp4``; a folder's dots are no endings."""
    if folder:
        return target.with_name(target.name + ".partial")
    return target.with_name(f"{target.stem}.partial{target.suffix}")


def write_error(target: Target, error: OSError) -> OutputError:
    """The one line for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left while writing {target}; free some or choose another disk")
    reason = error.strerror or str(error)
    return OutputError(f"writing {target} failed: {reason}")


@contextlib.contextmanager
def writing(target: Target) -> Iterator[None]:
    """Turns errors of writing and encoding into OutputError, which is one line."""
    try:
        yield
    except OSError as error:  # FFmpeg's too
        raise write_error(target, error) from None
    except FFmpegError as error:
        raise OutputError(f"writing {target} failed: {error.strerror}") from None
