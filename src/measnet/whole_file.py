"""Writes files that appear under their names only when they are whole, and checks places for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from measnet.errors import OutputError, UsageError


def is_special(path: Path) -> bool:
    """Tells whether something lies there that is neither a file nor a folder: a pipe or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def is_same(one: Path, other: Path) -> bool:
    """Tells whether both are there and are one file or folder, by whatever names and links."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def check_not_read(path: Path, option: str, read: Iterable[str | Path | None]) -> None:
    """Raises ``UsageError`` where ``path``, which is to be written, is one of the files that are ``read``.
    ``option`` is what named ``path``."""
    if any(is_same(Path(one), path) for one in read if one is not None):
        raise UsageError(f"{option} {path} is what is read; give it another name")


def check_place(path: Path, option: str, read: Iterable[str | Path | None] = ()) -> None:
    """Raises ``UsageError`` where ``write_whole`` could not write, or would replace what is ``read``.
    ``option`` is what named ``path``."""
    folder = path.parent
    if str(path) == "-":
        raise UsageError(
            f"{option} - would be a file called '-'; figures go to a file with a name of its own"
        )
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder; give the name of a file")
    if is_special(path):
        raise UsageError(f"{option} {path} is a pipe or a device; give the name of a file")
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist; create it or choose another {option}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {folder} cannot be written to; choose another {option}")
    check_length(path, [_aside(path)], option)
    check_not_read(path, option, read)


def check_length(path: Path, names: list[Path], option: str) -> None:
    """Raises ``UsageError`` where one of ``names``, under which ``path`` grows, is too long to be one."""
    try:
        most = os.pathconf(path.parent, "PC_NAME_MAX")
    except (OSError, ValueError):
        most = 255
    needed = max(len(os.fsencode(place.name)) for place in names)
    if needed > most:
        raise UsageError(
            f"the name {path.name[:24]}… is too long: while it is written it takes {needed} bytes of the "
            f"{most} that a name may have; choose a shorter one with {option}"
        )


def write_whole(path: Path, content: bytes | str) -> None:
    r"""Writes ``content`` beside ``path`` and renames it; a file that stood there survives a failure.

    Text is written in UTF-8; bytes of file names that are none in it appear as ``\udce9``.
    Raises ``OutputError`` with the reason (disk full, folder missing or closed, a pipe or a device).
    """
    if is_special(path):
        raise OutputError(f"{path} is a pipe or a device; give the name of a file")
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    aside = _aside(path)
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave the name with nothing behind it
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".part")
