"""A pack: all pictures of a training run in one file, degraded beforehand, ready to be held in memory.

Rain, coded video, a camera's noise and the like take longer to make than a network takes to learn from them.
A pack holds them as pairs of bytes. It is a safetensors file: ``pixels``, all pictures one after the other,
H W 3 each, RGB; ``entries``, E 6, a row per picture: task, where the degraded and the clean one begin (the
same place where training adds noise itself), height, width, and whether it is a real pair; ``damage``, E D,
how strong each kind of damage is (``measnet/damage.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from measnet.damage import DAMAGE
from measnet.errors import InputError, OutputError, first_line
from measnet.file_name import in_utf8
from measnet.train.degradations import field_of

if TYPE_CHECKING:  # processes that pack need no PyTorch
    import torch
    from torch import Tensor

VERSION = "1"
_VERSION_KEY = "measnet.pack"
_TASKS_KEY = "measnet.pack.tasks"
HEADER_BYTES = 4096
_TENSORS = {"pixels": "torch.uint8", "entries": "torch.int64", "damage": "torch.float32"}
CLEAN = "clean"
"""The task of pictures that are stored clean alone: training adds Gaussian noise to them."""


def name_in_pack(task: str) -> str:
    """Under which task a pack has the pictures of ``task``."""
    return CLEAN if field_of(task) == "denoise" else task


class PackError(InputError):
    """A pack is absent, cut off, of another version, or damaged."""


@dataclass(frozen=True)
class Pack:
    """The content of a pack, on the device of its tensors."""

    tasks: tuple[str, ...]
    pixels: Tensor
    entries: Tensor
    damage: Tensor

    def count(self, task: str, *, real: bool | None = None) -> int:
        """Pictures of a task; of them only the real pairs, or only the made ones, where that is said."""
        if task not in self.tasks:
            return 0
        rows = self.entries[self.entries[:, 0] == self.tasks.index(task)]
        return len(rows) if real is None else int((rows[:, 5] == int(real)).sum())

    @property
    def size(self) -> int:
        """Bytes it takes in memory, whatever part of it a run uses."""
        return sum(tensor.nbytes for tensor in (self.pixels, self.entries, self.damage))

    def to(self, device: torch.device) -> Pack:
        return Pack(self.tasks, self.pixels.to(device), self.entries.to(device), self.damage.to(device))


@dataclass(frozen=True)
class PackedPair:
    """One row of a pack to be: pictures H W 3, uint8, RGB."""

    task: str
    degraded: NDArray[np.uint8] | None
    """``None`` for ``CLEAN``."""

    clean: NDArray[np.uint8]
    damage: tuple[float, ...]
    real: bool


class PackWriter:
    """Writes pairs as they come. A context manager: the pack appears under its name when all went well.

    The header of a safetensors file stands first and says how long everything is, so room is left for it.
    Raises ``OutputError`` when the pack cannot be written, for want of disk space, say.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        """Bytes of pictures so far."""
        self._path = path
        self._aside = path.with_name(path.name + ".part")
        self._rows: list[tuple[int, ...]] = []
        self._damage: list[tuple[float, ...]] = []
        self._tasks: list[str] = []

    def __enter__(self) -> PackWriter:
        with self._saying_what_failed():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._aside.open("wb")
            self._file.write(bytes(HEADER_BYTES))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._saying_what_failed():
                self._finish()
        else:
            self._give_up()

    def add(self, pair: PackedPair) -> None:
        if pair.task not in self._tasks:
            self._tasks.append(pair.task)
        clean = self._append(pair.clean)
        degraded = clean if pair.degraded is None else self._append(pair.degraded)
        height, width = pair.clean.shape[:2]
        task = self._tasks.index(pair.task)
        self._rows.append((task, degraded, clean, height, width, int(pair.real)))
        self._damage.append(pair.damage)

    def _append(self, picture: NDArray[np.uint8]) -> int:
        start = self.size
        with self._saying_what_failed():
            self._file.write(np.ascontiguousarray(picture).data)
        self.size += picture.size
        return start

    def _finish(self) -> None:
        unaligned = -self.size % 8  # the table's numbers lie on multiples of their size
        entries = np.array(self._rows, np.int64).reshape(-1, 6)
        damage = np.array(self._damage, np.float32).reshape(-1, len(DAMAGE))
        self._file.write(bytes(unaligned))
        self._file.write(entries.tobytes())
        self._file.write(damage.tobytes())
        header: dict[str, object] = {
            "__metadata__": {_VERSION_KEY: VERSION, _TASKS_KEY: json.dumps(self._tasks)}
        }
        begin = 0
        for name, kind, shape, length in (
            ("pixels", "U8", [self.size + unaligned], self.size + unaligned),
            ("entries", "I64", list(entries.shape), entries.nbytes),
            ("damage", "F32", list(damage.shape), damage.nbytes),
        ):
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, begin + length]}
            begin += length
        room = HEADER_BYTES - 8
        self._file.seek(0)
        self._file.write(room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._aside.replace(self._path)

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):  # closing writes what is left, where there may be no room for it
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if hasattr(self, "_file"):
                self._give_up()
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None


def read_pack(path: Path, crop: int) -> Pack:
    """The pack in ``path``, its pictures of at least ``crop`` pixels a side; on the CPU, mapped, not read.

    Raises ``PackError``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(in_utf8(path), "pt") as file:
            facts = file.metadata() or {}
            if facts.get(_VERSION_KEY) != VERSION:
                found = facts.get(_VERSION_KEY)
                said = "no pack of measnet-train" if found is None else f"a pack of version {found[:20]}"
                raise PackError(f"{path} is {said}, must be version {VERSION}; remove it to pack anew")
            tasks = json.loads(facts.get(_TASKS_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (SafetensorError, OSError, ValueError) as error:
        raise PackError(
            f"{path} is cut off, damaged or no pack ({first_line(error)}); remove it to pack anew"
        ) from None
    _check(path, tasks, tensors)
    large = (tensors["entries"][:, 3:5] >= crop).all(dim=1)
    if not large.any():
        raise PackError(f"no picture in {path} is as large as the crop, {crop} x {crop} pixels")
    return Pack(tuple(tasks), tensors["pixels"], tensors["entries"][large], tensors["damage"][large])


def _check(path: Path, tasks: object, tensors: dict[str, Tensor]) -> None:
    entries, damage, pixels = tensors["entries"], tensors["damage"], tensors["pixels"]
    whole = (
        isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and all(str(tensor.dtype) == _TENSORS[name] for name, tensor in tensors.items())
        and pixels.ndim == 1
        and entries.ndim == 2
        and entries.shape[1] == 6
        and tuple(damage.shape) == (len(entries), len(DAMAGE))
        and bool((entries >= 0).all())
        and bool((entries[:, 3:5] > 0).all())
        and bool((entries[:, 3:5] <= 1 << 20).all())
        and bool((entries[:, 0] < len(tasks)).all())
        and bool((entries[:, 1:3] <= len(pixels)).all())  # so that the sum below stays a number
        and bool((entries[:, 1:3] + (entries[:, 3] * entries[:, 4] * 3)[:, None] <= len(pixels)).all())
        and bool(((damage >= 0) & (damage <= 1)).all())
    )
    if not whole:
        raise PackError(f"{path} is damaged: its table does not fit; remove it to pack anew")
