"""Batches of crops cut out of a pack, on the device that trains.

The batch of a step depends on the seed and the step alone: a run that goes on sees what it would have seen.
Shapes: B batch, S side of a crop, E pictures of a pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from measnet.damage import DAMAGE
from measnet.errors import InputError
from measnet.train.data.meant import meant as meant_one
from measnet.train.data.pack import Pack, name_in_pack
from measnet.train.degradations import field_of

WEAKEST, STRONGEST = 2, 58  # sigma of ``denoise``, in 8-bit steps
UPRIGHT = ("derain", "dehaze")
"""Tasks whose pictures are flipped, but never laid on their side: rain falls, and the sky is above."""

NOISY_MEANT = 1 / 3
"""Share of ``denoise`` samples that are meant so, for each of ``keep``."""

FULL_NOISE = 50  # sigma that counts as all the noise there is


def drawn_by(seed: int, number: int) -> int:
    """The seed of a generator, 0 to 2^32 - 1, for one of many draws of a run with ``seed``.

    PyTorch's generator of the CPU takes the lower 32 bits of its seed and leaves out the rest.
    """
    return (seed * 0x9E3779B1 + number) % (1 << 32)


class PackedBatch(NamedTuple):
    degraded: Tensor
    """B 3 S S, 0 to 1, in steps of 8 bits."""

    clean: Tensor
    """B 3 S S, likewise."""

    tasks: Tensor
    """B: the number of each sample's task, in the order of ``PackedCrops.tasks``; on the CPU."""

    damage: Tensor
    """B D: how strong each kind of damage is, 0 to 1."""

    rows: Tensor
    """B: the pack's pictures that the crops were cut from; on the CPU."""


class PackedCrops:
    """Crops of ``pack``, drawn by the weights of ``tasks``; of a task that has both, ``pairs_share`` of them
    from real pairs. So large a share of ``keep`` samples as ``meant``, and a third of it of noisy ones, look
    damaged and are meant so.

    Raises ``InputError`` when the pack has nothing for a task.
    """

    def __init__(
        self,
        pack: Pack,
        tasks: Mapping[str, float],
        *,
        crop: int,
        seed: int,
        pairs_share: float = 0.5,
        meant: float = 0,
    ) -> None:
        self.pack = pack
        self.tasks = tuple(tasks)
        self.crop = crop
        self.seed = seed
        self._weights = torch.tensor([float(tasks[task]) for task in self.tasks])
        self._pairs_share = pairs_share
        self._meant = meant
        entries = pack.entries.cpu()
        made, real, without = [], [], []
        for task in self.tasks:
            name = name_in_pack(task)
            of_task = entries[:, 0] == (pack.tasks.index(name) if name in pack.tasks else -1)
            made.append((of_task & (entries[:, 5] == 0)).nonzero().flatten())
            real.append((of_task & (entries[:, 5] == 1)).nonzero().flatten())
            if not len(made[-1]) + len(real[-1]):
                without.append(task)
        if without:
            raise InputError(f"the pack has nothing for {', '.join(without)}; pack anew, or drop these tasks")
        self._rows = (made, real)
        self._entries = entries
        self._device = pack.pixels.device
        side = torch.arange(crop, device=self._device)
        self._row, self._column = side[:, None].expand(crop, crop), side[None].expand(crop, crop)

    def batch(self, step: int, size: int) -> PackedBatch:
        """The batch of ``step``, of ``size`` crops."""
        rng = torch.Generator().manual_seed(drawn_by(self.seed, step))
        tasks = torch.multinomial(self._weights, size, replacement=True, generator=rng)  # B
        which, of_real, down, across = torch.rand(4, size, generator=rng).double()  # B each
        drawn = zip(tasks.tolist(), which.tolist(), of_real.tolist(), strict=True)
        rows = torch.tensor([self._pick(*sample) for sample in drawn])  # B
        turns = torch.randint(8, (size,), generator=rng)
        upright = torch.tensor([task in UPRIGHT for task in self.tasks])[tasks]
        turns = torch.where(upright, turns % 4, turns)
        sigmas = torch.empty(size).uniform_(WEAKEST, STRONGEST, generator=rng)
        entries = self._entries[rows]  # B 6
        top = (down * (entries[:, 3] - self.crop + 1)).long()
        left = (across * (entries[:, 4] - self.crop + 1)).long()
        place = self._places(top, left, entries[:, 4], turns)  # B S S
        degraded, clean = (self._cut(place, entries[:, column]) for column in (1, 2))

        if self._meant:
            self._make_meant(degraded, clean, tasks, step)
        sigma = torch.tensor([self._sigma(*s) for s in zip(tasks.tolist(), sigmas.tolist(), strict=True)])
        published = torch.tensor([self.tasks[task] != "denoise" for task in tasks.tolist()])
        degraded = self._noisy(degraded, sigma, published, step)
        damage = self.pack.damage[rows.to(self._device)].clone()
        noise = (sigma / FULL_NOISE).clamp(max=1).to(self._device)
        column = DAMAGE.index("noise")
        damage[:, column] = torch.maximum(damage[:, column], noise)
        return PackedBatch(degraded / 255, clean / 255, tasks, damage, rows)

    def _make_meant(self, degraded: Tensor, clean: Tensor, tasks: Tensor, step: int) -> None:
        """Makes some of the crops (B 3 S S, 0 to 255, in place) ones that are meant as they are."""
        rng = torch.Generator().manual_seed(drawn_by(self.seed, step + 3 * (1 << 30)))
        for sample, task in enumerate(tasks.tolist()):
            shares = {"keep": self._meant, "denoise": self._meant * NOISY_MEANT}
            if float(torch.rand((), generator=rng)) < shares.get(field_of(self.tasks[task]), 0):
                made = meant_one(clean[sample : sample + 1].cpu() / 255, rng)[0] * 255
                clean[sample] = degraded[sample] = made.round().to(clean.device)

    def _pick(self, task: int, which: float, of_real: float) -> int:
        made, real = (rows[task] for rows in self._rows)
        rows = real if len(real) and (not len(made) or of_real < self._pairs_share) else made
        return int(rows[int(which * len(rows))])

    def _sigma(self, task: int, drawn: float) -> float:
        name = self.tasks[task]
        if field_of(name) != "denoise":
            return 0.0
        return float(name.removeprefix("denoise") or drawn)

    def _places(self, top: Tensor, left: Tensor, width: Tensor, turns: Tensor) -> Tensor:
        """The place of each pixel of each crop in its picture, in pixels: B S S. One of eight turns each."""
        top, left, width, turns = (
            values.to(self._device)[:, None, None] for values in (top, left, width, turns)
        )
        row, column, last = self._row[None], self._column[None], self.crop - 1
        swapped = turns >= 4
        row, column = torch.where(swapped, column, row), torch.where(swapped, row, column)
        row = torch.where(turns % 2 == 1, last - row, row)
        column = torch.where(turns // 2 % 2 == 1, last - column, column)
        return (top + row) * width + left + column

    def _cut(self, place: Tensor, start: Tensor) -> Tensor:
        """The crops of the pictures that begin at ``start`` (B): B 3 S S, 0 to 255."""
        first = start.to(self._device)[:, None, None] + place * 3  # B S S
        channels = [self.pack.pixels[first + channel] for channel in range(3)]
        return torch.stack(channels, dim=1).float()

    def _noisy(self, picture: Tensor, sigma: Tensor, published: Tensor, step: int) -> Tensor:
        """B 3 S S (0 to 255) with Gaussian noise, in 8-bit steps: rounded, or cut down as released."""
        if not bool((sigma > 0).any()):
            return picture
        rng = torch.Generator(self._device).manual_seed(drawn_by(self.seed, step + (1 << 31)))
        noise = torch.randn(picture.shape, generator=rng, device=self._device)
        sigma, published = (values.to(self._device)[:, None, None, None] for values in (sigma, published))
        noisy = (picture + noise * sigma).clamp(0, 255)
        return torch.where(sigma > 0, torch.where(published, noisy.floor(), noisy.round()), picture)
