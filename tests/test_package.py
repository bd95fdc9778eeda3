"""The wheel is whole: installed elsewhere, it restores a picture with its own weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
PACKAGES = ["src", "train", "export", "calibration", "runtime"]
INGREDIENTS = [*PACKAGES, "pyproject.toml", "README.md", "LICENSE"]


def test_an_installed_wheel_restores_a_picture_away_from_the_repository(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()  # setuptools builds inside the tree it is given: not in ours
    for name in INGREDIENTS:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                source / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)

    packages = {path.name for path in (site / "measnet").iterdir()}
    assert {"network", "train", "export", "runtime", "calibration", "evaluation", "weights"} <= packages
    assert (site / "measnet" / "train" / "recipes" / "nano.toml").is_file()
    for name in ("page.html", "dashboard.json"):
        assert (site / "measnet" / "runtime" / "operations" / name).is_file()

    cv2.imwrite(str(tmp_path / "x.png"), np.full((40, 60, 3), 90, np.uint8))
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    code = "import measnet.runtime.cli as c; assert 'site' in c.__file__; c.main()"
    subprocess.run(
        [sys.executable, "-c", code, "x.png", "--quiet"], check=True, cwd=tmp_path, env=environment
    )
    assert (tmp_path / "x.restored.png").is_file()

    stages = (
        "import measnet.runtime, measnet.export, measnet.train, measnet.calibration as c; print(c.__file__)"
    )
    for here in (tmp_path, ROOT):  # the checkout must not hide what is installed
        found = subprocess.run(
            [sys.executable, "-c", stages],
            check=True,
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert str(site) in found.stdout
