"""Words of a run in a terminal: warnings, the figures at the end, and the plan that a rehearsal found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import Progress, TextColumn

from measnet.damage import SOUND
from measnet.printable import printable
from measnet.runtime.comparison import Layout
from measnet.runtime.live.events import Event
from measnet.runtime.preview import Preview
from measnet.runtime.progress import Bars, Overall
from measnet.runtime.run_report import RunReport
from measnet.runtime.stream import RunFigures
from measnet.runtime.terminal import NoScreenError, Terminal

WORTH_SAYING = 0.05
"""Less of a kind of damage than this is not said."""


class Console:
    """Writes for people, to stderr, so that stdout stays free; the result's path goes there.

    Args:
        quiet: only errors.
        stdout_taken: the result itself goes to stdout: nothing else may.
    """

    def __init__(self, *, quiet: bool = False, stdout_taken: bool = False) -> None:
        self._quiet = quiet
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._out = RichConsole(stderr=stdout_taken, highlight=False, soft_wrap=True)

    @property
    def is_read(self) -> bool:
        """Says whether people read what it notes."""
        return not self._quiet

    def preview(self, layout: Layout) -> Preview | None:
        """A preview in this terminal; where there can be none a line says why."""
        if self._quiet:
            return None
        try:
            return Preview(Terminal(self._err), layout)
        except NoScreenError as error:
            self.note(f"no preview: {error}; --console 8080 shows it in a browser")
            return None

    @contextmanager
    def progress(
        self,
        name: str,
        total: int | None,
        *,
        overall: Overall | None = None,
        preview: Preview | None = None,
    ) -> Iterator[Callable[[RunFigures], None]]:
        """Shows a bar for one input, and one over all; yields a function that takes the figures so far."""
        picture = None if preview is None else preview.screen
        with Bars(self._err, name, total, overall=overall, picture=picture, silent=self._quiet) as bars:

            def update(figures: RunFigures) -> None:
                bars.update(figures)
                if preview is not None:
                    preview.draw()

            yield update
            if preview is not None:
                preview.end()

    @contextmanager
    def counting(self, name: str) -> Iterator[Callable[[int], None]]:
        """Counts frames of something made after the run; yields a function that takes their number."""
        hidden = self._quiet or not self._err.is_terminal
        columns = (TextColumn("{task.description}"), TextColumn("{task.completed:.0f} frames"))
        with Progress(*columns, console=self._err, transient=True, disable=hidden) as bar:
            task = bar.add_task(_safe(name), total=None)
            yield lambda frames: bar.update(task, completed=frames)

    def event(self, event: Event) -> None:
        """Says in a line what happened to a camera. Frames dropped and failures are said elsewhere."""
        if event.kind != "late" and event.state != "failed":
            self.note(f"{event.camera}: {event.words}")

    def also(self, path: Path) -> None:
        """Names a further file that was made."""
        if not self._quiet:
            self._out.print(f"  {_safe(path)}")

    def warn(self, line: str) -> None:
        """Prints a line on something unexpected."""
        if not self._quiet:
            self._err.print(f"[yellow]warning:[/yellow] {_safe(line)}")

    def note(self, line: str) -> None:
        """Prints a line on the state of things."""
        if not self._quiet:
            self._err.print(_safe(line))

    def error(self, line: str) -> None:
        """The one line a failed run ends with."""
        self._err.print(f"[red]error:[/red] {_safe(line)}")

    def rehearsed(self, reports: list[RunReport]) -> None:
        """Tells what all inputs would take together."""
        line = rehearsals_together(reports)
        if not self._quiet and line is not None:
            self._out.print(_safe(line))

    def result(self, report: RunReport, again: str = "the same command") -> None:
        """Says where the result lies, its key figures, and that ``again`` goes on where it is partial."""
        for line in report.warnings:
            self.warn(line)
        if self._quiet:
            return
        if report.status == "planned":
            for line in rehearsal_lines(report):
                self._out.print(_safe(line))
            return
        if report.output is None:
            self._out.print(f"{_safe(report.input)}: stopped before the first frame was written")
            return
        self._out.print(f"{_safe(report.output)}  {_figures(report)}")
        if report.kept:
            self._out.print(f"  {_safe(again)} goes on at frame {report.kept}")
        elif report.status == "partial":
            self._out.print(f"  nothing is kept to go on from: {_safe(again)} begins anew")
        if report.faults is not None:
            self.warn(_faults(report.faults))
        if report.verify is not None:
            self._out.print(f"  {_safe(_parity(report.verify))}")
        if report.experts is not None and "damage" in report.experts:
            self._out.print(f"  {_safe(_seen(report.experts['damage']))}")


def _safe(words: object) -> str:
    """As rich prints it as it is."""
    return escape(printable(words))


def _figures(report: RunReport) -> str:
    parts = [f"{report.frames} frames" if report.frames != 1 else "1 frame"]
    if report.resumed_at:
        parts.append(f"{report.resumed_at} of them by an earlier run")
    if report.frames > report.resumed_at + 1:
        parts.append(f"{report.fps:.1f} fps")
    for count, what in (
        (report.damaged, "damaged"),
        (report.skipped, "skipped"),
        (report.dropped, "dropped"),
    ):
        if count:
            parts.append(f"{count} {what}")
    if report.status == "partial":
        parts.insert(0, "partial")
    if report.largest_tile_count > 1:
        parts.append(f"in {report.largest_tile_count} tiles")
    return ", ".join(parts)


def _seen(damage: dict[str, float]) -> str:
    """Lists the damage that was seen in the frames, the most of it first."""
    largest = sorted(damage.items(), key=lambda item: -item[1])
    return "seen: " + ", ".join(
        f"{'undamaged' if name == SOUND else name} {100 * share:.0f} %"  # sound is what is heard, to people
        for name, share in largest
        if share >= WORTH_SAYING
    )


def _faults(faults: dict[str, Any]) -> str:
    """Tells of faults in one line."""
    line = f"frame {faults['first']} came back wrong: {faults['what']}"
    if faults["fallback"] is not None:
        return f"{line}; from there on {faults['fallback']['backend']} in float32 restored"
    return f"{line}; {faults['frames']} frames were, and were written as they came"


def _parity(verify: dict[str, Any]) -> str:
    """Tells all three figures of ``--verify``."""
    verdict = "passed" if verify["passed"] else "FAILED"
    level = "identical" if verify["psnr_db"] is None else f"PSNR {verify['psnr_db']:.1f} dB"
    reference = "PyTorch" if verify["reference"] == "torch" else "the float32 graph"
    frames = "1 frame" if verify["frames"] == 1 else f"{verify['frames']} frames"
    line = (
        f"parity with {reference} {verdict} on {frames}: {level}, largest difference "
        f"{verify['largest_difference']:.1g} of 1, experts agree on {verify['experts_agree']:.3%} of pixels"
    )
    if verify["left_out"]:
        line += f"; left out to keep to --verify-share: {verify['left_out']}"
    return line


def rehearsal_lines(report: RunReport) -> list[str]:
    """Tells what would be done with one input."""
    lines = [_what_where_when(report)]
    if report.encoding:
        lines.append(f"  picture: {_written_as(report.encoding)}")
        lines.append(f"  with it: {_copied(report)}")
    lines.append(f"  restored by {_restored_by(report)}")
    lines += [f"  also: {other}" for other in report.also]
    return lines


def rehearsals_together(reports: list[RunReport]) -> str | None:
    """Tells what several inputs would take together; None where none of them can be restored."""
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


def _written_as(encoding: dict[str, Any]) -> str:
    effort = [encoding["encoder"]]
    if encoding["crf"] is not None:
        effort.append(f"CRF {encoding['crf']}")
    if encoding["preset"]:
        effort.append(f"preset {encoding['preset']}")
    size = f"{encoding['width']}x{encoding['height']}"
    return ", ".join([*effort, size, f"{encoding['bits']} bits ({encoding['pixel_format']})"])


def _copied(report: RunReport) -> str:
    """The streams that come along, each kind with its number."""
    there = report.source["copied_streams"]
    counted: Counter[str] = Counter(report.encoding.get("copied_streams", there))
    names = {"audio": "sound", "subtitle": "subtitles", "attachment": "attachments"}
    return ", ".join(
        names.get(kind, kind) + (f" ({count} streams)" if count > 1 else "")
        for kind, count in counted.items()
    ) or (
        "nothing of the source's sound and subtitles"
        if there
        else "no sound, no subtitles: the source has none"
    )


def _restored_by(report: RunReport) -> str:
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
