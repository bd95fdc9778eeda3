"""Session: all inputs of one ``measnet-run``, from its options to its exit status.

Everything heavy is imported once there is something to do, so that a mistake is answered at once.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measnet.command_line import INTERRUPTED, status_of, stopping_on_signals
from measnet.errors import MEASNetError, UsageError
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.events import Events
from measnet.runtime.live.watch import Watch
from measnet.runtime.operations.address import LOOPBACK, Address, is_free
from measnet.runtime.options import RunOptions

if TYPE_CHECKING:
    from measnet.metrics import Parity
    from measnet.runtime.comparison import Comparison, Layout
    from measnet.runtime.console import Console
    from measnet.runtime.job import Job
    from measnet.runtime.operations.operating import Show
    from measnet.runtime.parity import BackgroundChecker
    from measnet.runtime.preview import Preview
    from measnet.runtime.progress import Amount, Overall
    from measnet.runtime.restorer import Restorer
    from measnet.runtime.run_report import RunReport
    from measnet.runtime.stream import Observer

PAGE_PORT = 8080
"""Port of the page that shows a stream without a result, if it is free."""

LARGER, SMALLER = "small", "nano"
"""Bundled models: the second takes over where the first is too slow for a live source."""


class Session:
    """Restores all inputs of one command with the engine they share.

    Args:
        console: says what there is to say.
        options: hold for every input.
        debug: lets errors through, in place of a line and an exit status.
        opens: opens the engine that options ask for; by default ``open_restorer``.

    ``events`` tells what happens to live inputs; ``watches`` has one for each input that was begun, with its
    figures, in their order.
    """

    def __init__(
        self,
        console: Console,
        options: RunOptions,
        *,
        debug: bool = False,
        opens: Callable[[RunOptions], Restorer] | None = None,
    ) -> None:
        self._console = console
        self._options = options
        self._opens = opens
        self._several = False
        self._guarded = partial(status_of, debug=debug, tell=console.error)
        self._report = options.report
        self._stop = threading.Event()
        self._show: Show | None = None
        self._restorer: Restorer | None = None
        self._reports: dict[int, RunReport] = {}
        self._overall: Overall | None = None
        self._preview: Preview | None = None
        self.events = Events()
        self.watches: list[Watch] = []
        self.events.listen(console.event)

    def run(self, inputs: tuple[str, ...]) -> int:
        """Restores them one after another; the exit status of the first that failed.

        Raises UsageError for a pattern that nothing fits.
        """
        inputs = expanded(inputs)
        for result, source in results_among(inputs).items():
            self._console.note(f"{result} is left out: it is what became of {source}")
            inputs = tuple(spec for spec in inputs if spec != result)
        self._several = len(inputs) > 1
        status = self._guarded(partial(self._check_places, inputs))
        self._show_what_goes_nowhere(inputs)
        import measnet.runtime.job  # noqa: F401 - while this is read, a signal still ends all at once

        served = contextlib.ExitStack()
        status = status or self._guarded(partial(self._serve, served))
        if status:
            return status
        with served, stopping_on_signals(self._stop):
            numbers = list(range(len(inputs)))
            if self._several:
                status, numbers = self._survey(inputs)
            if self._options.preview and not self._options.dry_run and numbers:
                layout: Layout = "split" if self._options.compare == "split" else "side"
                self._preview = self._console.preview(layout)
            for place, index in enumerate(numbers):
                if self._overall is not None:
                    self._overall.begin(place)
                outcome = self._guarded(partial(self._restore, index, inputs[index]))
                status = status or outcome
                if self._overall is not None:
                    self._overall.end()
                if self._stop.is_set():
                    break
            if self._restorer is not None:
                self._restorer.close()
                self._restorer = None  # a further run opens its own
        if self._several and self._options.dry_run:
            self._console.rehearsed(self.reports)
        if self._report is not None:
            outcome = self._guarded(self._write_report)
            status = status or outcome
        return status

    def stop(self) -> None:
        """Ends the run, from another thread, as Ctrl-C does: what was restored is kept."""
        self._stop.set()

    def _show_what_goes_nowhere(self, inputs: Sequence[str]) -> None:
        """Shows a camera or stream that has no result on a page; in a preview, where the page's packages are
        missing."""
        from measnet.runtime.sources.choose import is_live

        options = self._options
        if options.out or options.dry_run or options.is_watched or not any(map(is_live, inputs)):
            return
        if importlib.util.find_spec("starlette") is None:
            self._options = replace(options, preview=True)
        else:
            place = Address(LOOPBACK, PAGE_PORT if is_free(LOOPBACK, PAGE_PORT) else 0)
            self._options = replace(options, operating=replace(options.operating, console=place))

    @property
    def reports(self) -> list[RunReport]:
        """Reports of all inputs so far, in their order."""
        return [self._reports[index] for index in sorted(self._reports)]

    def _survey(self, inputs: tuple[str, ...]) -> tuple[int, list[int]]:
        """Opens all inputs before the first is restored, so that what would fail is said before hours have
        gone by; returns the exit status of that, and the numbers of the others."""
        from measnet.runtime.progress import Overall
        from measnet.runtime.run_report import RunReport

        amounts: dict[int, Amount] = {}
        results: dict[Path, str] = {}

        def examine(index: int) -> None:
            try:
                amounts[index] = self._amount(inputs[index], results)
            except MEASNetError as error:
                self._reports[index] = RunReport(input=without_secrets(inputs[index]), error=str(error))
                raise

        status = 0
        for index in range(len(inputs)):
            outcome = self._guarded(partial(examine, index))
            status = status or outcome
        self._overall = Overall(list(amounts.values()))
        return status, list(amounts)

    def _amount(self, spec: str, results: dict[Path, str]) -> Amount:
        """Says what an input asks for, and adds its ``results``; a live source or standard input is left
        alone. Raises MEASNetError where it cannot be restored to where it is to go."""
        from measnet.runtime.job import Job
        from measnet.runtime.progress import Amount
        from measnet.runtime.sources.choose import is_on_disk

        if not is_on_disk(spec):
            return Amount(None, 0)
        job = Job(spec, self._options)
        job.close()
        for result in job.files:
            first = results.setdefault(result.resolve(), spec)
            if first != spec:
                raise UsageError(f"{first} and {spec} would both become {result}; restore them one by one")
        return Amount(job.length, job.info.width * job.info.height)

    def _restore(self, index: int, spec: str) -> int:
        from measnet.runtime.job import Job
        from measnet.runtime.run_report import RunReport

        watch = Watch(without_secrets(spec), self.events)
        self.watches.append(watch)
        if self._show is not None:
            self._show(watch.telemetry, None)  # while it connects
        try:
            job = Job(spec, self._options, watch=watch, stop=self._stop)
        except MEASNetError as error:
            self._reports[index] = RunReport(input=without_secrets(spec), error=str(error))
            raise
        self._reports[index] = job.report
        rehearsal = self._options.dry_run
        try:
            comparison = self._comparison(spec, job)
            self._keep_report_apart([*job.files, *([] if comparison is None else [comparison.target])])
            restorer = self._shared_restorer()
            verifier = None if rehearsal else self._verifier(restorer, job)
        except BaseException as error:
            job.report.error = str(error)
            job.close()
            raise
        if rehearsal:
            job.rehearse(restorer)
            job.report.also = self._beside(job.report, comparison)
            self._console.result(job.report)
            return 0
        try:
            status = self._run_job(job, restorer, verifier)
            if status == 0 and comparison is not None and job.report.output is not None:
                status = self._compare(comparison)
            return status
        finally:
            if verifier is not None:
                verifier.close()

    def _beside(self, report: RunReport, comparison: Comparison | None) -> list[str]:
        """Tells what the run would do besides its result."""
        options, also = self._options, []
        if steady := report.engine.get("steady"):
            also.append(f"image-level decisions are held steady, {steady:.2g} of each from the frames before")
        if options.temporal and report.kind != "images":
            also.append(f"each frame is joined with up to {options.temporal} before it")
        if options.strength < 1:
            also.append(f"{options.strength:g} of the restored picture, the rest is the source")
        if options.engine.task is not None:
            also.append(f"the prompt is held to {options.engine.task}")
        if options.checks.verify is not None:
            every = "every frame" if options.checks.verify == 1 else f"one frame in {options.checks.verify}"
            also.append(f"{every} is checked against the network in float32")
        if comparison is not None:
            also.append(str(comparison.target))
        return also

    def _run_job(self, job: Job, restorer: Restorer, verifier: BackgroundChecker | None) -> int:
        try:
            with self._console.progress(
                job.target.name, job.length, overall=self._overall, preview=self._preview
            ) as on_progress:
                job.run(
                    restorer,
                    self._stop,
                    self._observers(job, verifier),
                    on_progress,
                    self._console.note,
                    self._smaller(),
                )
        finally:
            if job.report.status != "failed":
                self._console.result(job.report, job.again)
        return INTERRUPTED if job.report.status == "partial" else 0

    def _serve(self, served: contextlib.ExitStack) -> None:
        """Begins to tell others how the run is, where that is asked for."""
        from measnet.runtime.operations.operating import operating

        options, console = self._options, self._console
        if not options.dry_run:
            self._show = served.enter_context(
                operating(options.operating, self.events, console.note, may_print=console.is_read)
            )

    def _observers(self, job: Job, verifier: BackgroundChecker | None) -> list[Observer]:
        from measnet.runtime.experts import Experts

        observers: list[Observer] = [] if verifier is None else [verifier]
        if self._show is not None:
            observers += self._show(job.watch.telemetry, job.info)
        if self._report is not None:
            observers.append(Experts(by_number=job.info.kind == "images"))
        if self._preview is not None:
            self._preview.begin(job.info)
            observers.append(self._preview)
        return observers

    def _comparison(self, spec: str, job: Job) -> Comparison | None:
        if self._options.compare is None:
            return None
        from measnet.runtime.comparison import Comparison

        return Comparison(spec, job.info, job.targets, self._options)

    def _compare(self, comparison: Comparison) -> int:
        with self._console.counting(comparison.target.name) as on_progress:
            whole = comparison.make(on_progress, self._stop)
        if not whole:
            return INTERRUPTED
        self._console.also(comparison.target)
        return 0

    def _shared_restorer(self) -> Restorer:
        if self._restorer is None:
            self._restorer = self._open(self._options)
        return self._restorer

    def _open(self, options: RunOptions) -> Restorer:
        from measnet.runtime.engine import open_restorer

        return (self._opens or open_restorer)(options)

    def _smaller(self) -> tuple[str, Callable[[], Restorer]] | None:
        """Names the model that takes over where a larger one is too slow, with a function that opens it."""
        options = self._options
        if options.engine.model != LARGER:
            return None
        smaller = replace(options, engine=replace(options.engine, model=SMALLER))
        return SMALLER, partial(self._open, smaller)

    def _verifier(self, restorer: Restorer, job: Job) -> BackgroundChecker | None:
        checks = self._options.checks
        if checks.verify is None:
            return None
        from measnet.runtime.parity import BackgroundChecker, Verifier

        def tell(parity: Parity) -> None:
            job.watch.telemetry.verified(parity.psnr_db)

        verifier = Verifier(restorer, checks.checkpoint, tell=tell)
        return BackgroundChecker(verifier, checks.verify_share, checks.verify)

    def _check_places(self, inputs: tuple[str, ...]) -> None:
        """Refuses options without an effect, a checkpoint that is not there, places that cannot be written
        to, and a report in the place of an input."""
        from measnet.runtime.idle_options import refuse_idle
        from measnet.runtime.run_report import check_report

        refuse_idle(self._options, inputs)
        self._options.checks.find_checkpoint()
        report = self._report
        for out in self._options.out:
            if self._several and not Path(out).is_dir():
                raise UsageError(
                    f"--out {without_secrets(out)} is one place for several inputs; give an existing folder "
                    "instead"
                )
            if report is not None and Path(out).absolute() == report.absolute():
                raise UsageError(f"--report {report} is the result; give it another name")
        if report is not None:
            check_report(report, [*inputs, self._options.engine.model, self._options.checks.checkpoint])

    def _keep_report_apart(self, written: Sequence[Path]) -> None:
        """Raises ``UsageError`` where the report would replace what the run has written."""
        report = self._report
        for target in written:
            if report is not None and target.resolve() == report.resolve():
                self._report = None  # nor is it written now that this is said
                raise UsageError(f"--report {report} would replace the result {target}; give it another name")

    def _write_report(self) -> None:
        assert self._report is not None
        from measnet.runtime.run_report import write_pictures, write_reports

        for picture in write_pictures(self._report, self.reports):
            self._console.also(picture)
        write_reports(self._report, self.reports)


def expanded(inputs: Iterable[str]) -> tuple[str, ...]:
    """``shots/*.png`` as the files of such names, in their order; ``**`` goes through folders in folders.

    A file of just that name is meant itself, and so is an address. Raises UsageError for a pattern
    that nothing fits.
    """
    found: list[str] = []
    for spec in inputs:
        if "://" in spec or not glob.has_magic(spec) or Path(spec).exists():
            found.append(spec)
            continue
        # Path.glob takes no pattern that begins at the root.
        names = sorted(glob.glob(spec, recursive=True))  # noqa: PTH207
        if not names:
            raise UsageError(f"no file is called {spec}; check the pattern")
        found += names
    return tuple(found)


def results_among(inputs: Iterable[str]) -> dict[str, str]:
    """Inputs that are results of other inputs, and those: ``clip.restored.mp4`` of ``clip.mp4``.

    A pattern that found the sources once finds the results the next time.
    """
    sources = {_place_and_stem(spec): spec for spec in inputs}
    results = {}
    for spec in inputs:
        made = re.fullmatch(r"(.+)\.restored(\.compare)?", Path(spec).stem)
        source = made and sources.get((str(Path(spec).parent), made[1]))
        if source:
            results[spec] = source
    return results


def _place_and_stem(spec: str) -> tuple[str, str]:
    return str(Path(spec).parent), Path(spec).stem
