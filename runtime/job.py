"""One input restored into one output, from opening the source to the last figure."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from measnet.config import TONE_TASKS
from measnet.errors import InputError, MEASNetError, SourceLostError, UsageError
from measnet.runtime.engine import guard_for
from measnet.runtime.finish import Finish
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.guard import Guard
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.ladder import AtRung, Ladder, rungs
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.run_report import RunReport
from measnet.runtime.side_data import is_hdr
from measnet.runtime.sinks import Begun
from measnet.runtime.sinks.choose import open_sinks
from measnet.runtime.sinks.containers import CONTAINERS
from measnet.runtime.sinks.part_folder import Header, of_engine, of_programs
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT
from measnet.runtime.sinks.target import Target, Window
from measnet.runtime.sources.choose import is_live, is_on_disk, open_source
from measnet.runtime.sources.standard_input import STANDARD_INPUT
from measnet.runtime.stream import Observer, RunFigures, Step, pace_of, run
from measnet.runtime.targets import check_targets, targets_for
from measnet.runtime.temporal import RULE
from measnet.runtime.tiles import tiles_from
from measnet.runtime.trust import trust_seal

REHEARSED = 4
"""Frames that a rehearsal restores at most."""

REHEARSED_SECONDS = 10.0
"""It ends after these, once it has restored two."""


class Job:
    """One input on its way to its output. ``report`` fills as it goes.

    Args:
        spec: a path, ``camera:N`` or an address.
        options: what the user asked for.
        watch: hears what happens to a live source, and gets the figures of any; by default one of its own.
        stop: once set, the source is not waited for any longer.
        await_receivers: of a live source, a receiver that refuses is tried again while the rest goes on.

    Raises:
        StoppedError: ``stop`` was set before a live source had sent a picture.
        MEASNetError: the source cannot be read or the target not be written. Nothing has
            been loaded or written by then.
    """

    def __init__(
        self,
        spec: str,
        options: RunOptions,
        *,
        watch: Watch | None = None,
        stop: threading.Event | None = None,
        await_receivers: bool = False,
    ) -> None:
        self.report = RunReport(input=without_secrets(spec))
        self.watch = watch or Watch(without_secrets(spec))
        self._options = options
        self._opened = contextlib.ExitStack()
        self._source = open_source(spec, options.reading, options.live, watch=self.watch, stop=stop)
        try:
            self.info = self._source.info
            self.targets: list[Target] = targets_for(
                without_secrets(spec) if is_live(spec) else spec,
                self.info,
                options.out,
                watched=options.is_watched,
            )
            named = bool(options.out) or Path(spec).suffix.lower() in CONTAINERS
            if self.info.kind == "video" and not named:
                self._options = options = _with_sound_of_any_kind(options)
            files = _files_behind(spec)
            self._in_the_way = check_targets(
                self.targets,
                files,
                overwrite=options.overwrite,
                parts=options.parts is not None,
                rehearsal=options.dry_run,
            )
            self._source.settle_clock([t.suffix.lower() if isinstance(t, Path) else "" for t in self.targets])
            file = files[0] if is_on_disk(spec) else None
            self._sink = open_sinks(
                self.targets, self._source, file, options, self.watch, await_receivers=await_receivers
            )
        except BaseException as error:
            if is_live(spec):
                self.watch.enter("failed", str(error))
            self._source.close()
            raise
        self._ladder: Ladder | None = None
        depth = 0 if self.info.kind == "images" else options.temporal
        self._finish_step = Finish(
            depth,
            options.strength,
            ahead=self.info.kind == "video",  # a live source would be late by a frame
            sure=options.engine.task in TONE_TASKS,
            intra=self.info.intra,
        )
        self._describe(spec)

    def run(
        self,
        restorer: Restorer,
        stop: threading.Event,
        observers: Sequence[Observer] = (),
        on_progress: Callable[[RunFigures], None] = lambda figures: None,
        on_note: Callable[[str], None] = lambda line: None,
        smaller: tuple[str, Callable[[], Restorer]] | None = None,
    ) -> RunReport:
        """Restores it all, or what an earlier run left of it; on ``stop`` keeps what there is.

        ``smaller`` names a smaller model, and opens it, for when the engine cannot keep to ``--max-latency``;
        it is closed here.

        Raises:
            MEASNetError: something failed on the way; no output is left behind, save what the same
                command goes on with.
            SourceLostError: a live source stayed away; the output is there, up to then.
            ParityError: the output is there, but the engine strays from the reference.
        """
        guard = self._guarded(restorer)
        if self.info.kind != "live":  # a live source says so itself
            self.watch.telemetry.enter("running")
        try:
            self._begin(guard, on_note)
            live = self._options.live
            first: Step = guard
            if live.ladder and live.max_latency is not None:
                name, opens = smaller or (None, None)
                self._ladder = Ladder(live.max_latency, self.watch, rungs(name))
                opened = None if opens is None else partial(self._opened_and_guarded, opens)
                first = AtRung(guard, self._ladder, self.watch, opened)
            figures = run(
                self._source,
                (first, self._finish_step) if self._finish_step.is_needed else (first,),
                self._sink,
                observers=observers,
                on_progress=on_progress,
                stop=stop,
                limit=self._options.frames,
                pace=pace_of(self.info.kind, live.late, live.max_latency),
                resumed_at=self.report.resumed_at,
                watch=self.watch,
                ladder=self._ladder,
            )
            self._finish(figures)
            if self.info.kind != "live":
                self.watch.telemetry.enter("ended")
        except BaseException as error:
            self._tell_how_to_go_on(error)
            self.report.error = str(error)
            self._fail(error)
            raise
        finally:
            self._sink.abort()
            self._source.close()
            self._fill_live()
            self._gather(guard)
            self.report.faults = guard.faults.for_report()
            if self._finish_step.fusion is not None:
                self.report.temporal = self._finish_step.fusion.figures.for_report()
            self._opened.close()
            for observer in observers:
                observer.fill(self.report)
        for observer in observers:
            observer.conclude(self.report)
        if self._source.lost is not None:
            self.report.error = f"{self._source.lost}; {self.report.output} has what it sent until then"
            raise SourceLostError(self.report.error)
        return self.report

    def _guarded(self, restorer: Restorer) -> Guard:
        """Guards it for the frames to come, as long as the job runs."""
        try:
            guard = guard_for(restorer, self._options, self.info)
            return self._opened.enter_context(contextlib.closing(guard))
        except BaseException as error:
            self.report.error = str(error)
            self.close()
            raise

    def _opened_and_guarded(self, opens: Callable[[], Restorer]) -> Guard:
        return self._guarded(self._opened.enter_context(opens()))

    def rehearse(self, restorer: Restorer, seconds: float = REHEARSED_SECONDS) -> RunReport:
        """Restores a few frames, for about so many seconds, to see what the run would take; writes nothing.

        Raises:
            MEASNetError: the source or the engine fails on them.
        """
        report, taken = self.report, list[float]()
        guard = self._guarded(restorer)
        try:
            if self._sink.resumable:
                header = self._header(guard)
                begun = self._sink.begun_before(header, restart=self._options.restart)
                self._go_on(begun, header, guard)
            items = (item for item in self._source.read() if isinstance(item, Frame))
            for frame in itertools.islice(items, REHEARSED):
                started = time.perf_counter()
                passing = Restoration(frame, frame.pixels)
                guard.take(passing)
                self._finish_step.take(passing)
                taken.append(time.perf_counter() - started)
                report.largest_tile_count = max(report.largest_tile_count, passing.tiles)
                if len(taken) >= 2 and sum(taken) > seconds:
                    break
            self._gather(guard)
            report.warnings += self._in_the_way
        except BaseException as error:
            report.error = str(error)
            raise
        finally:
            self.close()
        if not taken:
            raise InputError(f"{report.input}: no frame came through")
        # The first frame of a size also pays for what is prepared once.
        report.fps = round(1 / statistics.median(taken[1:] or taken), 3)
        report.status = "planned"
        report.output = ", ".join(map(str, self.targets))
        length = self.length
        if length is not None:
            report.seconds = {"expected": round((length - report.resumed_at) / report.fps, 1)}
        return report

    @property
    def target(self) -> Target:
        """The first of its results."""
        return self.targets[0]

    @property
    def files(self) -> list[Path]:
        """Results that become files or folders."""
        return [target for target in self.targets if isinstance(target, Path) and target != STANDARD_OUTPUT]

    @property
    def length(self) -> int | None:
        """Frames that the result is to have, where that is known."""
        lengths = [length for length in (self.info.frames, self._options.frames) if length is not None]
        # A live stream goes on until it has been asked for enough.
        return min(lengths, default=None)

    @property
    def again(self) -> str:
        """The command that goes on with what this one has kept, in words."""
        return "the same command without --restart" if self._options.restart else "the same command"

    def close(self) -> None:
        """Gives up a job that will not run."""
        self._sink.abort()
        self._source.close()
        self._opened.close()

    def _begin(self, guard: Guard, on_note: Callable[[str], None]) -> None:
        """Takes up what an earlier run of the same command left, if it left anything."""
        if not self._sink.resumable:
            return
        header = self._header(guard)
        begun = self._sink.begin(header, restart=self._options.restart)
        self._go_on(begun, header, guard)
        if begun.frames:
            self._source.skip(begun.frames, begun.names)
            of_all = f" of {self.length}" if self.length else ""
            on_note(f"{self.target}: going on at frame {begun.frames}{of_all}")

    def _go_on(self, begun: Begun, header: Header, guard: Guard) -> None:
        """Has the steps go on as the run that began it ended. Raises UsageError where they cannot."""
        self._use_tiles_of(begun, header, guard)
        if not begun.frames:
            return
        self.report.resumed_at = begun.frames
        try:
            guard.go_on_at(begun.frames, begun.mark.state)
            self._finish_step.go_on(begun.mark.past)
        except ValueError as error:
            raise UsageError(
                f"{self.target} cannot go on at frame {begun.frames} ({error}); add --restart to begin anew"
            ) from None

    def _use_tiles_of(self, begun: Begun, header: Header, guard: Guard) -> None:
        if "tiles" not in header.settings:
            return
        height, width = self.info.height, self.info.width
        tiles = tiles_from(begun.settings.get("tiles"), height, width)
        if tiles is None:
            raise UsageError(f"what was begun of {self.target} is damaged; add --restart to begin anew")
        guard.engine.use_tiles(height, width, tiles)

    def _header(self, guard: Guard) -> Header:
        """The manifest's head: the inputs of the result, and settings that a run which goes on takes over."""
        options, description = self._options, guard.description
        made_of, settings = self._sink.made_of(), self._sink.settings()
        if self.info.kind == "video":
            made_of |= options.reading.as_given()
            tiles = guard.engine.tiles_for(self.info.height, self.info.width)
            settings["tiles"] = [[t.top, t.left, t.height, t.width] for t in tiles]
        made_of |= of_engine(description) | {
            "--tile": options.engine.tile,
            "--threads": options.engine.threads,
            "--strength": options.strength,
            "--frames": options.frames,
            "--on-fault": options.checks.on_fault,
            "--task": description.get("task"),
            "--steady": description.get("steady"),
            "--temporal": options.temporal if self.info.kind != "images" else None,
        }
        if self._finish_step.fusion is not None:
            made_of["fusion of frames"] = f"{RULE} {trust_seal()}"
        return Header(made_of | of_programs(), settings)

    def _tell_how_to_go_on(self, error: BaseException) -> None:
        """Adds to an error where the same command would go on, if it kept frames and could succeed."""
        self.report.kept = self._sink.kept()
        if self.report.kept and isinstance(error, MEASNetError) and not isinstance(error, UsageError):
            error.args = (f"{error}; {self.again} then goes on at frame {self.report.kept}",)

    def _finish(self, figures: RunFigures) -> None:
        # Being stopped is how a live recording ends; only a file can be left unfinished.
        partial = figures.stopped and self.info.kind != "live"
        started = time.perf_counter()
        output = self._sink.finish(partial=partial)
        flushing = time.perf_counter() - started
        report = self.report
        report.frames = figures.position
        report.dropped = figures.dropped
        report.largest_tile_count = figures.most_tiles
        report.fps = round(figures.fps, 3)
        report.seconds = {
            "decode": round(figures.seconds["decode"], 4),
            "restore": round(figures.seconds["restore"], 4),
            "temporal": round(figures.seconds["temporal"], 4),
            "encode": round(figures.seconds["encode"] + flushing, 4),
            "verify": 0.0,
            "total": round(figures.seconds_total + flushing, 4),
        }
        if output is None and not figures.stopped:
            raise InputError(f"{report.input}: no frame came through; nothing was written")
        report.status = "partial" if partial else "complete"
        if partial:
            report.kept = self._sink.kept()
        if output is not None:
            report.output = str(output)
            if isinstance(output, Path) and output.is_file():
                report.output_bytes = output.stat().st_size

    def _fail(self, error: BaseException) -> None:
        if self.info.kind == "live":
            self.watch.enter("failed", str(error))
        else:
            self.watch.telemetry.enter("failed")

    def _fill_live(self) -> None:
        """Tells how a live source came and went, and how late its frames were."""
        if self.info.kind != "live":
            return
        figures, latency = self.watch.telemetry.figures(), self.watch.telemetry.latency()
        self.report.live = {
            "state": figures.state,
            "decoded": figures.frames_in,
            "dropped": figures.dropped,
            "latency": latency and {name: round(value, 4) for name, value in asdict(latency).items()},
            "reconnects": figures.reconnects,
            "outage_seconds": round(figures.outage_seconds, 3),
            **self._source.for_report(),
            "ladder": [] if self._ladder is None else self._ladder.for_report(),
        }

    def _gather(self, guard: Guard) -> None:
        report = self.report
        report.damaged = self._source.damaged
        report.truncated = self._source.truncated
        report.skipped = self._sink.skipped
        report.sinks = self._sink.figures()
        report.engine = guard.description
        report.warnings = [*self._source.warnings, *self._sink.warnings]
        ignored = ", ".join(self._options.encoding.asked_of_pictures())
        if ignored and self.info.kind == "images":
            report.warnings.append(
                f"{ignored}: of videos alone; the kind of a picture's file says how it is stored"
            )
        elif ignored and all(target in (STANDARD_OUTPUT, Window()) for target in self.targets):
            report.warnings.append(f"{ignored}: of files alone; bare pixels of 8 bits go down a pipe")
        if self.info.bits > 8 and report.engine.get("io") == "uint8-nhwc":
            report.warnings.append(
                f"the model takes 8 bits per channel, so the source's {self.info.bits} were rounded; one "
                "exported with --io nchw restores them all"
            )

    def _describe(self, spec: str) -> None:
        info, report = self.info, self.report
        report.kind = info.kind
        report.width, report.height = info.width, info.height
        report.expected_frames = self.length
        path = Path(spec)
        if is_on_disk(spec) and path.is_file():
            report.input_bytes = path.stat().st_size
        report.source = {
            "pixel_format": info.pixel_format,
            "bits": info.bits,
            "time_base": str(info.time_base),
            "rate": str(info.rate) if info.rate else None,
            "colour": asdict(info.colour),
            "hdr": is_hdr(info.colour),
            "sample_aspect": str(info.sample_aspect) if info.sample_aspect else None,
            "display_matrix": info.display_matrix,
            "copied_streams": [stream.type for stream in info.copied],
        }
        report.encoding = self._sink.for_report()


def _with_sound_of_any_kind(options: RunOptions) -> RunOptions:
    """``options`` for a result whose container nobody has chosen: sound that it cannot hold is converted."""
    if options.encoding.sound != "copy":
        return options
    return replace(options, encoding=replace(options.encoding, sound="convert"))


def _files_behind(spec: str) -> list[Path]:
    """Finds what of an input lies on disk."""
    if spec == STANDARD_INPUT:
        return [Path("/dev/stdin")]  # the file that was redirected into it, if one was
    return [Path(spec)] if is_on_disk(spec) else []
