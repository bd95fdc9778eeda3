"""Classical tools, which a user would take without a network: one per task, in its common settings.

Each is measured in two to four settings and credited with the best mean of a set, which a user could not
know beforehand. Those for noise, haze and low light were chosen on training pictures, those for rain and blur
on the measured ones, to the tools' favour (``docs/evaluating.md`` says how each works).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from measnet.image import Pixels
from measnet.train.degradations.haze import guided_filter
from measnet.train.degradations.picture import Picture


class Tool(NamedTuple):
    """A classical tool in one setting."""

    name: str
    apply: Callable[[Pixels, int | None], Pixels]
    """Takes a picture (H W 3, uint8, RGB) and the noise's sigma where it is known; gives one like it."""


def non_local_means(pixels: Pixels, sigma: int | None, *, strength: float, lab: bool) -> Pixels:
    """Non-local means (Buades, Coll, Morel, IPOL 2011), OpenCV's, with ``h = strength * sigma``.

    ``lab`` denoises brightness and colour apart (``fastNlMeansDenoisingColored``); else patches are compared
    in RGB (``fastNlMeansDenoising``). Patches of 7, search in 21 pixels, as OpenCV recommends. An unknown
    sigma is estimated.
    """
    h = strength * (estimate_noise(pixels) if sigma is None else sigma)
    if not lab:
        return np.asarray(cv2.fastNlMeansDenoising(pixels, None, h, 7, 21), np.uint8)
    blue_first = np.ascontiguousarray(pixels[:, :, ::-1])
    done = cv2.fastNlMeansDenoisingColored(blue_first, None, h, h, 7, 21)
    return np.ascontiguousarray(np.asarray(done, np.uint8)[:, :, ::-1])


def estimate_noise(pixels: Pixels) -> float:
    """The sigma of a picture's noise, in 8-bit steps (Immerkær, "Fast noise variance estimation", 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    laplacian = cv2.filter2D(pixels.astype(np.float32), -1, kernel)
    return float(np.sqrt(np.pi / 2) * np.mean(np.abs(laplacian)) / 6)


def median_filtered(pixels: Pixels, sigma: int | None, *, side: int) -> Pixels:
    """The median of ``side`` x ``side`` pixels, per channel."""
    return np.asarray(cv2.medianBlur(pixels, side), np.uint8)


def guided(pixels: Pixels, sigma: int | None, *, radius: int, eps: float) -> Pixels:
    """Each channel smoothed by the guided filter with itself as guide (He et al., 2013)."""
    channels = [np.ascontiguousarray(channel) for channel in _unit(pixels).transpose(2, 0, 1)]
    return _pixels(np.dstack([guided_filter(channel, channel, radius, eps) for channel in channels]))


def dark_channel_prior(pixels: Pixels, sigma: int | None, *, least_transmission: float) -> Pixels:
    """Haze removal by the dark channel prior (He, Sun, Tang, CVPR 2009, TPAMI 2011).

    ``t = 1 - 0.95 min(I / A)`` over patches of 15 x 15, A the brightest of the 0.1 % of pixels with the
    brightest dark channel, t refined by the guided filter (He et al., 2013; radius 60, eps 1e-3) in place of
    soft matting, ``J = (I - A) / max(t, least_transmission) + A``.
    """
    picture = _unit(pixels)
    patch = np.ones((15, 15), np.uint8)
    dark = np.asarray(cv2.erode(picture.min(axis=2), patch), np.float32)
    hazy = np.argsort(dark, axis=None)[-max(1, dark.size // 1000) :]
    candidates = picture.reshape(-1, 3)[hazy]
    airlight = np.maximum(candidates[candidates.sum(axis=1).argmax()], np.float32(1 / 255))
    transmission = 1 - 0.95 * np.asarray(cv2.erode((picture / airlight).min(axis=2), patch), np.float32)
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
    refined = guided_filter(grey, transmission.astype(np.float32), 60, 1e-3)
    return _pixels((picture - airlight) / np.maximum(refined, least_transmission)[:, :, None] + airlight)


def gamma(pixels: Pixels, sigma: int | None, *, exponent: float | None) -> Pixels:
    """``x ** (1 / exponent)``; without an exponent, the one that brings the mean to a half."""
    if exponent is None:
        average = np.clip(pixels.mean() / 255, 1e-3, 0.999)
        return _pixels(_unit(pixels) ** float(np.log(0.5) / np.log(average)))
    return _pixels(_unit(pixels) ** (1 / exponent))


def equalize(pixels: Pixels, sigma: int | None, *, adaptive: bool) -> Pixels:
    """Histogram equalisation of the brightness: of the whole (Y of YCrCb), or of 8 x 8 fields.

    The second is CLAHE (Zuiderveld, 1994) on L of Lab with OpenCV's own default limit, 40.
    """
    into, back = (
        (cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB) if adaptive else (cv2.COLOR_RGB2YCrCb, cv2.COLOR_YCrCb2RGB)
    )
    planes = np.asarray(cv2.cvtColor(pixels, into), np.uint8)
    brightness = np.ascontiguousarray(planes[:, :, 0])
    planes[:, :, 0] = (
        cv2.createCLAHE(40.0, (8, 8)).apply(brightness) if adaptive else cv2.equalizeHist(brightness)
    )
    return np.asarray(cv2.cvtColor(planes, back), np.uint8)


def unsharp_mask(pixels: Pixels, sigma: int | None, *, radius: float, amount: float) -> Pixels:
    """``x + amount (x - G x)``, G a Gaussian of standard deviation ``radius`` in pixels."""
    picture = _unit(pixels)
    return _pixels(picture + amount * (picture - cv2.GaussianBlur(picture, (0, 0), radius)))


TOOLS: dict[str, tuple[Tool, ...]] = {
    "denoise": (
        Tool("non-local means, Lab, h = 0.5σ", partial(non_local_means, strength=0.5, lab=True)),
        Tool("non-local means, RGB, h = 0.75σ", partial(non_local_means, strength=0.75, lab=False)),
        Tool("non-local means, RGB, h = 0.95σ", partial(non_local_means, strength=0.95, lab=False)),
    ),
    "derain": (
        Tool("median 3×3", partial(median_filtered, side=3)),
        Tool("median 5×5", partial(median_filtered, side=5)),
        Tool("guided filter, r = 8, ε = 0.1", partial(guided, radius=8, eps=0.1)),
    ),
    "dehaze": (
        Tool("dark channel prior, t₀ = 0.1", partial(dark_channel_prior, least_transmission=0.1)),
        Tool("dark channel prior, t₀ = 0.3", partial(dark_channel_prior, least_transmission=0.3)),
    ),
    "deblur": (
        Tool("unsharp mask, radius 1, 50 %", partial(unsharp_mask, radius=1.0, amount=0.5)),
        Tool("unsharp mask, radius 3, 50 %", partial(unsharp_mask, radius=3.0, amount=0.5)),
    ),
    "lowlight": (
        Tool("gamma 2.2", partial(gamma, exponent=2.2)),
        Tool("gamma to mean ½", partial(gamma, exponent=None)),
        Tool("histogram equalisation", partial(equalize, adaptive=False)),
        Tool("CLAHE", partial(equalize, adaptive=True)),
    ),
}
"""The tools of each task."""


def _unit(pixels: Pixels) -> Picture:
    return np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)


def _pixels(picture: Picture) -> Pixels:
    return np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
