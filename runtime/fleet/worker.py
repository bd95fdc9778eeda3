"""Work on one file of an archive, in whichever process it falls to."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from measnet.errors import MEASNetError
from measnet.runtime.engine import open_restorer
from measnet.runtime.fleet.archive import Item
from measnet.runtime.fleet.nearby import nearby
from measnet.runtime.job import Job
from measnet.runtime.options import EngineOptions, RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.run_report import RunReport

_restorers: dict[EngineOptions, Restorer] = {}
"""The engines of this process, which restores many files one after another."""


def restore(item: Item, options: RunOptions) -> tuple[int, RunReport]:
    """Restores one file, or what another process left of it; returns its exit status and its report.

    A video goes on behind its last whole segment, with the state that was kept there, so its result is the
    one that a single process would have made.
    """
    report = RunReport(input=str(item.source))
    names: dict[str, str] = {}
    status = 0
    try:
        with nearby(item, restart=options.restart) as (source, target):
            names = {str(source): str(item.source), str(target): str(item.target)}
            job = Job(str(source), replace(options, out=(str(target),)))
            report = job.report
            with contextlib.closing(job):
                job.run(_restorer(options), threading.Event())
    except MEASNetError as error:
        report.error, status = str(error), error.exit_code
    except OSError as error:
        report.error, status = f"{item.target.parent} cannot be made: {error.strerror}", 1
    for here, there in names.items():
        report.input = report.input.replace(here, there)
        report.output = report.output and report.output.replace(here, there)
        report.error = report.error and report.error.replace(here, there)
    return status, report


def _restorer(options: RunOptions) -> Restorer:
    if options.engine not in _restorers:
        _restorers[options.engine] = open_restorer(options)
    return _restorers[options.engine]
