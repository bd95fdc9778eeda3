"""Low light: too little of it, and the sensor's noise in what there was."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.train.degradations.picture import Picture, to_light, to_stored


def add_low_light(rng: np.random.Generator, clean: Picture) -> Picture:
    """``y = stored(e c x + N(0, a e x + b^2))`` on amounts of light x, with exposure e and colour cast c.

    e is 0.01 to 0.25 (about 6.5 to 2 stops), c within 8 % of grey. Noise: Foi et al., "Practical
    Poissonian-Gaussian Noise Modeling and Fitting", 2008, with a grain of up to a pixel.
    """
    exposure = float(np.exp(rng.uniform(np.log(0.01), np.log(0.25))))
    cast = 1 + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    light = to_light(clean) * (exposure * cast)
    shot = float(np.exp(rng.uniform(np.log(1e-5), np.log(1e-3))))
    read = float(np.exp(rng.uniform(np.log(1e-4), np.log(4e-3))))
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    grain = rng.uniform(0, 1.0)
    if grain > 0.2:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain), np.float32)
        noise /= noise.std() + 1e-6
    return to_stored(light + noise * np.sqrt(shot * light + read**2))
