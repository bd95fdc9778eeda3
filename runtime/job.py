"""One input restored into one output, from opening the source to the last figure."""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from measnet.errors import BackendError, InputError, MEASNetError, ParityError, UsageError
from measnet.runtime.frame import Frame, Pixels
from measnet.runtime.hdr import is_hdr
from measnet.runtime.options import RunOptions
from measnet.runtime.pipeline import RunFigures, run
from measnet.runtime.report import RunReport
from measnet.runtime.resume import of_engine, of_input, of_programs
from measnet.runtime.sinks import ResumableSink, Sink
from measnet.runtime.sinks.aside import check_target
from measnet.runtime.sinks.image_folder import ImageFolderSink
from measnet.runtime.sinks.images import ImageSink
from measnet.runtime.sinks.manifest import Header
from measnet.runtime.sinks.segment import FRAMES, LARGEST_STATE
from measnet.runtime.sinks.segmented import MOST_THREADS, SegmentedVideoSink
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT, StandardOutput
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources import Source
from measnet.runtime.sources.choose import is_on_disk, open_source
from measnet.runtime.sources.images import Images
from measnet.runtime.sources.standard_input import STANDARD_INPUT
from measnet.runtime.sources.video import VideoFile
from measnet.runtime.targets import target_for
from measnet.runtime.temporal import TemporalFusion
from measnet.runtime.tiles import Tile, tiles_from

REHEARSED = 4
"""Frames that a rehearsal restores at most."""

REHEARSED_SECONDS = 10.0
"""It ends after these, once it has restored two."""


class Restored(Protocol):
    """One restored picture: ``pixels`` H×W×3 RGB as it was given, put together from ``tiles`` parts."""

    @property
    def pixels(self) -> Pixels: ...
    @property
    def tiles(self) -> int: ...


class Engine(Protocol):
    """What restores: the part of Restorer a job needs. ``plan`` says into which tiles pictures of a size are
    cut, ``hold`` settles it."""

    @property
    def description(self) -> dict[str, Any]: ...
    def restore(self, pixels: Pixels, /) -> Restored: ...
    def plan(self, height: int, width: int) -> list[Tile]: ...
    def hold(self, height: int, width: int, tiles: list[Tile]) -> None: ...


@runtime_checkable
class Stateful(Protocol):
    """What an engine may have besides, if its results depend on the frames before.

    A run that was cut off goes on at the end of a segment (96 frames of a video; the pictures of a folder
    are independent of each other). What the engine has to know there of the frames before is stored with the
    segment, just under 4 MiB at most, and checked by its SHA-256 when it is read.

    ``state`` is called after the segment's last frame, and gives bytes that are not empty. ``set_state`` is
    called before the first frame of a run that goes on, on an engine that is new: the same frames must then
    give the same results. It raises ValueError for bytes that ``state`` cannot have given.
    """

    def state(self) -> bytes: ...
    def set_state(self, state: bytes, /) -> None: ...


class CountingEngine(Engine, Protocol):
    """An engine that speaks of frames by their numbers: the part of Guard a job needs. ``state`` is what a
    later run has to know of the frames so far, if anything. ``go_on_at`` says which frame, from 0, comes
    next, and what ``state`` was before it; raises ValueError."""

    def state(self) -> bytes | None: ...
    def go_on_at(self, frame: int, state: bytes | None) -> None: ...


class Checker(Protocol):
    """What compares restored pictures with the reference: the part of Verifier a job needs. ``check`` gives
    False for one that it left out."""

    @property
    def figures(self) -> dict[str, Any]: ...
    def check(self, pixels: Pixels, restored: Any, /) -> Any: ...


class Record(Protocol):
    """What keeps account of every frame: the part of Experts a job needs."""

    def look(self, source: Frame, result: Frame, restored: Any, /, *, verified: bool) -> None: ...
    def for_report(self) -> dict[str, Any] | None: ...


class Job:
    """One input on its way to its output. ``report`` fills as it goes.

    Args:
        spec: a path, ``camera:N`` or an address.
        options: what the user asked for.

    Raises:
        MEASNetError: the source cannot be read or the target not be written. Nothing has
            been loaded or written by then.
    """

    def __init__(self, spec: str, options: RunOptions) -> None:
        self.report = RunReport(input=spec)
        self._options = options
        self._input: dict[str, Any] = {}
        self._source = open_source(spec, options.reading)
        try:
            self.info = self._source.info
            self.target = target_for(spec, self.info, options.out)
            if self.target != STANDARD_OUTPUT:
                check_target(self.target, _files_behind(spec), overwrite=options.overwrite)
            self._sink = _open_sink(self.target, self._source, spec, options)
        except BaseException:
            self._source.close()
            raise
        self._describe(spec)

    def run(
        self,
        engine: CountingEngine,
        checker: Checker | None,
        stop: threading.Event,
        on_progress: Callable[[RunFigures], None],
        on_note: Callable[[str], None] = lambda line: None,
        on_restored: Callable[[Frame, Frame], None] = lambda source, restored: None,
        new_record: Callable[[int], Record] | None = None,
    ) -> RunReport:
        """Restore it all, or what an earlier run left of it; on ``stop`` keep what there is. What
        ``new_record`` makes, of the first frame's number, looks at every frame and fills the report's
        ``experts``.

        Raises:
            MEASNetError: something failed on the way; no output is left behind, save what the same
                command goes on with.
            ParityError: the output is there, but the engine strays from the reference.
        """
        options = self._options
        restore = _Restore(engine, checker, options.checks.verify or 1, options.strength, self._new_fusion())
        record: Record | None = None

        def tell(source: Frame, result: Frame) -> None:
            on_restored(source, result)
            if record is not None:
                record.look(source, result, restore.last, verified=restore.verified_last)

        try:
            self._begin(engine, restore, on_note)
            record = new_record(self.report.resumed_at) if new_record is not None else None
            figures = run(
                self._source,
                restore,
                self._sink,
                on_progress=on_progress,
                on_restored=tell,
                stop=stop,
                limit=self._options.frames,
                resumed_at=self.report.resumed_at,
            )
            if not figures.stopped and restore.frames > self.report.resumed_at:
                restore.keep_state()
            self._finish(figures)
        except BaseException as error:
            self._tell_how_to_go_on(error)
            self.report.error = str(error)
            raise
        finally:
            self._sink.abort()
            self._source.close()
            self._gather(restore, engine)
            if record is not None:
                self.report.experts = record.for_report()
        if checker is not None:
            self._judge(checker)
        return self.report

    def rehearse(self, engine: Engine, frames: int = REHEARSED) -> RunReport:
        """Restore the first ``frames`` to see what the run would take; nothing is written.

        Raises:
            MEASNetError: the source or the engine fails on them.
        """
        report, seconds = self.report, []
        fusion = self._new_fusion()
        try:
            if isinstance(self._sink, ResumableSink) and not self._options.restart:
                report.resumed_at = self._sink.look(self._header(engine))
            items = (item for item in self._source.read() if isinstance(item, Frame))
            for frame in itertools.islice(items, frames):
                started = time.perf_counter()
                restored = engine.restore(frame.pixels)
                if fusion is not None:
                    fusion.fuse(frame.pixels, restored.pixels)
                seconds.append(time.perf_counter() - started)
                report.largest_tile_count = max(report.largest_tile_count, restored.tiles)
                if len(seconds) >= 2 and sum(seconds) > REHEARSED_SECONDS:
                    break
            self._gather(None, engine)
        except BaseException as error:
            report.error = str(error)
            raise
        finally:
            self.close()
        if not seconds:
            raise InputError(f"{report.input}: no frame came through")
        # The first frame of a size also pays for what is prepared once.
        report.fps = round(1 / statistics.median(seconds[1:] or seconds), 3)
        report.status = "planned"
        report.output = str(self.target)
        length = self.length
        if length is not None:
            report.seconds = {"expected": round((length - report.resumed_at) / report.fps, 1)}
        return report

    @property
    def length(self) -> int | None:
        """Frames that the result is to have, where that is known."""
        lengths = [length for length in (self.info.frames, self._options.frames) if length is not None]
        # A live stream goes on until it has been asked for enough.
        return min(lengths, default=None)

    def close(self) -> None:
        """Give up a job that will not run."""
        self._sink.abort()
        self._source.close()

    def _begin(self, engine: CountingEngine, restore: _Restore, on_note: Callable[[str], None]) -> None:
        """Take up what an earlier run of the same command left, if it left anything."""
        sink, source = self._sink, self._source
        if not isinstance(sink, ResumableSink):
            return
        header = self._header(engine)
        settings = sink.begin(header, restart=self._options.restart).settings
        if "tiles" in header.settings:
            height, width = self.info.height, self.info.width
            tiles = tiles_from(settings.get("tiles"), height, width)
            if tiles is None:
                raise UsageError(f"what was begun of {self.target} is damaged; add --restart to begin anew")
            engine.hold(height, width, tiles)
        if isinstance(sink, SegmentedVideoSink):
            restore.on_state = sink.keep_state
        if not sink.done:
            return
        if isinstance(source, VideoFile):
            source.skip(sink.done)
        elif isinstance(source, Images) and isinstance(sink, ImageFolderSink):
            source.skip(sink.finished)
        self.report.resumed_at = restore.frames = sink.done
        try:
            engine.go_on_at(sink.done, sink.state if isinstance(sink, SegmentedVideoSink) else None)
            if restore.fusion is not None:
                restore.fusion.set_state((isinstance(sink, SegmentedVideoSink) and sink.past) or b"")
        except ValueError as error:
            raise UsageError(
                f"{self.target} cannot go on at frame {sink.done} ({error}); add --restart to begin anew"
            ) from None
        length = self.length
        on_note(f"{self.target}: going on at frame {sink.done}" + (f" of {length}" if length else ""))

    def _header(self, engine: Engine) -> Header:
        """What the result is made of, and what a run that begins it settles for those that go on."""
        options, made_of = self._options, {}
        settings: dict[str, Any] = {}
        if isinstance(self._sink, SegmentedVideoSink):
            encoding = self._sink.encoding
            self._input = of_input(Path(self.report.input))
            made_of = self._input | {
                "encoder": encoding.codec.encoder,
                "--pixel-format": encoding.pixel_format,
                "--crf": encoding.crf,
                "--preset": encoding.preset,
                "--bits": encoding.bits,
                "--sound": encoding.sound,
                **options.reading.as_given(),
            }
            settings["encoder_threads"] = min(MOST_THREADS, os.cpu_count() or 1)
            plan = engine.plan(self.info.height, self.info.width)
            settings["tiles"] = [[t.top, t.left, t.height, t.width] for t in plan]
        made_of |= of_engine(engine.description) | {
            "--tile": options.engine.tile,
            "--threads": options.engine.threads,
            "--strength": options.strength,
            "--frames": options.frames,
            "--on-fault": options.checks.on_fault,
            "--task": engine.description.get("task"),
            "--steady": engine.description.get("steady"),
            "--temporal": options.temporal if self.info.kind != "images" else None,
        }
        return Header(made_of | of_programs(), settings)

    def _new_fusion(self) -> TemporalFusion | None:
        depth = self._options.temporal
        return TemporalFusion(depth) if depth and self.info.kind != "images" else None

    def _ignored(self) -> str:
        """The options that say how a video is encoded, if there is none."""
        if self.info.kind != "images":
            return ""
        return ", ".join(self._options.encoding.asked_of_pictures())

    @property
    def again(self) -> str:
        """The command that goes on with what this one has kept, in words."""
        return "the same command without --restart" if self._options.restart else "the same command"

    def _kept(self) -> int:
        """The number of frames that ``again`` will not restore again; 0 where it will be refused."""
        if not isinstance(self._sink, ResumableSink):
            return 0
        try:
            changed = self._input and of_input(Path(self.report.input)) != self._input
        except InputError:  # it is gone
            return 0
        return 0 if changed else self._sink.done

    def _tell_how_to_go_on(self, error: BaseException) -> None:
        """An error that a second run could get past says so, if there is something to go on with."""
        self.report.kept = self._kept()
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
        report.fps = round(figures.fps, 3)
        report.seconds = {
            "decode": round(figures.seconds_decode, 4),
            "restore": round(figures.seconds_restore, 4),
            "encode": round(figures.seconds_encode + flushing, 4),
            "total": round(figures.seconds_total + flushing, 4),
        }
        if output is None and not figures.stopped:
            raise InputError(f"{report.input}: no frame came through; nothing was written")
        report.status = "partial" if partial else "complete"
        if partial:
            report.kept = self._kept()
        if output is not None:
            report.output = str(output)
            report.output_bytes = output.stat().st_size if output.is_file() else None

    def _gather(self, restore: _Restore | None, engine: Engine) -> None:
        report = self.report
        report.damaged = self._source.damaged
        report.truncated = self._source.truncated
        report.skipped = self._sink.skipped
        report.engine = engine.description
        report.warnings = [*self._source.warnings, *self._sink.warnings]
        if ignored := self._ignored():
            report.warnings.append(
                f"{ignored}: of videos alone; the kind of a picture's file says how it is stored"
            )
        if self.info.bits > 8 and report.engine.get("io") == "uint8-nhwc":
            report.warnings.append(
                f"the model takes 8 bits per channel, so the source's {self.info.bits} were rounded; one "
                "exported with --io nchw restores them all"
            )
        if restore is None:
            return
        report.largest_tile_count = restore.largest_tile_count
        if restore.fusion is not None:
            report.temporal = restore.fusion.figures.for_report()
        if report.seconds:
            # Both run inside the restore stage; they are no part of the engine's time.
            report.seconds["verify"] = round(restore.seconds_verify, 4)
            report.seconds["temporal"] = round(restore.seconds_fusion, 4)
            others = restore.seconds_verify + restore.seconds_fusion
            report.seconds["restore"] = round(report.seconds["restore"] - others, 4)

    def _judge(self, checker: Checker) -> None:
        figures = checker.figures
        self.report.verify = figures
        if not figures["passed"]:
            message = (
                f"{self.report.output} is not what the network gives in float32: "
                f"{'; '.join(figures['breaches'])}; try another --backend and report this one"
            )
            self.report.error = message
            raise ParityError(message)

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
        if isinstance(self._sink, SegmentedVideoSink | VideoSink):
            report.encoding = self._sink.encoding.for_report()


class _Restore:
    """The engine as the pipeline calls it, with every N-th frame checked, joined with the frames before it,
    and the source mixed in."""

    def __init__(
        self,
        engine: CountingEngine,
        checker: Checker | None,
        every: int,
        strength: float,
        fusion: TemporalFusion | None,
    ) -> None:
        self.on_state: Callable[[int, bytes | None, bytes | None], None] | None = None
        """Receives the state of the engine and of the fusion, where they have one, behind each segment's last
        frame."""
        self.fusion = fusion
        self._engine = engine
        self._checker = checker
        self._every = every
        self._strength = strength
        self.frames = 0
        self.largest_tile_count = 0
        self.seconds_verify = 0.0
        self.seconds_fusion = 0.0
        self.last: Restored | None = None
        """What the engine returned for the last frame."""
        self.verified_last = False

    def __call__(self, pixels: Pixels) -> Pixels:
        restored: Restored = self._engine.restore(pixels)
        self.last, self.verified_last = restored, False
        self.largest_tile_count = max(self.largest_tile_count, restored.tiles)
        if self._checker is not None and self.frames % self._every == 0:
            started = time.perf_counter()
            self.verified_last = self._checker.check(pixels, restored) is not False
            self.seconds_verify += time.perf_counter() - started
        result = restored.pixels
        if self.fusion is not None:
            started = time.perf_counter()
            result = self.fusion.fuse(pixels, result)
            self.seconds_fusion += time.perf_counter() - started
        self.frames += 1
        if self.frames % FRAMES == 0:
            self.keep_state()
        if self._strength == 1:
            return result
        mixed = cv2.addWeighted(result, self._strength, pixels, 1 - self._strength, 0)
        return np.asarray(mixed, pixels.dtype)

    def keep_state(self) -> None:
        """Hands on what engine and fusion carry on behind the last frame."""
        if self.on_state is None:
            return
        state = self._engine.state()
        past = None if self.fusion is None else self.fusion.state()
        if state is not None and len(state) > LARGEST_STATE:
            raise BackendError(
                f"the engine carries on {len(state)} bytes, of which {LARGEST_STATE} can be kept"
            )
        self.on_state(self.frames, state, past)


def _files_behind(spec: str) -> list[Path]:
    """What of an input lies on disk."""
    if spec == STANDARD_INPUT:
        return [Path("/dev/stdin")]  # the file that was redirected into it, if one was
    return [Path(spec)] if is_on_disk(spec) else []


def _open_sink(target: Path, source: Source, spec: str, options: RunOptions) -> Sink:
    info, path = source.info, Path(spec)
    if target == STANDARD_OUTPUT:
        return StandardOutput(info, raw=options.raw_out)
    if options.raw_out is not None:
        raise UsageError("--raw-out goes with -o -: files say what they hold by their endings")
    if info.kind == "images":
        return ImageFolderSink(target, path) if path.is_dir() else ImageSink(target)
    if isinstance(source, VideoFile) and is_on_disk(spec) and path.is_file():
        return SegmentedVideoSink(
            target,
            info,
            source.copied_packets,
            options.encoding,
            limit=options.frames,
        )
    return VideoSink(target, info, options.encoding)
