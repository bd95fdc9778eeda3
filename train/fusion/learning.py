"""The loop that learns from lessons.

Shapes: B batch, h w sides of a square.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from measnet.runtime.trust import PLANES
from measnet.train.fusion.lessons import OFF, TRUST, WRONG, Lessons
from measnet.train.fusion.trust_network import TrustNetwork

BATCH = 16
RATE = 3e-3
CONSTANT = 0.3  # of the time; then the rate falls as a cosine
WORSE = 0.3  # times more a square counts by which it is worse than the frame alone
LEAST_ERROR = 2.0  # squared levels, so that scenes that are good already do not outweigh others
HELD_OUT = 0.05  # of the lessons, those of the last scenes

_COLOUR = torch.tensor([1, 1, 1, 1, 4, 4.0])[:, None, None] / 12  # one colour stands for four pixels of two
_FOUR = [list(range(4)), [1, 0, 3, 2], [2, 3, 0, 1], [0, 2, 1, 3]]  # as is, mirrored, upside down, transposed


def learn(
    lessons: Lessons,
    seconds: float,
    seed: int,
    tell: Callable[[int, float], None],
    *,
    warm_steps: int = 300,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[TrustNetwork, float]:
    """The network after so many ``seconds``, and what it gains over the rule, in dB, on squares held out.

    ``tell`` is told steps and that gain now and then; the rate rises for ``warm_steps``.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    errors = np.asarray(lessons.errors, np.float32) + np.float32(LEAST_ERROR)
    held = max(1, round(len(errors) * HELD_OUT))
    network = TrustNetwork()
    mean = TrustNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    step, began = 0, clock()
    told = began
    while (passed := (clock() - began) / seconds) < 1 or not step:
        falling = np.cos(np.pi * max(0.0, passed - CONSTANT) / (1 - CONSTANT)) / 2 + 0.5
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / warm_steps) * (falling + 0.01)
        numbers = rng.integers(max(1, len(errors) - held), size=BATCH)
        batch = _tensor([_turned(lessons.squares[number], int(rng.integers(8))) for number in numbers])
        with torch.autocast("cpu", torch.bfloat16):
            said = network(batch[:, :PLANES])
        loss = _loss(batch, said.float(), torch.from_numpy(errors[numbers]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        _follow(mean, network, min(0.999, step / (step + 10)))
        if clock() - told > 60:
            told = clock()
            tell(step, _gain(mean, lessons, errors, held))
    return mean, _gain(mean, lessons, errors, held)


def _error(batch: Tensor, log_factor: Tensor | None) -> Tensor:
    """The squared error of the fused frame, B; for None, of the frame alone."""
    off, wrong = batch[:, OFF], batch[:, WRONG]
    if log_factor is None:
        return ((off - wrong).square() * _COLOUR).sum(1).mean((1, 2))
    weight = 1 / (1 + batch[:, TRUST] * torch.exp(log_factor))  # B 1 h w
    whole = F.interpolate(weight, scale_factor=2, mode="bilinear")  # as the rule has it, B 1 2h 2w
    weights = torch.cat([F.pixel_unshuffle(whole, 2), weight, weight], 1)
    return ((weights * off - wrong).square() * _COLOUR).sum(1).mean((1, 2))


def _loss(batch: Tensor, log_factor: Tensor, errors: Tensor) -> Tensor:
    error = _error(batch, log_factor)
    return ((error + WORSE * F.relu(error - _error(batch, None))) / errors).mean()


def _gain(network: TrustNetwork, lessons: Lessons, errors: NDArray[np.float32], held: int) -> float:
    ruled, learnt = 0.0, 0.0
    with torch.no_grad():
        for first in range(len(errors) - held, len(errors), 64):
            batch = _tensor(lessons.squares[first : first + 64])
            scale = torch.from_numpy(errors[first : first + 64])
            ruled += float((_error(batch, torch.zeros_like(batch[:, TRUST])) / scale).sum())
            learnt += float((_error(batch, network(batch[:, :PLANES])) / scale).sum())
    return float(10 * np.log10(ruled / learnt))


def _turned(square: NDArray[np.float16], how: int) -> NDArray[np.float16]:
    """The square mirrored, turned upside down and transposed, as the bits of ``how`` say."""
    if how & 1:
        square = _reordered(square[:, ::-1], _FOUR[1])
    if how & 2:
        square = _reordered(square[::-1], _FOUR[2])
    return _reordered(square.transpose(1, 0, 2), _FOUR[3]) if how & 4 else square


def _reordered(square: NDArray[np.float16], four: list[int]) -> NDArray[np.float16]:
    order = list(range(square.shape[2]))
    for part in (OFF, WRONG):
        order[part.start : part.start + 4] = [part.start + place for place in four]
    return square[..., order]


def _tensor(squares: list[NDArray[np.float16]]) -> Tensor:
    """B C h w, channels last in memory."""
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def _follow(mean: TrustNetwork, network: TrustNetwork, share: float) -> None:
    for ours, theirs in zip(mean.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1 - share)
