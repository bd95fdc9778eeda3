"""Checks of cameras before any of them is opened: models and places that the machine has, or has not."""

from __future__ import annotations

from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.serve.cameras import Camera, CamerasError
from measnet.runtime.sinks.aside import check_target
from measnet.runtime.sinks.containers import CONTAINERS
from measnet.runtime.sources.choose import is_live
from measnet.runtime.sources.live import CAMERA_PREFIX
from measnet.runtime.sources.standard_input import STANDARD_INPUT


def check_cameras(path: Path, cameras: list[Camera]) -> None:
    """Raises CamerasError with all that keeps ``cameras``, which ``path`` lists, from being served."""
    problems = []
    for camera in cameras:
        if not _can_be(camera.source):
            problems.append(
                f"{path}: camera {camera.name}: its source is no camera:N, no address of a kind that is "
                "read, and no file that exists"
            )
        engine = camera.options.engine
        try:
            choose_backend(engine.model, engine.backend, engine.threads)
        except UsageError as error:
            problems.append(f"{path}: camera {camera.name}: {error}")
        for sink in camera.sinks:
            if "://" in sink or Path(sink).suffix.lower() not in CONTAINERS:
                continue
            try:
                check_target(Path(sink), [], overwrite=camera.options.overwrite)
            except UsageError as error:
                problems.append(f"{path}: camera {camera.name}: {error}")
    if problems:
        raise CamerasError(problems)


def _can_be(source: str) -> bool:
    """Says whether a source is worth trying again and again."""
    if source.startswith(CAMERA_PREFIX):
        return source.removeprefix(CAMERA_PREFIX).isdecimal()
    return is_live(source) or source == STANDARD_INPUT or Path(source).exists()
