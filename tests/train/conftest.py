"""Clean pictures for training tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from short_training import Change, HalfSeconds, passes_changed
from torch import Tensor

from measnet.network.measnet import TrainingPass
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
def change_passes() -> Iterator[Callable[[Change], None]]:
    """Has the training passes of this test's runs from a pack changed."""
    with contextlib.ExitStack() as changes:
        yield lambda change: changes.enter_context(passes_changed(change))


@pytest.fixture
def half_seconds() -> Iterator[HalfSeconds]:
    clock = HalfSeconds()

    def tick(given: Tensor, passed: TrainingPass) -> TrainingPass:
        clock.now += 0.5
        return passed

    with passes_changed(tick):
        yield clock


@pytest.fixture(scope="session")
def clean(pictures: Path) -> ImageSet:
    return ImageSet("pictures", "clean", tuple(Pair(None, path) for path in sorted(pictures.iterdir())))
