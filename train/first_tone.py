"""The first tone of a gated network, fitted before it trains.

A gain and an offset for each colour are six numbers, and the best ones for a crop follow from its own means
and those of its clean picture. So ``Tone`` is fitted in seconds on means alone, and training begins with dark
pictures that are light and hazy ones that are half clear.
Shapes: N crops, S statistics, M minibatch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from measnet.network.gated import Tone, statistics
from measnet.train.data.packed_crops import PackedCrops

FIRST_CROPS = 1 << 29  # number of the first batch drawn here: training draws from 1 on
BATCH = 32
MINIBATCH = 256
RATE = 4e-3
DECAY = 1e-2
NEAR = 1e-4  # mean squared error below which crops count as right


class _Means(NamedTuple):
    """What the error of a toned crop follows from: N S, and of each colour N 3."""

    seen: Tensor
    given: Tensor
    wanted: Tensor
    spread: Tensor
    """Variance of what is given."""

    common: Tensor
    """Covariance of both."""

    wanted_spread: Tensor

    def at(self, rows: Tensor) -> _Means:
        return _Means(*(values[rows] for values in self))


def fit_tone(tone: Tone, crops: PackedCrops, count: int) -> None:
    """Sets the weights of ``tone`` by ``count`` crops, every task counting alike."""
    means, tasks = _measured(crops, count)
    often = 1 / torch.bincount(tasks)[tasks].float()  # N
    steps = max(1, min(3000, count))
    mean, spread = means.seen.mean(dim=0), means.seen.std(dim=0, correction=0) + 1e-2
    means = means._replace(seen=(means.seen - mean) / spread)
    rng = torch.Generator().manual_seed(crops.seed)
    optimizer = torch.optim.AdamW(tone.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        rows = torch.multinomial(often, MINIBATCH, replacement=True, generator=rng)
        loss = (_squared_error(tone, means.at(rows.to(mean.device))) + NEAR).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # from here on it sees statistics as they are
        tone.see.weight /= spread
        tone.see.bias -= tone.see.weight @ mean
    for weight in tone.parameters():
        weight.grad = None


def _measured(crops: PackedCrops, count: int) -> tuple[_Means, Tensor]:
    parts, tasks = [], []
    for number in range(math.ceil(count / BATCH)):
        batch = crops.batch(FIRST_CROPS + number, BATCH)
        given, wanted = batch.degraded.flatten(2), batch.clean.flatten(2)  # N 3 pixels
        means = given.mean(dim=2), wanted.mean(dim=2)
        apart = given - means[0][..., None], wanted - means[1][..., None]
        parts.append(
            _Means(
                statistics(batch.degraded).mean(dim=(2, 3)),
                *means,
                apart[0].square().mean(dim=2),
                (apart[0] * apart[1]).mean(dim=2),
                apart[1].square().mean(dim=2),
            )
        )
        tasks.append(batch.tasks)
    return _Means(*(torch.cat(values) for values in zip(*parts, strict=True))), torch.cat(tasks)


def _squared_error(tone: Tone, means: _Means) -> Tensor:
    """N: of each crop once it is toned."""
    gain, offset = tone.gain_and_offset(means.seen)  # N 3
    off = gain * means.given + offset - means.wanted
    rest = means.wanted_spread + gain.square() * means.spread - 2 * gain * means.common
    return F.relu(off.square() + rest).mean(dim=1)
