"""Checks of cameras before any of them is opened: all that a run would refuse at its beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from measnet.errors import MEASNetError, UsageError
from measnet.runtime.backends.choice import choose_backend
from measnet.runtime.engine import open_restorer
from measnet.runtime.frame import StreamInfo
from measnet.runtime.idle_options import idle_options
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.options import Encoding, RunOptions
from measnet.runtime.serve.cameras import Camera
from measnet.runtime.sinks.choose import check_sink
from measnet.runtime.sinks.target import Target
from measnet.runtime.sources.choose import check_source, is_live, is_on_disk, is_picture
from measnet.runtime.targets import check_targets, targets_for


def problems_of(path: Path, cameras: list[Camera], *, models: bool) -> list[str]:
    """Lists all that keeps ``cameras``, which are in the file ``path``, from being served, a line each.

    With ``models`` each model is loaded and closed again, as only that shows its tasks, its tiles and missing
    packages. Without, models only have to exist.
    """
    loaded: dict[Any, str | None] = {}
    found = _idle(cameras)
    for camera in cameras:
        found += [(camera.line, f"camera {camera.name}: {one}") for one in _problems(camera, models, loaded)]
    return [f"{path}:{line}: {words}" for line, words in dict.fromkeys(found)]


def _idle(cameras: list[Camera]) -> list[tuple[int, str]]:
    """Options that have no effect on any camera they are given to, each with its line."""
    given: dict[tuple[int, str, str], list[str | None]] = {}
    for camera in cameras:
        idle = idle_options(replace(camera.options, out=camera.sinks), [camera.source])
        for name, place in camera.given.items():
            given.setdefault((*place, name), []).append(idle.get(name))
    return [
        (line, f"{who}: {words[0]}; leave it away, or add that")
        for (line, who, _), words in sorted(given.items())
        if all(words)
    ]


def _problems(camera: Camera, models: bool, loaded: dict[Any, str | None]) -> Iterator[str]:
    options, source = camera.options, camera.source
    yield from _refused(lambda: _check_source(source, options))
    yield from _refused(options.checks.find_checkpoint)
    key = options.engine, bool(options.steady)
    if key not in loaded:
        loaded[key] = next(_refused(lambda: _find_model(options, models)), None)
    if (problem := loaded[key]) is not None:
        yield problem
    for sink in camera.sinks:
        yield from _problems_of_sink(camera, sink)


def _check_source(source: str, options: RunOptions) -> None:
    check_source(source, options.live)
    if is_on_disk(source) and (Path(source).is_dir() or is_picture(Path(source))):
        raise UsageError(
            f"{source} is no camera and no video; pictures are restored by: measnet-run {source}"
        )


def _find_model(options: RunOptions, models: bool) -> None:
    engine = options.engine
    if models:
        open_restorer(options).close()
    else:
        choose_backend(engine.model, engine.backend, engine.threads)


def _problems_of_sink(camera: Camera, sink: str) -> Iterator[str]:
    source, options = camera.source, replace(camera.options, out=(sink,))
    live = is_live(source)
    # Of a usual camera; what a sink makes of another one shows when it is there.
    info = StreamInfo(
        without_secrets(source), "live" if live else "video", 640, 360, Fraction(1, 90_000), rate=Fraction(25)
    )
    try:
        (target,) = targets_for(without_secrets(source) if live else source, info, (sink,))
    except MEASNetError as error:
        yield str(error)
        return
    files = [Path(source)] if is_on_disk(source) else []
    parts = options.parts is not None
    yield from _refused(lambda: check_targets([target], files, overwrite=options.overwrite, parts=parts))
    yield from _problems_of_encoding(target, info, options)


def _problems_of_encoding(target: Target, info: StreamInfo, options: RunOptions) -> Iterator[str]:
    def tried(**asked: Any) -> str | None:
        encoding = Encoding(sound=options.encoding.sound, **asked)
        return next(_refused(lambda: check_sink(target, info, replace(options, encoding=encoding))), None)

    asked = {name: value for name, value in asdict(options.encoding).items() if name != "sound"}
    if (refused := tried(**asked)) is None:
        return
    # That is the first that it met with; each option by itself may have more to say, but for want of a codec.
    codec = asked.pop("codec")
    if (no_codec := tried(codec=codec)) is not None:
        yield from dict.fromkeys([no_codec, refused])
    else:
        alone = [tried(codec=codec, **{name: value}) for name, value in asked.items()]
        yield from [words for words in alone if words is not None] or [refused]


def _refused(step: Callable[[], object]) -> Iterator[str]:
    """The error of ``step``, if it has one."""
    try:
        step()
    except MEASNetError as error:
        yield str(error)
