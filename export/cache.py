"""Engines that were built before, one file per set of facts, under the SHA-256 of these facts; and timings.

Files appear whole or not at all, two processes that want the same engine build it once, and an entry that
is damaged, says something else than its name or does not load is built again. Timings are how long TensorRT's
kernels took on one GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from measnet.engine_file import EngineFacts, read_engine, read_engine_facts, write_engine
from measnet.errors import EngineError, OutputError
from measnet.export.target import EngineTarget
from measnet.sealed_file import MAGIC, read_sealed, write_sealed

TIMINGS = "timing cache"


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    path: Path
    bytes: int
    facts: EngineFacts | None
    """Facts of the engine; None for timings and for damaged engines."""

    def what(self) -> str:
        """Describes it in words."""
        if self.facts is None:
            return "timings, or nothing that is used any more"
        description = self.facts.description
        size = description.static_size
        kinds = [description.variant, "any size" if size is None else f"{size[0]}x{size[1]}"]
        kinds += [description.precision, *(["steerable"] if description.steerable else [])]
        return ", ".join([*kinds, self.facts.built_for()])


@dataclass(frozen=True)
class Found:
    """A plan from the cache, or one just built."""

    plan: bytes
    was_cached: bool
    notes: tuple[str, ...]
    """Sentences on what the cache could not do."""


def default_folder() -> Path:
    """This platform's folder for what can be made again: on Linux in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return user_cache_path("measnet", appauthor=False, opinion=False) / "engines"


class EngineCache:
    """The engines in ``folder``, which is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, facts: EngineFacts) -> Path:
        return self.folder / f"{facts.key}.engine"

    def plan_for(
        self,
        facts: EngineFacts,
        build: Callable[[], bytes],
        *,
        loads: Callable[[bytes], bool] | None = None,
    ) -> Found:
        """The plan with these facts: the one kept if it is sound and ``loads``, or what ``build`` returns.

        A cache that cannot be written to costs a note, not the engine. Raises what ``build`` raises.
        """
        kept = self._kept(facts, loads)
        if kept is not None:
            return Found(kept, True, ())
        try:
            lock = self._lock(facts.key)
        except OSError as error:
            note = f"the engine was not kept: {self.folder} cannot be written to ({error.strerror})"
            return Found(build(), False, (note,))
        with lock:
            kept = self._kept(facts, loads)  # another process may have built it meanwhile
            if kept is not None:
                return Found(kept, True, ())
            self.path(facts).unlink(missing_ok=True)
            plan = build()
            try:
                write_engine(self.path(facts), facts, plan)
            except OutputError as error:
                return Found(plan, False, (f"the engine was not kept: {error}",))
        return Found(plan, False, ())

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds ``name`` against other processes. Raises ``OSError`` when the folder cannot be written to."""
        with self._lock(name):
            yield

    def entries(self) -> list[Entry]:
        """All that is kept, the largest first."""
        found = []
        for path in self._files():
            try:
                size = path.stat().st_size
            except OSError:
                continue  # cleared meanwhile
            facts = None
            with contextlib.suppress(EngineError):
                facts = read_engine_facts(path)
            found.append(Entry(path, size, facts))
        return sorted(found, key=lambda entry: -entry.bytes)

    def clear(self) -> int:
        """Removes all that is kept; returns how many bytes that were. Raises ``OutputError``."""
        freed = 0
        for path in self._files():
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OutputError(f"cannot remove {path}: {error.strerror}") from None
            freed += size
        return freed

    def _files(self) -> list[Path]:
        # Locks stay: a process may be waiting for one. They are empty.
        patterns = ("*.engine", "*.timing", "*.part")
        return [path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()]

    def _kept(self, facts: EngineFacts, loads: Callable[[bytes], bool] | None) -> bytes | None:
        try:
            stored, plan = read_engine(self.path(facts))
        except EngineError:
            return None
        return plan if stored == facts and (loads is None or loads(plan)) else None

    def _lock(self, name: str) -> FileLock:
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        lock.acquire()
        return lock


def read_timing_cache(path: Path, target: EngineTarget, *, replace_any: bool = False) -> tuple[bytes, str]:
    """The timings in ``path`` for ``target``, and a note when they cannot be used; b"" begins new ones.

    Raises ``EngineError`` for a file that is none of ours, so that it is not overwritten, unless it is in
    a place of ours where any file may be (``replace_any``).
    """
    if not path.exists():
        return b"", ""
    try:
        sealed = read_sealed(path, TIMINGS)
    except EngineError as error:
        if not (replace_any or _is_sealed(path)):
            raise
        return b"", f"{error}; timings begin anew"
    if sealed.facts != _facts(target):
        return b"", f"{path} has timings of another GPU, driver or TensorRT; timings begin anew"
    return sealed.payload, ""


def write_timing_cache(path: Path, target: EngineTarget, timings: bytes) -> None:
    """Raises ``OutputError``."""
    write_sealed(path, TIMINGS, _facts(target), timings)


def _facts(target: EngineTarget) -> dict[str, str]:
    return {name: str(value) for name, value in vars(target).items()}


def _is_sealed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
