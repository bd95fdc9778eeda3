"""Conventions of all our commands: the names of options, and an end with one line and an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import click

from measnet.errors import MEASNetError

INTERRUPTED = 130

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""Settings of every command."""


class RenamedOption(click.Option):
    """An option that is still known by its ``former`` name, which help does not show."""

    def __init__(self, *arguments: Any, former: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._former = former

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """See click.Option."""
        super().add_to_parser(parser, ctx)
        parser.add_option(self, [self._former], dest=self.name, action="store", nargs=self.nargs)


def print_any_name() -> None:
    """Lets stdout and stderr show what their encoding cannot, such as some file names, not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def run_command(step: Callable[[], None], *, debug: bool, interrupted: str) -> None:
    """Runs ``step``; an error becomes one line on stderr and its exit code, unless ``debug``.

    ``interrupted`` says what Ctrl-C left behind.
    """
    print_any_name()
    try:
        step()
    except MEASNetError as error:
        if debug:
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException:
        raise
    except Exception as error:
        if debug:
            raise
        told = f"{type(error).__name__}: {error} (a fault of this program; --debug shows where)"
        click.echo(f"error: {told}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo(interrupted, err=True)
        sys.exit(INTERRUPTED)
