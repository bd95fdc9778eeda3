"""``measnet-serve``: restores all cameras of a file at once.

Everything heavy is imported once the file is found to be right.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from measnet.command_line import HELP, run_command, stopping_on_signals

_EPILOG = """\b
Examples:
  measnet-serve cameras.yaml            until Ctrl-C
  measnet-serve --check cameras.yaml    name all that is wrong with it, and open nothing

\b
Exit status: 0 all ended well or were stopped, 1 one of them failed, 2 the file or an option is wrong.
"""


@click.command(context_settings=HELP, epilog=_EPILOG)
@click.argument("cameras_file", metavar="CAMERAS.YAML", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only read the file, and say all that is wrong with it.")
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Figures of all, as JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="measnet", prog_name="measnet-serve")
def main(cameras_file: Path, check: bool, report: Path | None, quiet: bool, debug: bool) -> None:
    """Restore several cameras at once with engines that they share.

    CAMERAS.YAML lists them, each with a name, a source, its sinks, and the options that measnet-run has.
    """

    def serve() -> None:
        from measnet.runtime.serve.cameras import CamerasError, read_cameras
        from measnet.runtime.serve.checks import check_cameras

        try:
            cameras = read_cameras(cameras_file)
            check_cameras(cameras_file, cameras)
        except CamerasError as error:
            for line in error.problems:
                click.echo(f"error: {line}", err=True)
            sys.exit(error.exit_code)
        if check:
            for camera in cameras:
                click.echo(f"{camera.name}: {camera.options.engine.model} to {len(camera.sinks)} sink(s)")
            return
        from measnet.runtime.live.events import Event, Events
        from measnet.runtime.run_report import write_reports
        from measnet.runtime.serve.service import Service
        from measnet.runtime.serve.wiring import operations
        from measnet.whole_file import check_place

        if report is not None:
            check_place(report, "--report")
        events = Events()

        def tell(event: Event) -> None:
            if event.state == "failed" or not quiet:
                click.echo(f"{event.camera}: {event.words}", err=True)

        events.listen(tell)
        stop = threading.Event()
        with stopping_on_signals(stop), operations(events) as observers_of:
            service = Service(cameras, events, observers_of)
            well = service.run(stop)
        if report is not None:
            write_reports(report, service.reports)
        if not well:
            sys.exit(1)

    run_command(serve, debug=debug, interrupted="stopped at once; what was begun is left as it was")
