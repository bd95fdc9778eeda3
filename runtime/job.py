"""One input restored into one output, from opening the source to the last figure."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from measnet.errors import InputError, ParityError, UsageError
from measnet.runtime.frame import Frame, Pixels, StreamInfo
from measnet.runtime.hdr import is_hdr
from measnet.runtime.pipeline import RunFigures, run
from measnet.runtime.report import RunReport
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.aside import check_target
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT, RawFormat, StandardOutput
from measnet.runtime.sources.choose import is_on_disk, open_source
from measnet.runtime.sources.options import SourceOptions
from measnet.runtime.targets import target_for

REHEARSED = 4
"""Frames that a rehearsal restores."""


class Restored(Protocol):
    """One restored picture: ``pixels`` H×W×3 RGB as it was given, put together from ``tiles`` parts."""

    @property
    def pixels(self) -> Pixels: ...
    @property
    def tiles(self) -> int: ...


class Engine(Protocol):
    """What restores: the part of Restorer a job needs."""

    @property
    def description(self) -> dict[str, Any]: ...
    def restore(self, pixels: Pixels, /) -> Restored: ...


class Checker(Protocol):
    """What compares restored pictures with the reference: the part of Verifier a job needs."""

    @property
    def figures(self) -> dict[str, Any]: ...
    def check(self, pixels: Pixels, restored: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class JobOptions:
    """``verify_every`` N hands every N-th frame to the checker; ``frames`` ends a run early; ``strength`` is
    the share of the restored picture in the result, 0 to 1; ``source`` says how the input is read,
    ``raw_out`` in which bytes standard output is written, instead of y4m."""

    out: str | None = None
    overwrite: bool = False
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    bits: int | None = None
    frames: int | None = None
    verify_every: int | None = None
    strength: float = 1.0
    source: SourceOptions = field(default_factory=SourceOptions)
    raw_out: RawFormat | None = None


class Job:
    """One input on its way to its output. ``report`` fills as it goes.

    Args:
        spec: a path, ``camera:N`` or an address.
        options: what the user asked for.

    Raises:
        MEASNetError: the source cannot be read or the target not be written. Nothing has
            been loaded or written by then.
    """

    def __init__(self, spec: str, options: JobOptions) -> None:
        self.report = RunReport(input=spec)
        self._options = options
        self._source = open_source(spec, options.source)
        try:
            self.info = self._source.info
            self.target = target_for(spec, self.info, options.out)
            if self.target != STANDARD_OUTPUT:
                inputs = [Path(spec)] if is_on_disk(spec) else []
                check_target(self.target, inputs, overwrite=options.overwrite)
            self._sink = _open_sink(self.target, self.info, Path(spec), options)
        except BaseException:
            self._source.close()
            raise
        self._describe(spec)

    def run(
        self,
        engine: Engine,
        checker: Checker | None,
        stop: threading.Event,
        on_progress: Callable[[RunFigures], None],
    ) -> RunReport:
        """Restore it all; on ``stop`` keep what there is.

        Raises:
            MEASNetError: something failed on the way; no output is left behind.
            ParityError: the output is there, but the engine strays from the reference.
        """
        options = self._options
        restore = _Restore(engine, checker, options.verify_every or 1, options.strength)
        try:
            figures = run(
                self._source,
                restore,
                self._sink,
                on_progress=on_progress,
                stop=stop,
                limit=self._options.frames,
            )
            self._finish(figures)
        except BaseException as error:
            self.report.error = str(error)
            raise
        finally:
            self._sink.abort()
            self._source.close()
            self._gather(restore, engine)
        if checker is not None:
            self._judge(checker)
        return self.report

    def rehearse(self, engine: Engine, frames: int = REHEARSED) -> RunReport:
        """Restore the first ``frames`` to see what the run would take; nothing is written.

        Raises:
            MEASNetError: the source or the engine fails on them.
        """
        report, seconds = self.report, []
        try:
            items = (item for item in self._source.read() if isinstance(item, Frame))
            for frame in itertools.islice(items, frames):
                started = time.perf_counter()
                restored = engine.restore(frame.pixels)
                seconds.append(time.perf_counter() - started)
                report.largest_tile_count = max(report.largest_tile_count, restored.tiles)
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
        length = self._options.frames or self.info.frames
        if length is not None:
            report.seconds = {"expected": round(length / report.fps, 1)}
        return report

    def close(self) -> None:
        """Give up a job that will not run."""
        self._sink.abort()
        self._source.close()

    def _finish(self, figures: RunFigures) -> None:
        # Being stopped is how a live recording ends; only a file can be left unfinished.
        partial = figures.stopped and self.info.kind != "live"
        started = time.perf_counter()
        output = self._sink.finish(partial=partial)
        flushing = time.perf_counter() - started
        report = self.report
        report.frames = figures.frames
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
        if self.info.bits > 8 and report.engine.get("io") == "uint8-nhwc":
            report.warnings.append(
                f"the model takes 8 bits per channel, so the source's {self.info.bits} were rounded; one "
                "exported with --io nchw restores them all"
            )
        if restore is None:
            return
        report.largest_tile_count = restore.largest_tile_count
        if report.seconds:
            # The check runs inside the restore stage; it is no part of the engine's time.
            report.seconds["verify"] = round(restore.seconds_verify, 4)
            report.seconds["restore"] = round(report.seconds["restore"] - restore.seconds_verify, 4)

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
        report.expected_frames = info.frames
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


class _Restore:
    """The engine as the pipeline calls it, with every N-th frame checked and the source mixed in."""

    def __init__(self, engine: Engine, checker: Checker | None, every: int, strength: float) -> None:
        self._engine = engine
        self._checker = checker
        self._every = every
        self._strength = strength
        self._frames = 0
        self.largest_tile_count = 0
        self.seconds_verify = 0.0

    def __call__(self, pixels: Pixels) -> Pixels:
        restored: Restored = self._engine.restore(pixels)
        self.largest_tile_count = max(self.largest_tile_count, restored.tiles)
        if self._checker is not None and self._frames % self._every == 0:
            started = time.perf_counter()
            self._checker.check(pixels, restored)
            self.seconds_verify += time.perf_counter() - started
        self._frames += 1
        if self._strength == 1:
            return restored.pixels
        mixed = cv2.addWeighted(restored.pixels, self._strength, pixels, 1 - self._strength, 0)
        return np.asarray(mixed, pixels.dtype)


def _open_sink(target: Path, info: StreamInfo, source: Path, options: JobOptions) -> Sink:
    if target == STANDARD_OUTPUT:
        return StandardOutput(info, raw=options.raw_out)
    if options.raw_out is not None:
        raise UsageError("--raw-out goes with -o -: files say what they hold by their endings")
    if info.kind == "images":
        from measnet.runtime.sinks.images import ImageSink

        return ImageSink(target, folder=source.is_dir())
    from measnet.runtime.sinks.video import VideoSink

    return VideoSink(
        target, info, codec=options.codec, crf=options.crf, preset=options.preset, bits=options.bits
    )
