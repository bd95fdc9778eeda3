"""What a rehearsal found, in words: what the run would write, with what, and in what time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from measnet.runtime.run_report import RunReport


def plan_lines(report: RunReport) -> list[str]:
    """What would be done with one input."""
    lines = [_what_where_when(report)]
    if report.encoding:
        lines.append(f"  picture: {_encoding(report.encoding)}")
        lines.append(f"  with it: {_beside(report.source)}")
    lines.append(f"  restored by {_engine(report)}")
    lines += [f"  also: {other}" for other in report.also]
    return lines


def plan_of_all(reports: list[RunReport]) -> str | None:
    """What several inputs would take together; None where none of them can be restored."""
    planned = [report for report in reports if report.status == "planned"]
    if not planned:
        return None
    known = [report.seconds["expected"] for report in planned if "expected" in report.seconds]
    line = "1 input" if len(planned) == 1 else f"{len(planned)} inputs"
    if known:
        line += f": about {_duration(sum(known))} in all"
    if len(known) < len(planned):
        line += f", and {len(planned) - len(known)} of unknown length"
    return line


def _what_where_when(report: RunReport) -> str:
    frames = "frames" if report.expected_frames is None else f"{report.expected_frames} frames"
    if report.expected_frames == 1:
        frames = "1 frame"
    # A folder's pictures may differ in size.
    size = f"{frames} of {report.width}x{report.height}" if report.width else frames
    if report.largest_tile_count > 1:
        size += f" in {report.largest_tile_count} tiles each"
    if report.resumed_at:
        size += f", going on at frame {report.resumed_at}"
    pace = f"{report.fps:.2g} frames a second"
    expected = report.seconds.get("expected")
    if expected is not None:
        pace = f"about {_duration(expected)} at {pace}"
    return f"{report.input} -> {report.output}: {size}, {pace}; nothing was written"


def _encoding(encoding: dict[str, Any]) -> str:
    effort = [encoding["encoder"]]
    if encoding["crf"] is not None:
        effort.append(f"CRF {encoding['crf']}")
    if encoding["preset"]:
        effort.append(f"preset {encoding['preset']}")
    size = f"{encoding['width']}x{encoding['height']}"
    return ", ".join([*effort, size, f"{encoding['bits']} bits ({encoding['pixel_format']})"])


def _beside(source: dict[str, Any]) -> str:
    """The streams that are copied, each kind with its number."""
    counted: Counter[str] = Counter(source["copied_streams"])
    names = {"audio": "sound", "subtitle": "subtitles", "attachment": "attachments"}
    return (
        ", ".join(
            names.get(kind, kind) + (f" ({count} streams)" if count > 1 else "")
            for kind, count in counted.items()
        )
        or "no sound, no subtitles: the source has none"
    )


def _engine(report: RunReport) -> str:
    engine = report.engine
    known = [engine[key] for key in ("model", "precision", "backend", "provider") if engine.get(key)]
    whole = "whole frames" if report.largest_tile_count <= 1 else f"{report.largest_tile_count} tiles a frame"
    return ", ".join([*map(str, known), whole])


def _duration(seconds: float) -> str:
    """4 s, 2 min 5 s, 3 h 20 min."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
