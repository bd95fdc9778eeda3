"""Checks of cameras before any of them is opened: all that a run would refuse at its beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from measnet.errors import MEASNetError
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.engine import open_restorer
from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.address import shown
from measnet.runtime.options import RunOptions
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.sinks.choose import check_sink
from measnet.runtime.sources.choose import check_source, is_live, is_on_disk
from measnet.runtime.targets import check_targets, targets_for


def problems_of(path: Path, cameras: list[Camera], *, models: bool) -> list[str]:
    """All that keeps ``cameras``, which ``path`` lists, from being served, a line each.

    With ``models`` each model is loaded, and let go of again: its tasks, its tiles and what it lacks are only
    found so. Without, it is only looked whether there is one.
    """
    loaded: dict[Any, str | None] = {}
    return [
        f"{path}:{camera.line}: camera {camera.name}: {problem}"
        for camera in cameras
        for problem in _problems(camera, models, loaded)
    ]


def _problems(camera: Camera, models: bool, loaded: dict[Any, str | None]) -> Iterator[str]:
    options, source = camera.options, camera.source
    yield from _refused(lambda: check_source(source, options.live))
    yield from _refused(options.checks.find_checkpoint)
    key = options.engine, bool(options.steady)
    if key not in loaded:
        loaded[key] = next(_refused(lambda: _find_model(options, models)), None)
    if (problem := loaded[key]) is not None:
        yield problem
    for sink in camera.sinks:
        yield from _refused(lambda sink=sink: _check_sink(camera, sink))  # type: ignore[misc]


def _find_model(options: RunOptions, models: bool) -> None:
    engine = options.engine
    if models:
        open_restorer(options).close()
    else:
        choose_backend(engine.model, engine.backend, engine.threads)


def _check_sink(camera: Camera, sink: str) -> None:
    source, options = camera.source, replace(camera.options, out=(sink,))
    live = is_live(source)
    # Of a usual camera; what a sink makes of another one shows when it is there.
    info = StreamInfo(
        shown(source), "live" if live else "video", 640, 360, Fraction(1, 90_000), rate=Fraction(25)
    )
    (target,) = targets_for(shown(source) if live else source, info, (sink,))
    files = [Path(source)] if is_on_disk(source) else []
    check_targets([target], files, overwrite=options.overwrite, parts=options.parts is not None)
    check_sink(target, info, options)


def _refused(step: Callable[[], None]) -> Iterator[str]:
    """The error of ``step``, if it has one."""
    try:
        step()
    except MEASNetError as error:
        yield str(error)
