"""How a command of ours ends: one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from measnet.errors import MEASNetError

INTERRUPTED = 130


def run_command(step: Callable[[], None], *, debug: bool, interrupted: str) -> None:
    """Runs ``step``; an error becomes one line on stderr and its exit code, unless ``debug``.

    ``interrupted`` says what Ctrl-C left behind.
    """
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
