"""Cameras as a file lists them: read, and checked with all that is wrong at once.

    all:                          # for every camera that says nothing else
      temporal: 4
    cameras:
      - name: door
        source: rtsp://viewer:${DOOR_PASSWORD}@10.0.0.5/stream
        sinks: [door.mkv]
        strength: 0.8

Options are called as on the command line of ``measnet-run``, and take the same values.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from measnet.errors import MissingPackageError, UsageError
from measnet.printable import printable
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.options import Operating, Reading, RunOptions

NOT_OF_CAMERAS = {
    *("out", "compare", "raw_out", "dry_run", "preview", "report", "restart", "verify", "verify_share"),
    *(one.name for kind in (Reading, Operating) for one in fields(kind)),
}
"""Options that are not for one camera of several."""

DEFAULTS = {"reconnect": float("inf")}
"""Options that are another thing for one camera of several: the others run anyway, so it is waited for."""

_OWN = ("name", "source", "sinks")
_LONGEST_NAME = 64
_MOST_BYTES = 1 << 20
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera: where its picture comes from, where it goes, and what is done to it."""

    name: str
    source: str
    """May hold credentials: never show it."""

    sinks: tuple[str, ...]
    options: RunOptions
    line: int = 1
    """The line of the file where it begins."""

    given: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """The options that the file gives it, by name: the line of each, and the camera or cameras it is for, in
    words."""


class CamerasError(UsageError):
    """A file of cameras that cannot be served. ``problems`` are all that was found, a line each; ``cameras``
    are those with a source and a sink, without the options that are wrong."""

    def __init__(self, problems: list[str], cameras: list[Camera] | None = None) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.cameras = cameras or []


def read_cameras(path: Path) -> list[Camera]:
    """Reads a file of cameras, in their order; the environment gives ``${NAME}`` in sources and sinks.

    Raises:
        CamerasError: anything in it is wrong.
        UsageError: it cannot be read.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise MissingPackageError("measnet-serve", "pyyaml", "live") from None
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(text) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than a list of cameras can be (1 MiB)")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise UsageError(f"{path}:{line}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(
            f"{path} is not YAML: {str(error).splitlines()[0] if str(error) else 'too deep'}"
        ) from None
    reader = _Reader(path)
    cameras = reader.cameras(root)
    if reader.problems:
        raise CamerasError([line for _, line in sorted(reader.problems)], cameras)
    return cameras


@dataclass(frozen=True, slots=True)
class _Given:
    """One option as the file gives it."""

    value: Any
    line: int
    who: str


class _Reader:
    """Goes through the nodes of one file and notes what is wrong, by line."""

    def __init__(self, path: Path) -> None:
        self.problems: list[tuple[int, str]] = []
        self._path = path
        self._options = _options_of_run()
        self._shared: dict[str, _Given] = {}

    def cameras(self, root: Any) -> list[Camera]:
        parts = {key: node for key, node, _ in self._pairs(root, "the file", ("all", "cameras"))}
        self._shared |= self._values(parts["all"], "all cameras", ()) if "all" in parts else {}
        listed: Any = parts.get("cameras")
        if not _is(listed, "sequence") or not listed.value:
            self._note(
                listed or root,
                "there are no cameras; list them under 'cameras:', each with name, source and sinks",
            )
            return []
        read = [self._camera(node, number) for number, node in enumerate(listed.value, start=1)]
        self._refuse_twins(listed.value, read)
        return [camera for camera in read if camera is not None]

    def _camera(self, node: Any, number: int) -> Camera | None:
        """Reads one; None where it has no source or no sink to look at."""
        who = f"camera {_text(_child(node, 'name')) or f'number {number}'}"
        own: dict[str, Any] = {}
        given = self._shared | self._values(node, who, _OWN, own)
        if not _is(node, "mapping"):
            return None
        for key in _OWN:
            if key not in own:
                self._note(node, f"{who} has no {key}")
        name = self._name(own["name"], who) if "name" in own else ""
        source = self._place(own["source"], f"{who}: source") if "source" in own else ""
        sinks = self._sinks(own["sinks"], who) if "sinks" in own else ()
        if not source or not sinks:
            return None
        values = DEFAULTS | {key: one.value for key, one in given.items()}
        lines = {key: (one.line, one.who) for key, one in given.items()}
        return Camera(
            name or who.removeprefix("camera "), source, sinks, RunOptions.named(values), _line(node), lines
        )

    def _values(
        self, node: Any, who: str, besides: Iterable[str], own: dict[str, Any] | None = None
    ) -> dict[str, _Given]:
        """Reads the options among a mapping's keys; nodes of the keys ``besides`` go into ``own``."""
        values = {}
        for key, value, line in self._pairs(node, who, (*besides, *self._options)):
            written = _text(line)
            if key in besides:
                assert own is not None
                own[key] = value
                continue
            text = _text(value)
            if text is None:
                self._note(line, f"{who}: {written} needs one value")
                continue
            try:
                read = self._options[key].process_value(click.Context(click.Command("cameras")), text)
                RunOptions.named({key: read})  # which refuses what makes no sense
            except click.BadParameter as error:
                self._note(line, f"{who}: {written}: {error.message}")
            except UsageError as error:
                self._note(line, f"{who}: {error}")
            else:
                values[key] = _Given(read, _line(line), who)
        return values

    def _pairs(self, node: Any, who: str, known: Iterable[str]) -> Iterator[tuple[str, Any, Any]]:
        """Gives a mapping's keys that are ``known``, with their values and their own nodes."""
        if not _is(node, "mapping"):
            self._note(node, f"{who}: this is to be a list of 'key: value' lines")
            return
        known, seen = list(known), set()
        for key_node, value in node.value:
            written = _text(key_node) or ""
            key = written.replace("-", "_")
            if key in seen:
                self._note(key_node, f"{who}: {written} stands here twice")
            elif key in known:
                yield key, value, key_node
            elif key in NOT_OF_CAMERAS:
                self._note(key_node, f"{who}: {written} is not for cameras")
            else:
                near = difflib.get_close_matches(key, known, 1)
                meant = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
                self._note(key_node, f"{who}: nothing is called {_short(written)}{meant}")
            seen.add(key)

    def _name(self, node: Any, who: str) -> str:
        name = _text(node)
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            self._note(node, f"{who}: a name is one line of up to {_LONGEST_NAME} signs")
            return ""
        return name

    def _place(self, node: Any, what: str) -> str:
        """A source or a sink, with what the environment says in place of ``${NAME}``."""
        text = _text(node)
        if not text:
            self._note(node, f"{what} needs an address, a camera or a file")
            return ""
        missing = [name for name in _VARIABLE.findall(text) if name not in os.environ]
        for name in missing:
            self._note(node, f"{what}: the environment has no {name}")
        return "" if missing else _VARIABLE.sub(lambda found: os.environ[found[1]], text)

    def _sinks(self, node: Any, who: str) -> tuple[str, ...]:
        nodes = node.value if _is(node, "sequence") else [node]
        if not nodes:
            self._note(node, f"{who}: sinks is empty; name at least one place for its picture")
        places = [self._place(one, f"{who}: sinks") for one in nodes]
        return tuple(place for place in places if place)

    def _refuse_twins(self, nodes: list[Any], cameras: list[Camera | None]) -> None:
        names: dict[str, int] = {}
        sinks: dict[str, str] = {}
        devices: dict[str, str] = {}
        for node, camera in zip(nodes, cameras, strict=True):
            name = _text(_child(node, "name"))
            if name in names:
                self._note(_child(node, "name"), f"two cameras are called {name}, see line {names[name]} too")
            elif name:
                names[name] = _line(_child(node, "name"))
            if camera is None:
                continue
            for sink in camera.sinks:
                if sink == "window":  # each has its own
                    continue
                place = sink if "://" in sink or sink == "-" else str(Path(sink).resolve())
                if place in sinks:
                    other = sinks[place]
                    both = (
                        f"{other} and {camera.name} both write"
                        if other != camera.name
                        else f"{other} writes twice"
                    )
                    self._note(_child(node, "sinks"), f"{both} to {without_secrets(sink)}")
                sinks[place] = camera.name
            alone = camera.source.replace("/dev/video", "camera:")
            if alone == "-" or alone.startswith("camera:"):
                if alone in devices:
                    told = f"{devices[alone]} and {camera.name} both read {camera.source}"
                    self._note(_child(node, "source"), f"{told}, which only one can")
                devices[alone] = camera.name

    def _note(self, node: Any, words: str) -> None:
        line = _line(node)
        self.problems.append((line, f"{self._path}:{line}: {words}"))


def _options_of_run() -> dict[str, click.Parameter]:
    """The options of ``measnet-run`` that a camera may be given, by name: they know what values they take."""
    from measnet.runtime.cli import main

    wanted = RunOptions.names().keys() - NOT_OF_CAMERAS
    return {option.name: option for option in main.params if option.name in wanted}


def _is(node: Any, kind: str) -> bool:
    return getattr(node, "id", "") == kind


def _text(node: Any) -> str | None:
    """A value as it stands in the file (``off`` is not False); None where it is no single value."""
    return str(node.value) if _is(node, "scalar") and node.tag != _NULL else None


def _child(node: Any, key: str) -> Any:
    pairs = node.value if _is(node, "mapping") else []
    return next((value for name, value in pairs if _text(name) == key), None)


def _line(node: Any) -> int:
    return 1 if node is None else int(node.start_mark.line) + 1


def _short(text: str) -> str:
    return f"'{printable(text, _LONGEST_NAME)}'"
