"""A folder of pictures that was cut off goes on with those that are missing."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.runtime.sinks.part_folder import Manifest

from .conftest import (
    IDENTITY_COMMAND,
)
from .resuming import NEVER, FailingRestorer, Run, names, sent_at_a_step


def test_a_folder_that_goes_on_reports_where_and_tells_of_the_pictures_it_restored_itself(
    measnet_run: Run, tmp_path: Path
) -> None:
    shots, report = tmp_path / "shots", tmp_path / "report.json"
    shots.mkdir()
    for number in range(5):
        cv2.imwrite(str(shots / f"{number}.png"), np.full((16, 16, 3), 40 * number, np.uint8))
    killed = sent_at_a_step(signal.SIGKILL, 8, IDENTITY_COMMAND[1], "0", shots)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert measnet_run(shots, "--report", report).status == 0
    (run,) = json.loads(report.read_text())["runs"]
    done = run["resumed_at"]
    assert 0 < done < 5 and run["frames"] == 5
    experts = run["experts"]
    assert (experts["first_frame"], experts["frames"], experts["unit"]) == (done, 5 - done, "frames")
    bins = experts["over_time"]["bins"]
    assert (bins[0]["from"], bins[-1]["to"]) == (done, 5)


def test_sixteen_bits_of_a_picture_stay_in_a_folder_that_goes_on(measnet_run: Run, shots: Path) -> None:
    rng = np.random.default_rng(3)
    for path in shots.iterdir():
        path.unlink()
    for number in range(12):
        ending = ("png", "tif")[number % 2]
        picture = rng.integers(0, 65536, (8, 9, 3), np.uint16)
        cv2.imwrite(str(shots / f"{number:02}.{ending}"), picture)
    _begin_folder(measnet_run, shots)
    assert measnet_run(shots).status == 0
    restored = shots.with_name("shots.restored")
    assert len(names(restored)) == 12
    for name in names(restored):
        was, now = (cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for folder in (shots, restored))
        assert now is not None and now.dtype == np.uint16 and np.array_equal(was, now)


@pytest.fixture
def shots(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shots"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:02}.png"), rng.integers(0, 256, (8, 9, 3), np.uint8))
    yield folder


def _begin_folder(measnet_run: Run, shots: Path) -> Path:
    """The engine fails at the tenth of the twelve pictures; at most five of the others are not written."""
    answer = measnet_run(shots, engine=partial(FailingRestorer, 9))
    pictures = shots.with_name("shots.restored.part") / "pictures"
    assert 4 <= len(names(pictures)) <= 9
    assert answer.status == 1
    assert f"goes on at frame {len(names(pictures))}" in " ".join(answer.err.split())
    return pictures


def _same_pictures(folder: Path, other: Path) -> None:
    assert names(folder) == names(other)
    for name in names(folder):
        assert np.array_equal(cv2.imread(str(folder / name)), cv2.imread(str(other / name)))


def test_a_folder_goes_on_with_the_pictures_that_are_missing(measnet_run: Run, shots: Path) -> None:
    pictures = _begin_folder(measnet_run, shots)
    done = len(names(pictures))
    engine = FailingRestorer(NEVER)
    answer = measnet_run(shots, engine=lambda: engine)
    assert answer.status == 0, answer.err
    assert engine.frames == 12 - done
    _same_pictures(shots.with_name("shots.restored"), shots)
    assert names(shots.parent) == ["shots", "shots.restored"]


def test_pictures_that_are_damaged_or_not_of_this_source_are_made_again(
    measnet_run: Run, shots: Path
) -> None:
    pictures = _begin_folder(measnet_run, shots)
    done = len(names(pictures))
    (pictures / "00.png").write_bytes(b"damaged")
    (pictures / "01.png").unlink()
    (pictures / "stranger.png").write_text("was not made by us")
    cv2.imwrite(str(shots / "02.png"), np.full((8, 9, 3), 7, np.uint8))
    engine = FailingRestorer(NEVER)
    answer = measnet_run(shots, engine=lambda: engine)
    assert answer.status == 0, answer.err
    assert "made again" in " ".join(answer.err.split())
    assert engine.frames == 12 - done + 3
    _same_pictures(shots.with_name("shots.restored"), shots)


def test_a_picture_taken_out_of_the_folder_is_not_in_the_result(measnet_run: Run, shots: Path) -> None:
    _begin_folder(measnet_run, shots)
    (shots / "03.png").unlink()
    assert measnet_run(shots).status == 0
    _same_pictures(shots.with_name("shots.restored"), shots)


def test_names_in_a_folders_manifest_lead_nowhere_else(measnet_run: Run, shots: Path) -> None:
    pictures = _begin_folder(measnet_run, shots)
    manifest = Manifest(pictures.parent / "manifest.jsonl")
    for name in ("../../shots/05.png", "..", "", "/etc/passwd", 7, None, "a\0b"):
        manifest.add({**manifest.parts[0], "name": name})
    assert measnet_run(shots).status == 0
    _same_pictures(shots.with_name("shots.restored"), shots)
