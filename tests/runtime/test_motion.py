"""Motion between two frames: found in spite of noise, and turned round."""

from __future__ import annotations

import cv2
import numpy as np

from measnet.runtime.motion import Motion, moved, turned_round
from measnet.runtime.planes import Plane

HEIGHT, WIDTH = 120, 160


def bent(most: float) -> Plane:
    """A motion that differs from place to place, h w 2, pixels."""
    coarse = np.random.default_rng(1).uniform(-most, most, (3, 4, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def inner(flow: Plane) -> Plane:
    """Without what comes from beyond the border."""
    return flow[8:-8, 8:-8]


def test_a_motion_turned_round_leads_back_to_where_it_began() -> None:
    flow = bent(3)
    back = turned_round(flow)
    assert np.abs(inner(back)).max() > 1
    assert np.abs(inner(back + moved(flow, back))).max() < 0.1


def test_fine_detail_is_followed_more_closely_where_motion_is_made_to_fit() -> None:
    rng = np.random.default_rng(2)
    scene = cv2.GaussianBlur(rng.uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 1)
    scene = (scene - scene.min()) * (255 / (scene.max() - scene.min()))
    flow = bent(3)
    noisy = [
        np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        for picture in (moved(scene, flow), scene)
    ]
    motion = Motion()
    off = [np.abs(inner(motion.between(*noisy, fit=fit) - flow)).mean() for fit in (False, True)]
    assert off[1] < 0.8 * off[0] and off[1] < 0.1, off
