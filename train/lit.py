"""Pictures that are dark as they should be, because something in them is lit: made from undamaged ones.

A stage, a title, a starry sky, a lamp in a dark room have means like those of a picture that was taken with
too little light. Their lights tell them apart: of pictures taken so, hardly a pixel is bright.
Shapes: B pictures of one size, H W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_LAMPS = 8
BRIGHT = 0.995
"""Share of the pixels that stay below a lit picture's brightness."""

EVERY = 7  # of so many pixels one is looked at for that


def lit(undamaged: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """B 3 H W, 0 to 1 -> the same pictures in light of each kind."""
    for in_light in (coloured, *OTHER_LIGHTS):
        yield in_light(undamaged, rng)


def drawn(least: float, most: float, count: int, rng: torch.Generator) -> Tensor:
    """Draws so many numbers, evenly: B 1 1 1."""
    return least + (most - least) * torch.rand(count, 1, 1, 1, generator=rng, device=rng.device)


def number(least: float, most: float, rng: torch.Generator) -> float:
    """Draws one, evenly."""
    return float(drawn(least, most, 1, rng))


def _evenly_in_size(least: float, most: float, count: int, rng: torch.Generator) -> Tensor:
    """Drawn so that each doubling is as likely."""
    return drawn(math.log(least), math.log(most), count, rng).exp()


def _sometimes(count: int, rng: torch.Generator) -> Tensor:
    return (drawn(0, 1, count, rng) < 0.5).float()


def _spotlit(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    count = len(undamaged)
    elsewhere = drawn(0, 0.5, count, rng).square()
    exposed = _exposed(undamaged, drawn(0.3, 1, count, rng))
    return exposed * (elsewhere + (1 - elsewhere) * _spot(undamaged, rng))


def coloured(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    """Lights pictures in one colour, of which one or two channels are nearly 0, perhaps on a part alone."""
    count = len(undamaged)
    thirds = torch.tensor([0.0, 4.0, 2.0], device=undamaged.device)[None, :, None, None]
    pure = (((drawn(0, 6, count, rng) + thirds) % 6 - 3).abs() - 1).clamp(0, 1)
    white = drawn(0, 0.3, count, rng) * _sometimes(count, rng)
    colour = pure * (1 - white) + white
    light = (0.7 * undamaged.mean(dim=1, keepdim=True) + 0.3 * undamaged) ** drawn(1, 2.5, count, rng)
    all_over = drawn(0, 1, count, rng)
    return _exposed(
        light * colour * (all_over + (1 - all_over) * _spot(undamaged, rng)), drawn(0.3, 1, count, rng)
    )


def _starry(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    """Points, few or many, sharp or soft, before black or a glow."""
    count, _, height, width = undamaged.shape
    at = torch.rand(count, 1, height, width, generator=rng, device=rng.device)
    many = _evenly_in_size(3e-4, 3e-2, count, rng)
    points = (at < many) * (0.2 + (at / many).clamp(max=1) ** 4)  # few of them are large
    blur = torch.tensor([0.25, 0.5, 0.25], device=undamaged.device)
    soft = F.conv2d(F.max_pool2d(points, 3, 1, 1), (blur[:, None] * blur)[None, None], padding=1)
    glow = F.interpolate(F.avg_pool2d(undamaged, 8), size=(height, width), mode="bilinear")
    part = _sometimes(count, rng)
    glow = glow ** drawn(1, 3, count, rng) * (1 - part + part * _spot(undamaged, rng))
    sharp = _sometimes(count, rng)
    stars = sharp * points + (1 - sharp) * soft
    return (glow * drawn(0, 0.6, count, rng).square() + stars).clamp(0, 1)


def _with_lamps(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    """Dark, with lamps of all sizes, some with a halo."""
    count, _, height, width = undamaged.shape
    pictures = undamaged ** drawn(1, 2, count, rng) * drawn(0, 0.55, count, rng).square()
    down = torch.arange(height, device=undamaged.device)[:, None]
    across = torch.arange(width, device=undamaged.device)
    for picture in pictures:
        for _ in range(1 + int(number(0, MOST_LAMPS, rng))):
            radius = float(_evenly_in_size(0.01, 0.12, 1, rng)) * min(height, width)
            y, x = number(0, height, rng), number(0, width, rng)
            away = ((down - y).square() + (across - x).square()).sqrt() / radius
            halo = 0.3 * (-away / 2).exp() * _sometimes(1, rng)[0, 0]
            colour = 1 - drawn(0, 1, 3, rng)[:, 0] * number(0, 0.6, rng)
            picture += ((away < 1) + halo) * colour * number(0.4, 1, rng)
    return pictures.clamp(0, 1)


def _with_letters(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    """Lines of marks like letters, before black or something dark."""
    count, _, height, width = undamaged.shape
    pictures = undamaged * drawn(0, 0.4, count, rng).square() * _sometimes(count, rng)
    for picture in pictures:
        size = int(_evenly_in_size(6, max(8, height * 0.15), 1, rng))
        stroke = max(1, size // 6)
        colour = (1 - drawn(0, 0.5, 3, rng)[:, 0] * _sometimes(1, rng)[0]) * number(0.5, 1, rng)
        lines = int(number(1, max(2, 0.4 * height / size), rng))
        first = int(number(0, max(1, height - lines * size * 1.6), rng))
        for top in range(first, min(height, first + int(lines * size * 1.6)), int(size * 1.6)):
            long = int(number(0.1, 0.8, rng) * width)
            left = int(number(0, width - long, rng))
            shape = (1, 1, max(1, size // stroke), max(1, long // stroke))
            marks = (torch.rand(shape, generator=rng, device=rng.device) < 0.35).float()
            line = picture[:, top : top + size, left : left + long]
            torch.maximum(line, F.interpolate(marks, size=line.shape[1:])[0] * colour, out=line)
    return pictures


def _low_key(undamaged: Tensor, rng: torch.Generator) -> Tensor:
    """Much shadow and few lights, in colours from none to strong ones."""
    count = len(undamaged)
    grey = undamaged.mean(dim=1, keepdim=True)
    coloured = (grey + (undamaged - grey) * drawn(0.5, 3, count, rng)).clamp(0, 1)
    tint = 1 - drawn(0, 1, 3 * count, rng).view(count, 3, 1, 1) * drawn(0, 0.6, count, rng)
    return _exposed(coloured ** drawn(1.5, 4.5, count, rng) * tint, drawn(0.3, 1, count, rng))


def _spot(like: Tensor, rng: torch.Generator) -> Tensor:
    """B 1 H W: 1 where a light falls, less around, 0 far off."""
    share = torch.ones(len(like), 1, 1, 1, device=like.device)
    for dim in (2, 3):
        shape = [1, 1, 1, 1]
        shape[dim] = like.shape[dim]
        along = torch.linspace(0, 1, like.shape[dim], device=like.device).view(shape)
        away = (along - drawn(0, 1, len(like), rng)) / _evenly_in_size(0.04, 0.4, len(like), rng)
        share = share * (-away.square() / 2).exp()
    return share


def _exposed(pictures: Tensor, bright: Tensor) -> Tensor:
    """With all but the brightest pixels below ``bright`` (B 1 1 1)."""
    now = pictures.amax(dim=1).flatten(1)[:, ::EVERY].quantile(BRIGHT, dim=1)[:, None, None, None]
    return (pictures * bright / now.clamp(min=0.02)).clamp(0, 1)


OTHER_LIGHTS = (_spotlit, _starry, _with_lamps, _with_letters, _low_key)
