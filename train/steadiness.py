"""Steadiness of a network: two frames of one scene should be restored in the same tone.

Channel attention decides for a whole picture by means over it. In dark or milky scenes, where how bright a
picture should be is a matter of taste, such a decision hangs on little and turns over from one frame of a
video to the next. So some pictures of a batch are looked at twice, as a camera would that has moved on: what
the network adds to the pixels that both frames show must be the same.
Shapes: B batch, F frames, S side of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.network import MEASNet
from measnet.network.pixel_experts import NoisyRouting

EVERY = 3  # of so many samples one is looked at twice
SHARE = 3 / 4  # side of a frame, of the crop's, where the network takes so small a picture
BLOCK = 16  # pixels a side: tone is the mean over such a block
TONED = 0.7  # share of pictures that are darker or milkier than their training pair
LITTLE = 4 / 255  # a change of tone that is as good as none
GRAIN = 3 / 255  # largest standard deviation of what noise differs between two frames
GAIN = 0.01  # largest difference in exposure


class CropOffset(NamedTuple):
    """The place of a frame in its crop, in pixels."""

    top: int
    left: int


class Look(NamedTuple):
    """A sample that is looked at twice: its place in the batch, and the seed of what is drawn for it."""

    place: int
    seed: tuple[int, int]


def looks_at(seed: int, first: int, count: int) -> list[Look]:
    """Chooses those of ``count`` samples from ``first`` on to look at twice, alike in all processes."""
    return [Look(at - first, (seed, at)) for at in range(first, first + count) if at % EVERY == 0]


def unsteadiness(network: MEASNet, degraded: Tensor, looks: Sequence[Look]) -> Tensor:
    """B 3 H W (0 to 1) -> a scalar: how far apart the network's changes to two frames of one picture are, as
    a share of how large they are, so that pictures that need much are not held back.

    It is a mean over blocks and channels, and over one look for every ``EVERY`` samples: the mean of several
    processes' is that of one with all their samples.
    """
    if not looks:
        return degraded.new_zeros(())
    rule = network.config.size_rule
    side = max(rule.minimum, int(degraded.shape[-1] * SHARE) // rule.multiple * rule.multiple)
    frames, windows = [], []
    for place, seed in looks:
        for frame, window in _two_frames(degraded[place], side, np.random.default_rng(seed)):
            frames.append(frame)
            windows.append(window)
    given = torch.stack(frames)  # F 3 S S
    with _norms_as_in_use(network):
        restored = network.forward_training(given, NoisyRouting(draw=torch.zeros_like)).restored
    change = restored.float() - given
    distances = []
    for one in range(0, len(windows), 2):
        ours, theirs = (
            F.avg_pool2d(part, BLOCK, ceil_mode=True)
            for part in _shared(change[one], windows[one], change[one + 1], windows[one + 1])
        )
        size = (ours.abs() + theirs.abs()).mean().detach() / 2
        distances.append((ours - theirs).abs().mean() / (size + LITTLE))
    return torch.stack(distances).sum() * EVERY / len(degraded)


def _two_frames(crop: Tensor, side: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, CropOffset]]:
    """3 H W -> two frames of it (3 S S), apart by a movement, a little exposure, and grain.

    Most pictures are made darker, milkier or both before: scenes in which no training pair says how bright
    they should be.
    """
    if rng.random() < TONED:
        veil = rng.uniform(0, 0.6) if rng.random() < 0.5 else 0.0
        dark = rng.uniform(0.3, 1) * crop.clamp(0, 1) ** rng.uniform(0.7, 2.2)
        crop = dark * (1 - veil) + veil * rng.uniform(0.3, 0.9)
    grain = rng.uniform(0, GRAIN)
    for _ in range(2):
        top, left = (int(rng.integers(length - side + 1)) for length in crop.shape[1:])
        frame = crop[:, top : top + side, left : left + side] * float(rng.uniform(1 - GAIN, 1 + GAIN))
        noise = torch.from_numpy(rng.standard_normal(frame.shape, np.float32)).to(crop.device)
        yield (frame + noise * grain).clamp(0, 1), CropOffset(top, left)


def _shared(ours: Tensor, our: CropOffset, theirs: Tensor, their: CropOffset) -> tuple[Tensor, Tensor]:
    """The parts of two frames (3 S S) of one crop that show the same pixels."""
    side = ours.shape[-1]
    top, left = max(our.top, their.top), max(our.left, their.left)
    bottom, right = min(our.top, their.top) + side, min(our.left, their.left) + side
    first, second = (
        part[:, top - window.top : bottom - window.top, left - window.left : right - window.left]
        for part, window in ((ours, our), (theirs, their))
    )
    return first, second


@contextmanager
def _norms_as_in_use(network: nn.Module) -> Iterator[None]:
    """Batch norms by their running figures, which a video meets, and which frames made darker must not
    move."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and part.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
