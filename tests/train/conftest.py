"""Clean pictures for training tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
def soon_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens what a run does besides its steps: the fit of the tone (``test_first_tone.py`` has the whole
    fit), and the look at crops of each task that ends it (the smoke run of ``test_cli.py`` has the whole)."""
    monkeypatch.setattr("measnet.train.first_tone.STEPS", 5)
    monkeypatch.setattr("measnet.train.packed_loop.LOOKED_AT", 1)
    monkeypatch.setattr("measnet.train.task_prompts.SAMPLES", 4)


@pytest.fixture
def half_seconds(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of runs from a pack that every training pass moves by half a second, and nothing else does."""
    from measnet.train import packed_loop

    clock = SimpleNamespace(now=0.0)
    clock.time = clock.monotonic = clock.perf_counter = lambda: clock.now
    passes = packed_loop._Forward.forward

    def forward(*given: Any) -> Any:
        clock.now += 0.5
        return passes(*given)

    monkeypatch.setattr(packed_loop._Forward, "forward", forward)
    monkeypatch.setattr(packed_loop, "time", clock)
    monkeypatch.setattr(packed_loop, "LEAST_MINUTES", 0.01)
    return clock


@pytest.fixture(scope="session")
def clean(pictures: Path) -> ImageSet:
    return ImageSet("pictures", "clean", tuple(Pair(None, path) for path in sorted(pictures.iterdir())))
