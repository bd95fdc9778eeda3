"""Files of an object store while a worker restores them: a folder here, and what others need of it.

    s3://in/a.mp4 ── folder/in/a.mp4 ── folder/out/a.restored.mp4 ── s3://out/a.restored.mp4
                                        folder/out/a.restored.mp4.part/ ── s3://out/a.restored.mp4.part/

The manifest is put last: what it lists is there. Whoever takes the file up brings it all, and checks it as
that of any folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from measnet.errors import MEASNetError
from measnet.runtime.fleet import store
from measnet.runtime.fleet.archive import Item
from measnet.runtime.fleet.store import Remote

_LOOK = 0.25
_MANIFEST = "manifest.jsonl"
_PREFIX = "measnet-ray-"


@contextlib.contextmanager
def nearby(item: Item, *, restart: bool) -> Iterator[tuple[Path, Path]]:
    """Gives a source and a place for its result that are files of this machine, as restoring needs them.

    With ``restart`` nothing is taken up. Raises OutputError where the store does not give or take them.
    """
    if isinstance(item.source, Path) and isinstance(item.target, Path):
        item.target.parent.mkdir(parents=True, exist_ok=True)
        yield item.source, item.target
        return
    with _own_folder() as folder:
        source = item.source
        if isinstance(source, Remote):
            here = folder / "in" / source.name
            here.parent.mkdir()
            store.bring(source, here)
            moment = store.changed_at(source)
            os.utime(here, (moment, moment))  # large sources are known by it
            source = here
        if isinstance(item.target, Path):
            item.target.parent.mkdir(parents=True, exist_ok=True)
            yield source, item.target
            return
        target = folder / "out" / item.target.name
        target.parent.mkdir()
        kept = _Kept(target, item.target)
        if restart:
            kept.remove()
        else:
            kept.bring()
        with kept:
            yield source, target
        store.put(target, item.target)
        kept.remove()


class _Kept:
    """Segments of a result that are whole: brought from the store, and put there as they come."""

    def __init__(self, target: Path, remote: Remote) -> None:
        self._here = target.with_name(f"{target.name}.part")
        self._there = remote.with_name(f"{remote.name}.part")
        self._put: set[str] = set()
        self._manifest = b""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="measnet-kept", daemon=True)

    def bring(self) -> None:
        """Brings what another worker put there."""
        for place in store.files_below(self._there):
            if place.parent == self._there:
                self._here.mkdir(exist_ok=True)
                store.bring(place, self._here / place.name)
                self._put.add(place.name)

    def remove(self) -> None:
        """Removes it all from the store, first what tells of the rest."""
        there = store.files_below(self._there)
        store.remove(*sorted(there, key=lambda place: place.name != _MANIFEST))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *failure: object) -> None:
        self._ending.set()
        self._thread.join()
        self._pass()

    def _work(self) -> None:
        while not self._ending.wait(_LOOK):
            self._pass()

    def _pass(self) -> None:
        """Copies new parts to the store; where the store or a file is away, the next pass does it."""
        with contextlib.suppress(OSError, MEASNetError):
            manifest = (self._here / _MANIFEST).read_bytes()
            lines = manifest.count(b"\n")
            if lines < 2 or manifest == self._manifest or not manifest.endswith(b"\n"):
                return
            listed = {f"{kind}-{number:05}" for kind in ("segment", "past") for number in range(lines - 1)}
            present = {path.name for path in self._here.iterdir()} & listed
            if manifest != (self._here / _MANIFEST).read_bytes():
                return  # a segment came meanwhile, and the past behind this one may have gone
            for name in sorted(present - self._put):
                store.put(self._here / name, self._there / name)
                self._put.add(name)
            store.put_bytes(manifest, self._there / _MANIFEST)
            self._manifest = manifest
            for name in sorted((self._put & listed) - present):
                store.remove(self._there / name)
                self._put.discard(name)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder of this worker's own; those of workers that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        process = left.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
