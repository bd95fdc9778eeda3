"""The log as JSON: one line on stderr for each event, and for whatever else a run has to say."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from measnet.runtime.console import Console
from measnet.runtime.live.events import Event
from measnet.runtime.operations.plain import plain
from measnet.runtime.run_report import RunReport

LogLevel = Literal["info", "warning", "error"]

_LEVELS: dict[str, LogLevel] = {"stalled": "warning", "reconnecting": "warning", "failed": "error"}
_OF_RESULT = ("input", "output", "status", "frames", "dropped", "damaged", "fps", "error")


class JsonConsole(Console):
    """Has the face of Console; writes for programs, and shows no progress.

    Each line has ``time`` (UTC), ``level``, ``kind`` and ``words``; of events ``camera``, ``values``, and
    the ``state`` that it is of.
    """

    def __init__(self, *, quiet: bool = False, stdout_taken: bool = False) -> None:
        super().__init__(quiet=True, stdout_taken=stdout_taken)
        self._errors_only = quiet
        self._writing = threading.Lock()

    def event(self, event: Event) -> None:
        level = _LEVELS.get(event.state or "", "info")
        told = {name: value for name, value in asdict(event).items() if value is not None and name != "at"}
        self._write(level, event.at, **told)

    def also(self, path: Path) -> None:
        self._write("info", kind="also", words=str(path))

    def warn(self, line: str) -> None:
        self._write("warning", kind="warning", words=line)

    def note(self, line: str) -> None:
        self._write("info", kind="note", words=line)

    def error(self, line: str) -> None:
        self._write("error", kind="error", words=" ".join(line.split()))

    def result(self, report: RunReport, again: str = "the same command") -> None:
        for line in report.warnings:
            self.warn(line)
        values = {name: getattr(report, name) for name in _OF_RESULT}
        self._write("info", kind="result", words=f"{report.input}: {report.status}", values=values)

    def _write(self, level: LogLevel, at: float | None = None, **told: Any) -> None:
        if self._errors_only and level != "error":
            return
        moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(plain({"time": time, "level": level, **told}), allow_nan=False)
        with self._writing:
            print(line, file=sys.stderr, flush=True)
