"""Object stores: ``s3://`` addresses as places of sources and results.

Credentials and endpoint come from the environment, as boto finds them; an address holds none.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from measnet.errors import MissingPackageError, OutputError, UsageError, first_line
from measnet.runtime.live.credentials import without_secrets

SCHEME = "s3://"

_PROBE = ".measnet-run"
_PATIENCE = {"connect_timeout": 5, "retries": {"max_attempts": 3}}


class Remote(PurePosixPath):
    """A bucket and a key in it, or what keys begin with, as with a folder. As text it is an address."""

    def __str__(self) -> str:
        return f"{SCHEME}{'/'.join(self.parts)}"


Place: TypeAlias = Path | Remote


def place_of(name: str) -> Place:
    """A path, whole, or a place in an object store. Raises UsageError for any other address."""
    scheme, colon, rest = name.partition("://")
    if not colon:
        return Path(name).resolve()
    if f"{scheme.lower()}://" != SCHEME:
        raise UsageError(
            f"{without_secrets(name)} is an address, and --ray reads and writes folders and s3://BUCKET/KEY"
        )
    bucket = rest.partition("/")[0]
    if "@" in rest.partition("?")[0] and "@" in bucket + without_secrets(name):
        raise UsageError(
            f"{without_secrets(name)} has credentials in it; they come from the environment: "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
        )
    if not bucket:
        raise UsageError(f"{name} names no bucket; write s3://BUCKET/KEY")
    return Remote(rest)


def files_below(top: Remote) -> list[Remote]:
    """All that lies there, in the order of names: nothing, or ``top`` itself where it is a file.

    Raises UsageError: the store does not answer, or not to this user.
    """
    with _asking(top, UsageError):
        return [Remote(key) for key in sorted(_store().find(_key(top)))]


def check_writable(folder: Remote) -> None:
    """Raises UsageError where nothing can be put there."""
    with _asking(folder, UsageError):
        _store().pipe_file(_key(folder / _PROBE), b"")
        _store().rm_file(_key(folder / _PROBE))


def bring(source: Remote, target: Path) -> None:
    """Brings a file; it is as old as in the store. Raises OutputError."""
    with _asking(source, OutputError):
        _store().get_file(_key(source), str(target))


def changed_at(source: Remote) -> float:
    """Says when it was put there, in seconds. Raises OutputError."""
    with _asking(source, OutputError):
        return float(_store().modified(_key(source)).timestamp())


def put(source: Path, target: Remote) -> None:
    """Puts a file there, which is seen as a whole or not at all. Raises OutputError, and OSError where
    ``source`` is gone."""
    with source.open("rb"), _asking(target, OutputError):
        _store().put_file(str(source), _key(target))


def put_bytes(data: bytes, target: Remote) -> None:
    """Puts ``data`` there. Raises OutputError."""
    with _asking(target, OutputError):
        _store().pipe_file(_key(target), data)


def remove(*places: Remote) -> None:
    """Removes files. Raises OutputError."""
    for place in places:
        with _asking(place, OutputError):
            _store().rm_file(_key(place))


@functools.cache
def _store() -> Any:
    try:
        import s3fs
    except ModuleNotFoundError:
        raise MissingPackageError(SCHEME, "s3fs", "s3") from None
    # Others put files there meanwhile.
    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=_PATIENCE)


def _key(place: Remote) -> str:
    return "/".join(place.parts)


@contextlib.contextmanager
def _asking(place: Remote, kind: type[UsageError] | type[OutputError]) -> Iterator[None]:
    """Has what the store refuses end in one line."""
    try:
        yield
    except MissingPackageError:
        raise
    except Exception as error:  # of s3fs, aiohttp, botocore: they have no common root
        if isinstance(error, FileNotFoundError):
            words = "there is no such bucket or key; check the address"
        elif isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
            words = f"the store lets nobody in ({first_line(error)}); check AWS_ACCESS_KEY_ID or AWS_PROFILE"
        else:
            words = f"the store does not answer as it should ({first_line(error)}); check AWS_ENDPOINT_URL"
        raise kind(f"{place}: {words}") from None
