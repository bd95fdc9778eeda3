"""A camera: light through a lens onto a sensor, and what the camera makes of it, step by step in that order.

Noise is made in light, where the sensor meets it, and takes the way of the picture after that: through the
filling-in of colours, a cheap camera's smoothing and sharpening, scaling, and 8 bits. Added at the end
instead, it would be white and the same in shadows and highlights, which no footage shows.

After Brooks et al., "Unprocessing Images for Learned Raw Denoising", 2019, and Foi et al., "Practical
Poissonian-Gaussian Noise Modeling and Fitting", 2008.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from measnet.train.degradations.picture import (
    Picture,
    clip,
    from_uint8,
    rounded_to_8_bits,
    to_light,
    to_stored,
    to_uint8,
)

CameraFinish = Literal["none", "bilateral", "means", "soft"]

MIDDLE = 0.5**2.2  # the light of a stored value of one half
PEDESTAL = 0.5  # raw values keep what noise takes below black
RAW_PEAK = 2.0  # and above white


@dataclass(frozen=True)
class SimulatedCamera:
    """One camera at one setting: frames of one run share it, and differ in their noise alone."""

    level: float = 8.0
    """Noise at middle grey before any finish, its standard deviation in 8-bit steps."""

    read_share: float = 0.03
    """Share of the variance at middle grey that does not depend on light."""

    softness: float = 0.0
    """Blur of the lens: the Gaussian's sigma in pixels."""

    vignette: float = 0.0
    """The share of light that the corners lose."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Noise of red, green and blue, as a multiple of ``level``: white balance amplifies red and blue."""

    mosaic: bool = True
    """One colour a pixel, the others filled in; else three sensors, with ``grain``."""

    keeps_detail: bool = False
    """True where the mosaic changes noise alone, as behind a lens that is no sharper than the mosaic."""

    edge_aware: bool = False
    """True where missing colours are interpolated along edges, else evenly."""

    grain: float = 0.0
    """Without a mosaic: how far a grain of noise reaches, in pixels."""

    pattern: float = 0.0
    """Strength of fixed rows and columns, as a share of ``level``."""

    pattern_seed: int = 0

    chroma_smoothing: float = 0.0
    """Sigma in pixels of what the camera smooths colour with."""

    finish: CameraFinish = "none"
    finish_strength: float = 1.0
    sharpening: float = 0.0
    """The share of an unsharp mask's difference that is added."""

    sensor_scale: float = 1.0
    """Pixels of the sensor for one of the picture, along a side."""

    def shoot(self, rng: np.random.Generator, scene: Picture) -> Picture:
        """The picture that the camera stores of ``scene``, in steps of 1/255."""
        height, width = scene.shape[:2]
        light = self._at_the_sensor(to_light(scene))
        sensed = self._sense(rng, light)
        stored = self._finished(to_stored(sensed))
        if stored.shape != scene.shape:
            way = cv2.INTER_AREA if self.sensor_scale > 1 else cv2.INTER_CUBIC
            stored = clip(np.asarray(cv2.resize(stored, (width, height), interpolation=way), np.float32))
        return rounded_to_8_bits(stored)

    def _at_the_sensor(self, light: Picture) -> Picture:
        height, width = light.shape[:2]
        if self.softness > 0.25:
            light = np.asarray(cv2.GaussianBlur(light, (0, 0), self.softness), np.float32)
        if self.vignette:
            rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
            columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
            light = light * (1 - np.float32(self.vignette / 2) * (rows**2 + columns**2))
        if self.sensor_scale != 1:
            size = (max(8, round(width * self.sensor_scale)), max(8, round(height * self.sensor_scale)))
            way = cv2.INTER_LINEAR if self.sensor_scale > 1 else cv2.INTER_AREA
            light = np.asarray(cv2.resize(light, size, interpolation=way), np.float32)
        return light

    def _sense(self, rng: np.random.Generator, light: Picture) -> Picture:
        """Light with its noise: one colour a pixel where there is a mosaic, filled in again."""
        # Near middle grey a step of light is about a step of stored value: GAMMA's slope there is 1.05.
        variance = np.float32((self.level / 255 / 1.05) ** 2)
        shot = variance * (1 - self.read_share) / MIDDLE
        read = variance * self.read_share
        gains = np.asarray(self.gains, np.float32)
        seen = _mosaic(light) if self.mosaic else light
        if self.mosaic:
            gains = _mosaic(np.broadcast_to(gains, light.shape))
        noise = rng.standard_normal(seen.shape, dtype=np.float32)
        if not self.mosaic and self.grain > 0.25:
            noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), self.grain), np.float32)
            noise /= noise.std() + 1e-6
        noise *= gains * np.sqrt(shot * seen + read)
        if self.pattern:
            noise += self._fixed_pattern(seen.shape[0], seen.shape[1], float(np.sqrt(variance)))
        if not self.mosaic:
            return light + noise
        if self.keeps_detail:
            return light + _fill_in(noise, edge_aware=False)
        return _fill_in(seen + noise, self.edge_aware)

    def _fixed_pattern(self, height: int, width: int, scale: float) -> Picture:
        fixed = np.random.default_rng(self.pattern_seed)
        rows, columns = fixed.standard_normal((height, 1)), fixed.standard_normal((1, width))
        lines = (rows * fixed.uniform(0, 1) + columns * fixed.uniform(0, 1)) * (scale * self.pattern)
        lines = lines if self.mosaic else lines[:, :, None]
        return np.asarray(lines, np.float32)

    def _finished(self, stored: Picture) -> Picture:
        """Smooths noise, and sharpens afterwards, as cheap cameras do."""
        if self.chroma_smoothing > 0.3:
            planes = np.asarray(cv2.cvtColor(stored, cv2.COLOR_RGB2YCrCb), np.float32)
            planes[:, :, 1:] = cv2.GaussianBlur(planes[:, :, 1:], (0, 0), self.chroma_smoothing)
            stored = clip(np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB)))
        if self.finish == "bilateral":
            tone = self.finish_strength * 2.2 * self.level / 255
            stored = np.asarray(cv2.bilateralFilter(stored, 5, max(tone, 0.01), 1.6), np.float32)
        elif self.finish == "means":
            power = max(1.0, self.finish_strength * 0.6 * self.level)
            smoothed = cv2.fastNlMeansDenoising(to_uint8(stored), None, power, 3, 7)
            stored = from_uint8(np.asarray(smoothed, np.uint8))
        elif self.finish == "soft":
            stored = np.asarray(
                cv2.GaussianBlur(stored, (0, 0), 0.4 + 0.6 * self.finish_strength), np.float32
            )
        if self.sharpening:
            smooth = np.asarray(cv2.GaussianBlur(stored, (0, 0), 1.1), np.float32)
            stored = clip(stored + np.float32(self.sharpening) * (stored - smooth))
        return stored


def draw_camera(rng: np.random.Generator, heaviest: float = 30) -> SimulatedCamera:
    """A camera from mild to heavy: noise of 1 to ``heaviest`` steps at middle grey, a third of that on
    average."""
    finished = rng.random() < 0.35
    finish: CameraFinish = "none"
    if finished:
        finish = ("bilateral", "means", "soft")[int(rng.choice(3, p=[0.5, 0.25, 0.25]))]
    scale = rng.random()
    return SimulatedCamera(
        level=float(1 + (heaviest - 1) * rng.beta(1.3, 2.7)),
        read_share=float(np.exp(rng.uniform(np.log(0.002), np.log(0.08)))),
        softness=float(rng.uniform(0.3, 0.8)) if rng.random() < 0.6 else 0.0,
        vignette=float(rng.uniform(0.03, 0.12)) if rng.random() < 0.04 else 0.0,
        gains=(float(rng.uniform(0.9, 1.5)), 1.0, float(rng.uniform(0.9, 1.6))),
        mosaic=bool(rng.random() < 0.7),
        keeps_detail=bool(rng.random() < 0.65),
        edge_aware=bool(rng.random() < 0.5),
        grain=float(rng.uniform(0, 1.1)),
        pattern=float(rng.uniform(0.05, 0.2)) if rng.random() < 0.06 else 0.0,
        pattern_seed=int(rng.integers(2**31)),
        chroma_smoothing=float(rng.uniform(0.5, 2.5)) if rng.random() < 0.4 else 0.0,
        finish=finish,
        finish_strength=float(rng.uniform(0.3, 1.2)),
        sharpening=float(rng.uniform(0.2, 1.2)) if finished and rng.random() < 0.75 else 0.0,
        sensor_scale=float(rng.uniform(0.7, 0.95) if scale < 0.15 else rng.uniform(1.1, 1.6))
        if scale < 0.25
        else 1.0,
    )


def _mosaic(colours: Picture) -> Picture:
    """Keeps of every pixel the one colour that a Bayer sensor sees there: RG over GB."""
    seen = np.array(colours[:, :, 1], np.float32)
    seen[0::2, 0::2] = colours[0::2, 0::2, 0]
    seen[1::2, 1::2] = colours[1::2, 1::2, 2]
    return seen


def _fill_in(seen: Picture, edge_aware: bool) -> Picture:
    """All three colours of every pixel, from its neighbours where the sensor saw another."""
    raw = np.clip((seen + PEDESTAL) * np.float32(65535 / RAW_PEAK), 0, 65535)
    way = cv2.COLOR_BayerRGGB2RGB_EA if edge_aware else cv2.COLOR_BayerRGGB2RGB
    # Two pixels of mirror around it: OpenCV leaves the outermost pixel to be copied from its neighbour.
    raw = cv2.copyMakeBorder(np.rint(raw).astype(np.uint16), 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    filled = cv2.cvtColor(raw, way)[2:-2, 2:-2].astype(np.float32)
    return np.asarray(filled * np.float32(RAW_PEAK / 65535) - np.float32(PEDESTAL), np.float32)
