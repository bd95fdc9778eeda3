"""Lists of cameras for the tests of measnet-serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from measnet.runtime.options import RunOptions
from measnet.runtime.turns import Turns

from .identity import IdentityRestorer


def identity(options: RunOptions, turns: Turns) -> Any:
    return IdentityRestorer()


def write(path: Path, cameras: list[dict[str, Any]], **shared: Any) -> Path:
    path.write_text(
        yaml.safe_dump({"all": {"preset": "ultrafast", "threads": 1, **shared}, "cameras": cameras})
    )
    return path
