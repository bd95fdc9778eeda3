"""A pack: all pictures of a training run in one file, degraded beforehand, ready to be held in memory.

Rain, coded video, a camera's noise and the like take longer to make than a network takes to learn from them.
A pack holds them as pairs of bytes. It is a safetensors file: ``pixels``, all pictures one after the other,
H W 3 each, RGB; ``entries``, E 6, a row per picture: task, where the degraded and the clean one begin (the
same place where training adds noise itself), height, width, and whether it is a real pair; ``damage``, E D,
how strong each kind of damage is (``measnet/damage.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from measnet.damage import DAMAGE
from measnet.errors import InputError, OutputError, first_line

VERSION = "1"
_VERSION_KEY = "measnet.pack"
_TASKS_KEY = "measnet.pack.tasks"
_TENSORS = {"pixels": torch.uint8, "entries": torch.int64, "damage": torch.float32}
CLEAN = "clean"
"""The task of pictures that are stored clean alone: training adds Gaussian noise to them."""


class PackError(InputError):
    """A pack is absent, cut off, of another version, or not a sound one."""


@dataclass(frozen=True)
class Pack:
    """What a pack holds. On whichever device its tensors lie."""

    tasks: tuple[str, ...]
    pixels: Tensor
    entries: Tensor
    damage: Tensor

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
    """Gathers pairs and writes them as a pack, which appears under its name when it is whole."""

    def __init__(self) -> None:
        self._pixels: list[NDArray[np.uint8]] = []
        self._rows: list[tuple[int, ...]] = []
        self._damage: list[tuple[float, ...]] = []
        self._tasks: list[str] = []
        self._size = 0

    def add(self, pair: PackedPair) -> None:
        if pair.task not in self._tasks:
            self._tasks.append(pair.task)
        clean = self._append(pair.clean)
        degraded = clean if pair.degraded is None else self._append(pair.degraded)
        height, width = pair.clean.shape[:2]
        task = self._tasks.index(pair.task)
        self._rows.append((task, degraded, clean, height, width, int(pair.real)))
        self._damage.append(pair.damage)

    @property
    def size(self) -> int:
        """Bytes of pictures so far."""
        return self._size

    def count(self, task: str) -> int:
        """Pictures of a task so far."""
        return sum(row[0] == self._tasks.index(task) for row in self._rows) if task in self._tasks else 0

    def write(self, path: Path) -> None:
        """Raises ``OutputError`` when the pack cannot be written."""
        from safetensors.torch import save_file

        tensors = {
            "pixels": torch.from_numpy(np.concatenate(self._pixels)),
            "entries": torch.tensor(self._rows, dtype=torch.int64),
            "damage": torch.tensor(self._damage, dtype=torch.float32),
        }
        aside = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, aside, {_VERSION_KEY: VERSION, _TASKS_KEY: json.dumps(self._tasks)})
            aside.replace(path)
        except Exception as error:  # safetensors has errors of its own for a full disk
            aside.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {first_line(error)}") from None

    def _append(self, picture: NDArray[np.uint8]) -> int:
        start = self._size
        self._pixels.append(np.ascontiguousarray(picture).reshape(-1))
        self._size += picture.size
        return start


def read_pack(path: Path, crop: int) -> Pack:
    """The pack in ``path``, its pictures of at least ``crop`` pixels a side; on the CPU, mapped, not read.

    Raises ``PackError``.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
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
    sound = (
        isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and all(tensor.dtype == _TENSORS[name] for name, tensor in tensors.items())
        and pixels.ndim == 1
        and entries.ndim == 2
        and entries.shape[1] == 6
        and tuple(damage.shape) == (len(entries), len(DAMAGE))
        and bool((entries >= 0).all())
        and bool((entries[:, 3:5] > 0).all())
        and bool((entries[:, 3:5] <= 1 << 20).all())
        and bool((entries[:, 0] < len(tasks)).all())
        and bool((entries[:, 1:3] + (entries[:, 3] * entries[:, 4] * 3)[:, None] <= len(pixels)).all())
        and bool(((damage >= 0) & (damage <= 1)).all())
    )
    if not sound:
        raise PackError(f"{path} is no sound pack: its table points outside of it; remove it to pack anew")
