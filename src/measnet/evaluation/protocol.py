"""Protocols of evaluation: how pictures are cropped, noise is added, and results are compared."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from measnet.errors import InputError
from measnet.image import Pixels
from measnet.train.degradations.noise import add_published_noise
from measnet.train.degradations.picture import Picture

if TYPE_CHECKING:
    from measnet.runtime.restorer import RestoredFrame


@dataclass(frozen=True)
class Protocol:
    """One way of judging; the same for every picture of a run."""

    name: str
    text: str
    """Its description, in one line."""

    multiple: int
    """Pictures are cropped at the centre until both sides are multiples of this; 1 leaves them whole."""

    rounded: bool
    """True where the result is rounded to 8 bits, as a user gets it, before it is judged."""

    def cut(self, pixels: Pixels) -> Pixels:
        """The part of a picture (H W 3) that is restored and judged, as the released code crops it.

        Raises ``InputError`` when nothing is left.
        """
        height, width = pixels.shape[:2]
        rest_h, rest_w = height % self.multiple, width % self.multiple
        top, left = rest_h // 2, rest_w // 2
        part = pixels[top : top + height - rest_h, left : left + width - rest_w]
        if not part.size:
            raise InputError(
                f"a picture of {width} x {height} pixels is smaller than "
                f"{self.multiple} x {self.multiple}, which the protocol {self.name!r} needs"
            )
        return np.ascontiguousarray(part)

    def result(self, frame: RestoredFrame) -> Picture:
        """The pixels of a restored frame that are judged: H W 3, float32, in [0, 1]."""
        if self.rounded:
            return to_picture(frame.pixels)
        return np.ascontiguousarray(np.clip(frame.image[0], 0, 1).transpose(1, 2, 0))


PROTOCOLS = {
    "paper": Protocol(
        name="paper",
        text="centre crop to multiples of 16, RGB, result clipped to 0-1, not rounded",
        multiple=16,
        rounded=False,
    ),
    "full": Protocol(
        name="full",
        text="whole frames of any size, RGB, result rounded to 8 bits as a user gets it",
        multiple=1,
        rounded=True,
    ),
}


def to_picture(pixels: Pixels) -> Picture:
    """Pixels (H W 3) as float32 in [0, 1]."""
    return np.multiply(pixels, np.float32(1 / np.iinfo(pixels.dtype).max), dtype=np.float32)


def add_noise(clean: Pixels, *, sigma: int, seed: int, name: str) -> Pixels:
    """``clean`` (H W 3) with the published noise of ``sigma`` (in 8-bit steps), the same every time.

    The noise depends on the seed, on sigma and on the picture's ``name`` alone: leaving pictures out or
    taking them in another order changes no picture's noise.
    """
    rng = np.random.default_rng([seed, sigma, zlib.crc32(name.encode())])
    noisy = add_published_noise(rng, to_picture(clean), sigma)
    return np.rint(noisy * np.float32(255)).astype(np.uint8)
