"""``measnet-run --ray``: an archive restored by the workers of a cluster."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from measnet.command_line import INTERRUPTED, stopping_on_signals
from measnet.errors import UsageError
from measnet.runtime.console import Console
from measnet.runtime.fleet.archive import find
from measnet.runtime.fleet.cluster import Cluster
from measnet.runtime.fleet.store import Place, Remote, check_writable, place_of
from measnet.runtime.options import RunOptions
from measnet.runtime.run_report import write_reports

THREADS = 1
"""CPUs of a worker where nobody says another: as many workers restore more than as many threads do."""


def restore_archive(address: str, inputs: tuple[str, ...], options: RunOptions, console: Console) -> int:
    """Restores all files of ``inputs`` into the folder ``options.out``; returns the first bad exit status.

    Raises:
        UsageError: what is asked for cannot be done so, or the cluster is not there. Nothing was restored.
    """
    out = _place(options)
    archive = find(inputs, out, overwrite=options.overwrite)
    if archive.others:
        console.note(f"{archive.others} files are neither videos nor pictures and were left out")
    if archive.done:
        console.note(f"{len(archive.done)} files have been restored before")
    if archive.items and isinstance(out, Remote):
        check_writable(out)
    options = _for_workers(options)
    status, reports, count = 0, [], len(archive.items)
    stop = threading.Event()
    if archive.items:
        with stopping_on_signals(stop), Cluster(address, options.engine.threads or THREADS) as cluster:
            console.note(f"{count} files, {cluster.workers} workers")
            for number, (item, outcome, report) in enumerate(
                cluster.restore(archive.items, options, stop), start=1
            ):
                reports.append(report)
                status = status or outcome
                if report.error is not None:
                    console.error(f"{item.source}: {report.error}")
                else:
                    console.note(f"{number} of {count}: {item.source}")
                    console.result(report)
    if options.report is not None:
        write_reports(options.report, reports)
    return INTERRUPTED if stop.is_set() else status


def _place(options: RunOptions) -> Place:
    if len(options.out) != 1 or options.out[0] == "-":
        raise UsageError("--ray needs one folder for the results: -o FOLDER")
    out = place_of(options.out[0])
    if isinstance(out, Path) and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; with --ray it is the folder of the results")
    asked: dict[str, Any] = {
        "--compare": options.compare,
        "--preview": options.preview,
        "--console": options.operating.console,
        "--metrics": options.operating.metrics,
        "--parts": options.parts,
        "--dry-run": options.dry_run,
        "--verify": options.checks.verify,
        "--raw": options.reading.raw,
        "--raw-out": options.raw_out,
    }
    for name, given in asked.items():
        if given:
            raise UsageError(f"{name} does not go with --ray")
    return out


def _for_workers(options: RunOptions) -> RunOptions:
    """Makes options hold on other machines: files by their whole names, as many threads as CPUs."""
    engine, checks = options.engine, options.checks
    model = str(Path(engine.model).resolve()) if Path(engine.model).is_file() else engine.model
    checkpoint = None if checks.checkpoint is None else str(Path(checks.checkpoint).resolve())
    return replace(
        options,
        engine=replace(engine, model=model, threads=engine.threads or THREADS),
        checks=replace(checks, checkpoint=checkpoint),
    )
