"""Pictures that look damaged and are meant so: made from others, and to be left alone.

A network that has seen darkness, haze and wrong colours only where they were to be undone undoes them
everywhere: stage light turns grey, nebulae are lit up, plain bright things darken, flat strong colours get
spots. Shapes: S side of a crop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from measnet.train.lit import OTHER_LIGHTS, coloured, number

_OFTEN = (4, 3, 1, 3)
"""Weights of the kinds: in light of one colour, in other light, pale, drawn."""

_OVER = 0.25  # of the drawn: shapes lie over the picture
_STRONG = 0.7  # of their colours: each channel is 0 or all


def meant(clean: Tensor, rng: torch.Generator) -> Tensor:
    """1 3 S S, 0 to 1 -> a picture of one of the kinds, of its size."""
    kind = int(torch.multinomial(torch.tensor(_OFTEN, dtype=torch.float), 1, generator=rng))
    if kind == 0:
        return coloured(clean, rng)
    if kind == 1:
        return OTHER_LIGHTS[_whole(len(OTHER_LIGHTS), rng)](clean, rng)
    return _pale(clean, rng) if kind == 2 else _drawn(clean, rng)


def _pale(clean: Tensor, rng: torch.Generator) -> Tensor:
    """Bright and plain: a page, a wall, snow, a thing before white; sharp or not."""
    grey = clean.mean(dim=1, keepdim=True)
    picture = grey + (clean - grey) * number(0, 1, rng)
    if number(0, 1, rng) < 0.5:
        small = F.avg_pool2d(picture, 2 + _whole(10, rng), ceil_mode=True)
        picture = F.interpolate(small, size=clean.shape[2:], mode="bilinear", align_corners=False)
    tint = 1 - torch.rand(1, 3, 1, 1, generator=rng) * number(0, 0.35, rng)
    contrast, bright = number(0.03, 0.6, rng), number(0.8, 1, rng)
    return ((1 - (1 - picture) * contrast) * bright * tint).clamp(0, 1)


def _drawn(clean: Tensor, rng: torch.Generator) -> Tensor:
    """Stripes, shapes, ramps and marks in flat, strong colours, as titles, signs and test patterns have."""
    side = clean.shape[-1]
    picture = clean.clone() if number(0, 1, rng) < _OVER else _colour(rng).expand_as(clean).clone()
    if number(0, 1, rng) < 0.5:
        width = 8 + _whole(40, rng)
        for left in range(-_whole(width, rng), side, width):
            picture[..., max(0, left) : max(0, left + width)] = _colour(rng)
        if number(0, 1, rng) < 0.4:
            picture = picture.transpose(2, 3).contiguous()
    for _ in range(_whole(7, rng)):
        picture = torch.where(_shape(side, rng), _fill(side, rng), picture)
    if number(0, 1, rng) < 0.5:  # soft edges
        blur = torch.tensor([0.25, 0.5, 0.25])
        around = F.pad(picture, (1, 1, 1, 1), mode="replicate").transpose(0, 1)
        picture = F.conv2d(around, (blur[:, None] * blur)[None, None]).transpose(0, 1)
    return picture.clamp(0, 1)


def _shape(side: int, rng: torch.Generator) -> Tensor:
    """S S: a rectangle, a disc, a line, or marks like letters."""
    down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    down, across = down - _whole(side, rng), across - _whole(side, rng)
    high, wide = 4 + _whole(50, rng), 4 + _whole(50, rng)
    kind = _whole(4, rng)
    if kind == 0:
        return (down.abs() < high) & (across.abs() < wide)
    if kind == 1:
        return down.square() + across.square() < high**2
    if kind == 2:
        return (down * number(-1, 1, rng) + across * number(-1, 1, rng)).abs() < 2 + high / 8
    marks = (torch.rand(1, 1, side // 4, side // 4, generator=rng) < 0.3).float()
    marked = F.interpolate(marks, size=(side, side))[0, 0] > 0.5
    return marked & (down.abs() < high / 3) & (across.abs() < wide)


def _fill(side: int, rng: torch.Generator) -> Tensor:
    """A colour, 1 3 1 1, or a ramp from one to another, 1 3 S S."""
    colour = _colour(rng)
    if number(0, 1, rng) > 0.3:
        return colour
    along = ((torch.arange(side) - _whole(side, rng)) / (8 + _whole(46, rng))).clamp(0, 1)
    along = along[:, None] if _whole(2, rng) else along[None]
    return colour * (1 - along) + _colour(rng) * along


def _colour(rng: torch.Generator) -> Tensor:
    colour = torch.rand(1, 3, 1, 1, generator=rng)
    if number(0, 1, rng) > _STRONG:
        return colour
    return (colour > 0.5).float() * (number(0.4, 1, rng) if number(0, 1, rng) < 0.3 else 1)


def _whole(below: int, rng: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=rng))
