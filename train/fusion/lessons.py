"""Squares to learn from: degraded scenes, as the rule met them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.evaluation.video.as_run import VideoRestorer, read_frames
from measnet.evaluation.video.degrade import CodecStep, FrameStep, degrade_frames, encode, parse_chain
from measnet.image import Pixels
from measnet.runtime.restorer import Restorer
from measnet.runtime.temporal import TemporalFusion
from measnet.runtime.trust import PLANES, Seen, planes

SIDE = 32  # of a square, in pixels of half size
SQUARES = 4  # a frame
OFF, WRONG, TRUST = slice(PLANES, PLANES + 6), slice(PLANES + 6, PLANES + 12), slice(PLANES + 12, None)
"""Channels of a square behind its planes: how far the frame, and how far the truth, is from the past (four
of brightness, two of colour), and the rule's trust."""

_AXES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], np.float32)
_AXES /= np.linalg.norm(_AXES, axis=1, keepdims=True)


@dataclass
class Lessons:
    """Squares, and of each the squared error of the rule in its whole frame."""

    squares: list[NDArray[np.float16]]
    """32 32 27 each."""

    errors: list[float]


def add_lessons(
    lessons: Lessons, rng: np.random.Generator, clean: Sequence[Pixels], restorer: Restorer, chain: str
) -> None:
    """Degrades a scene by ``chain``, restores and fuses it, and keeps squares of what the rule met."""
    source = _degraded(clean, chain, int(rng.integers(2**31)))
    now: list[NDArray[np.float32]] = []

    def keep(seen: Seen) -> NDArray[np.float32]:
        truth = now[-1]
        weight = cv2.resize(1 / (1 + seen.trust), truth.shape[1::-1])[..., None]
        wrong = truth - seen.now + seen.off
        error = float(np.square(weight * seen.off - wrong).mean())
        facts = [planes(seen), _axes(seen.off), _axes(wrong), seen.trust[None]]
        whole = np.concatenate(facts).transpose(1, 2, 0).astype(np.float16)
        for _ in range(SQUARES):
            y, x = (int(rng.integers(side - SIDE + 1)) for side in whole.shape[:2])
            lessons.squares.append(whole[y : y + SIDE, x : x + SIDE].copy())
            lessons.errors.append(error)
        return np.ones_like(seen.trust)

    video, fusion = VideoRestorer(restorer, temporal=0), TemporalFusion(judge=keep)
    for number, (degraded, true) in enumerate(zip(source, clean, strict=True)):
        now.append(true.astype(np.float32))
        fusion.fuse(degraded, video.restore(degraded).alone, new_scene=number == 0)


def draw_chain(rng: np.random.Generator) -> str:
    """Draws noise, and mostly a coder, as ``measnet-eval --degrade`` takes them."""
    kind = rng.random()
    if kind < 0.1:  # hardly anything to restore: the past is soon worse than the frame
        return f"noise:{rng.uniform(0.5, 7):.1f}" if kind < 0.06 else f"h264:{rng.integers(18, 31)}"
    if kind < 0.5:
        return f"noise:{rng.uniform(8, 32):.1f}"
    noise = f"sensor:{rng.uniform(6, 28):.1f}"
    if rng.random() < 0.25:
        noise = f"sensor:{rng.uniform(0.001, 0.02):.4f}/{rng.uniform(0.005, 0.03):.4f}"
    return f"{noise},{'h264' if kind < 0.93 else 'hevc'}:{rng.integers(22, 34)}"


def _degraded(clean: Sequence[Pixels], chain: str, seed: int) -> list[Pixels]:
    frames = list(clean)
    with tempfile.TemporaryDirectory(prefix="measnet-fusion-") as folder:
        for number, step in enumerate(parse_chain(chain)):
            if isinstance(step, FrameStep):
                frames = list(degrade_frames(frames, [step], seed=seed, name="scene", first=number))
            elif isinstance(step, CodecStep):
                path = Path(folder) / f"{number}.mkv"
                encode(frames, path, step)
                frames = list(read_frames(path))
    return frames


def _axes(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """H W 3 -> 6 h w: brightness of the four pixels of each 2x2, and the mean of its two colours."""
    turned = cv2.transform(picture, _AXES)
    bright, size = turned[..., 0], (picture.shape[1] // 2, picture.shape[0] // 2)
    colours = cv2.resize(turned[..., 1:], size, interpolation=cv2.INTER_AREA)
    four = [bright[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    return np.stack([*four, colours[..., 0], colours[..., 1]])
