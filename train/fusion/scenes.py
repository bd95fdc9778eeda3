"""Clean scenes of a few frames: photographs that pan, zoom and shake, things that move before them, light
that changes, shutters that blur; and pieces of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.image import Pixels
from measnet.train.data.pictures import read_picture

HEIGHT, WIDTH, FRAMES = 192, 256, 8
Levels = NDArray[np.float32]


@dataclass(frozen=True)
class _Walk:
    """Motion of one picture: where its middle is, how large and how turned, at any time in frames."""

    scale: float
    angle: float
    speed: NDArray[np.float64]
    faster: NDArray[np.float64]
    zoom: float
    turn: float
    shakes: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, still: bool) -> _Walk:
        pixels = 0.0 if still else float(np.exp(rng.uniform(np.log(0.15), np.log(10))))
        towards = rng.uniform(0, 2 * np.pi)
        shake = 0.0 if still or rng.random() < 0.6 else rng.uniform(0.1, 1.5)
        return cls(
            scale=rng.uniform(0.85, 1.65),
            angle=rng.uniform(-0.2, 0.2) if rng.random() < 0.5 else 0.0,
            speed=pixels * np.array([np.cos(towards), np.sin(towards)]),
            faster=rng.normal(0, 0.12, 2) * pixels,
            zoom=0.0 if still or rng.random() < 0.5 else rng.normal(0, 0.008),
            turn=0.0 if still or rng.random() < 0.5 else rng.normal(0, 0.008),
            shakes=shake * rng.normal(0, 1, (FRAMES + 2, 2)),
        )

    def matrix(self, time: float, middle: NDArray[np.float64], at: NDArray[np.float64]) -> Levels:
        """From the frame's pixels to the picture's, 2 3; the picture's ``middle`` begins ``at`` a place."""
        number, part = int(time), time % 1
        shaken = self.shakes[number] * (1 - part) + self.shakes[number + 1] * part
        scale, angle = self.scale * np.exp(self.zoom * time), self.angle + self.turn * time
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        turned = np.array([[cosine, -sine], [sine, cosine]])
        place = at + self.speed * time + self.faster * time * time / 2 + shaken
        return np.column_stack([turned, middle - turned @ place]).astype(np.float32)


def made_up_scene(rng: np.random.Generator, pictures: Sequence[Path]) -> list[Pixels]:
    """A scene of ``FRAMES`` frames of ``HEIGHT`` x ``WIDTH``; one in five of them stands still."""
    layers = [_Layer.draw(rng, pictures, still=rng.random() < 0.2, whole=True)]
    layers += [
        _Layer.draw(rng, pictures, still=False, whole=False)
        for _ in range(rng.choice(4, p=[0.25, 0.4, 0.25, 0.1]))
    ]
    fastest = max(float(np.hypot(*layer.walk.speed)) for layer in layers)
    blurs = rng.random() < 0.4
    frames = []
    for number, light in enumerate(_lights(rng)):
        # Some frames are sharp among blurred ones: there a past takes detail away.
        shutter = rng.choice([0.0, rng.uniform(0.2, 0.9)]) if blurs else 0.0
        moments = int(np.clip(fastest * shutter, 1, 8))
        shown = [_drawn(layers, number + shutter * part / moments) for part in range(moments)]
        frames.append(_pixels(np.mean(shown, axis=0) * light))
    return frames


@dataclass(frozen=True)
class _Layer:
    picture: Levels
    mask: Levels | None
    walk: _Walk
    at: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, pictures: Sequence[Path], *, still: bool, whole: bool) -> _Layer:
        picture = read_picture(pictures[int(rng.integers(len(pictures)))]).astype(np.float32)
        if rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        at = np.array([WIDTH / 2, HEIGHT / 2]) if whole else rng.uniform(0, (WIDTH, HEIGHT))
        mask = None if whole else _blob(rng, *picture.shape[:2])
        return cls(picture, mask, _Walk.draw(rng, still=still), at)


def _blob(rng: np.random.Generator, height: int, width: int) -> Levels:
    """A mask of uneven outline, sharp or soft, H W 1."""
    side = int(rng.integers(4, 9))
    bumps: Any = rng.normal(0, 0.4, (side, side))
    bumps = cv2.resize(bumps, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    inside = 1 - (x / rng.uniform(0.15, 0.4)) ** 2 - (y / rng.uniform(0.15, 0.4)) ** 2 + bumps
    return np.clip(inside * rng.uniform(6, 40), 0, 1).astype(np.float32)


def _drawn(layers: Sequence[_Layer], time: float) -> Levels:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for layer in layers:
        height, width = layer.picture.shape[:2]
        matrix = layer.walk.matrix(time, np.array([width / 2, height / 2]), layer.at)
        picture = _warped(layer.picture, matrix, cv2.INTER_CUBIC)
        mask = 1 if layer.mask is None else _warped(layer.mask, matrix, cv2.INTER_LINEAR)[..., None]
        frame = frame + mask * (picture - frame)
    return np.clip(frame, 0, 255)


def _warped(picture: Levels, matrix: Levels, how: int) -> Any:
    flags = how | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101 if picture.ndim == 3 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=flags, borderMode=border)


def _lights(rng: np.random.Generator) -> list[Any]:
    """Factors on each frame's light: mostly 1, else a fade, a lamp that flickers, a flash."""
    kind = rng.random()
    lights: list[Any] = [1.0] * FRAMES
    if kind < 0.1:
        lights = list(np.linspace(1, rng.uniform(0.6, 1.2), FRAMES))
    elif kind < 0.18:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        far = ((x - rng.uniform(0, WIDTH)) ** 2 + (y - rng.uniform(0, HEIGHT)) ** 2) / rng.uniform(
            30, 120
        ) ** 2
        lights = [1 + rng.normal(0, 0.15) * np.exp(-far)[..., None] for _ in range(FRAMES)]
    elif kind < 0.22:
        lights[int(rng.integers(1, FRAMES))] = rng.uniform(1.1, 1.5)
    return lights


def piece_of_clip(rng: np.random.Generator, frames: Sequence[Pixels]) -> list[Pixels]:
    """Neighbouring frames of a clip, scaled down for the coder's traces to go, and cut out."""
    height, width = frames[0].shape[:2]
    least = max(HEIGHT / height, WIDTH / width)
    scale = rng.uniform(least, max(least, 0.5))
    size = (max(WIDTH, round(width * scale)), max(HEIGHT, round(height * scale)))
    first = int(rng.integers(len(frames) - FRAMES + 1))
    x, y = int(rng.integers(size[0] - WIDTH + 1)), int(rng.integers(size[1] - HEIGHT + 1))
    scaled = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames[first : first + FRAMES]]
    return [np.ascontiguousarray(frame[y : y + HEIGHT, x : x + WIDTH]) for frame in scaled]


def _pixels(levels: Any) -> Pixels:
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
