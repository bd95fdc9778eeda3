"""A desk with the files that the pages speak of."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from docs.pages import ROOT

from measnet.weights import bundled


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, golden_checkpoint: Callable[[str], Path]) -> Path:
    """A folder with the files that the documents speak of."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    for place in ("photos", "shots"):
        (folder / place).mkdir()
        for index in range(2):
            blocks = np.kron(rng.integers(30, 225, (5, 5, 3)), np.ones((30, 30, 1))).astype(np.uint8)
            cv2.imwrite(str(folder / place / f"{index}.png"), blocks)
    for name in ("photo.jpg", "noisy.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (90, 120, 3), np.uint8))
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=5:d=1", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-shortest", str(folder / "clip.mp4")], check=True)
    angles = ["-i", str(folder / "clip.mp4"), "-map", "0:v", "-map", "0:v", "-map", "0:a", "-c", "copy"]
    subprocess.run(["ffmpeg", "-v", "error", *angles, str(folder / "two-angles.mkv")], check=True)
    shutil.copy(bundled("nano", ".safetensors"), folder / "mine.safetensors")
    shutil.copy(golden_checkpoint("tiny"), folder / "epoch=149.ckpt")
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "cameras.yaml", folder / "examples")
    for name in ("car-park.mp4", "car-park.clean.mp4"):  # a piece of each; CI restores the whole clip
        piece = ["-i", str(ROOT / "examples" / name), "-vf", "crop=160:96", "-frames:v", "14", "-crf", "8"]
        subprocess.run(["ffmpeg", "-v", "error", *piece, str(folder / "examples" / name)], check=True)
    return folder
