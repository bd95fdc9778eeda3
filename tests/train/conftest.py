"""Clean pictures for training tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.train.data.sets import ImageSet, Pair


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three pictures of 150 x 150 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(3):
        blocks = np.kron(rng.integers(30, 225, (5, 5, 3)), np.ones((30, 30, 1))).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), blocks)
    return folder


@pytest.fixture
def hardly_toned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the fit of the tone after a few steps; ``test_first_tone.py`` is about the whole fit."""
    monkeypatch.setattr("measnet.train.first_tone.STEPS", 5)


@pytest.fixture(scope="session")
def clean(pictures: Path) -> ImageSet:
    return ImageSet("pictures", "clean", tuple(Pair(None, path) for path in sorted(pictures.iterdir())))
