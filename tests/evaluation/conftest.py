"""Small sequences for tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation.small_sequences import moving, write_folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two sequences, still/ and moving/, of five clean frames."""
    folder = tmp_path_factory.mktemp("clips")
    write_folder(folder / "still", moving(5, step=0))
    write_folder(folder / "moving", moving(5))
    return folder
