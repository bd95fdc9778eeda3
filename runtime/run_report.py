"""All of a run's figures, for people and for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from measnet.errors import UsageError
from measnet.image_header import IMAGE_ENDINGS
from measnet.whole_file import check_place, write_whole

Status = Literal["complete", "partial", "failed", "planned"]


@dataclass(slots=True)
class RunReport:
    """One input's way to its output.

    Sizes are in bytes and pixels, times in seconds. ``frames`` were restored and written;
    ``frames`` counts those of an earlier run too, where this one went on at frame ``resumed_at``.
    ``kept`` are frames that the same command need not restore again, of a run that was stopped or failed.
    ``expected_frames`` is what the source declared, where it did, up to ``--frames``. ``damaged`` could not
    be decoded, ``dropped`` were overtaken by newer ones (live sources), ``skipped`` could not be
    placed in the output. ``largest_tile_count`` is 1 when every frame went through whole.
    ``encoding`` is how a video's picture is written: encoder, crf, preset, width, height, bits, pixel format.
    ``sinks`` says of each result of a live source how many frames it was given, how many it was too slow or
    away for, and how often it failed.
    ``also`` names what else a ``planned`` run would do.
    ``verify`` has the figures of ``--verify``; ``faults`` what was wrong with frames as they came back, if
    anything was. ``temporal`` says, of a video whose frames helped each other, how many frames a fused one
    was worth, and why the past was let go. ``experts`` says who restored the frames, over time
    (docs/experts.md). ``live`` says, of a camera or a stream, how it came and went (docs/live.md).
    ``error`` is the line a failed run ended with.
    A ``planned`` run wrote nothing: ``output`` is where it would write, ``fps`` was measured on the
    first few frames, and ``seconds`` has what all of them would take as ``expected``.
    """

    input: str
    output: str | None = None
    status: Status = "failed"
    kind: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    resumed_at: int = 0
    kept: int = 0
    expected_frames: int | None = None
    damaged: int = 0
    dropped: int = 0
    skipped: int = 0
    truncated: bool = False
    fps: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    input_bytes: int | None = None
    output_bytes: int | None = None
    source: dict[str, Any] = field(default_factory=dict)
    encoding: dict[str, Any] = field(default_factory=dict)
    sinks: list[dict[str, Any]] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    largest_tile_count: int = 0
    verify: dict[str, Any] | None = None
    faults: dict[str, Any] | None = None
    temporal: dict[str, Any] | None = None
    experts: dict[str, Any] | None = None
    live: dict[str, Any] | None = None
    also: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


def check_report(path: Path, read: Iterable[str | None]) -> None:
    """Raises UsageError where ``--report`` could not be written at ``path``, could replace a result, or would
    replace one of the files that are ``read``."""
    from measnet.runtime.sinks.containers import CONTAINERS

    if path.suffix.lower() in (*CONTAINERS, *IMAGE_ENDINGS, ".svg"):
        raise UsageError(
            f"--report {path} is called like a picture or a video, which it could replace; a report is "
            "JSON: give it a name such as run.json"
        )
    check_place(path, "--report", read)


def write_reports(path: Path, reports: list[RunReport]) -> None:
    """Write ``{"runs": [...]}`` as JSON; the file is there whole or not at all.

    Raises OutputError.
    """
    content = json.dumps({"runs": [asdict(report) for report in reports]}, indent=2) + "\n"
    write_whole(path, content)


def write_pictures(path: Path, reports: list[RunReport]) -> list[Path]:
    """Write a picture of each run's experts over time beside the report at ``path``: ``run.json`` gets
    ``run.svg``, and with several runs ``run.1.svg``, ``run.2.svg``, as they are counted there. Runs of fewer
    than two frames get none. Each report is told its own; returns them all.

    Raises OutputError.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where its cache is, or is not
    written = []
    for number, report in enumerate(reports, start=1):
        if report.experts is None or report.experts["frames"] < 2:
            continue
        from measnet.runtime.experts_picture import draw  # takes a second to import

        stem = path.stem
        target = path.with_name(f"{stem}.{number}.svg" if len(reports) > 1 else f"{stem}.svg")
        name = f"{Path(report.input).name}, restored by {report.engine.get('variant', 'its engine')}"
        write_whole(target, draw(name, report.experts))
        report.experts["picture"] = target.name
        written.append(target)
    return written
