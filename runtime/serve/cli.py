"""``measnet-serve``: restores all cameras of a file at once.

Everything heavy is imported once the file is found to be right.
"""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import click

from measnet.command_line import HELP, run_command, say, stopping_on_signals
from measnet.errors import UsageError
from measnet.runtime.cli import options_of
from measnet.runtime.options import Operating

_EPILOG = """\b
Examples:
  measnet-serve cameras.yaml            until Ctrl-C
  measnet-serve cameras.yaml --console 8080   and a page that shows them all
  measnet-serve --dry-run cameras.yaml  name all that is wrong with it, and open no camera

\b
Exit status: 0 all ended well or were stopped, 1 one of them failed, 2 the file or an option is wrong.
"""


@click.command(context_settings=HELP, epilog=_EPILOG)
@click.argument("cameras_file", metavar="CAMERAS.YAML", type=click.Path(path_type=Path))
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read the file, load its models, say all that is wrong, and open no camera.",
)
@options_of(Operating)
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Figures of all, as JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="measnet", prog_name="measnet-serve")
def main(
    cameras_file: Path, dry_run: bool, report: Path | None, quiet: bool, debug: bool, **values: Any
) -> None:
    """Restore several cameras at once with engines that they share.

    CAMERAS.YAML lists them, each with a name, a source, its sinks, and the options that measnet-run has.
    """

    def serve() -> None:
        from measnet.runtime.live.credentials import without_secrets
        from measnet.runtime.run_report import check_report, write_reports
        from measnet.runtime.serve.cameras import CamerasError, read_cameras
        from measnet.runtime.serve.checks import problems_of

        problems: list[str] = []
        try:
            cameras = read_cameras(cameras_file)
        except CamerasError as error:
            cameras, problems = error.cameras, error.problems
        problems += problems_of(cameras_file, cameras, models=dry_run)
        if report is not None:
            read = [(camera.source, camera.options.engine.model) for camera in cameras]
            try:
                check_report(report, [str(cameras_file), *itertools.chain(*read)])
            except UsageError as error:
                problems.append(str(error))
        if problems:
            for line in problems:
                say(f"error: {line}", err=True)
            sys.exit(CamerasError.exit_code)
        if dry_run:
            for camera in cameras:
                sinks = ", ".join(map(without_secrets, camera.sinks))
                source = without_secrets(camera.source)
                say(f"{camera.name}: {source} by {camera.options.engine.model} to {sinks}")
            return
        from measnet.runtime.console import Console
        from measnet.runtime.live.events import Event, Events
        from measnet.runtime.operations.log import JsonConsole
        from measnet.runtime.operations.operating import operating
        from measnet.runtime.serve.service import Service

        options = Operating(**values)
        console = (JsonConsole if options.log == "json" else Console)(quiet=quiet)

        def tell(event: Event) -> None:
            if event.state == "failed" and options.log == "text":
                console.error(f"{event.camera}: {event.words}")
            else:
                console.event(event)

        events = Events()
        events.listen(tell)
        stop = threading.Event()
        with (
            operating(options, events, console.note, may_print=console.is_read) as show,
            stopping_on_signals(stop),
        ):
            service = Service(cameras, events, lambda watch: show(watch.telemetry, None))
            well = service.run(stop)
        for done in service.reports:
            if done.status != "failed":
                console.result(done)
        if report is not None:
            write_reports(report, service.reports)
        if not well:
            sys.exit(1)

    run_command(serve, debug=debug, interrupted="stopped at once; what was begun is left as it was")
