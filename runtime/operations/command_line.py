"""Options of the commands that run for long: where they tell how they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from measnet.command_line import read_by
from measnet.runtime.operations.address import Address

_Command = TypeVar("_Command", bound=Callable[..., Any])


def operating_options(command: _Command) -> _Command:
    """Gives a command ``--console``, ``--metrics`` and ``--log``, the fields of ``Operating``."""
    options = (
        click.option(
            "--console",
            callback=read_by(Address.parse),
            metavar="[HOST:]PORT",
            help="Serve a page with input and result, figures and events; for other machines: 0.0.0.0:PORT.",
        ),
        click.option(
            "--metrics",
            callback=read_by(Address.parse),
            metavar="[HOST:]PORT",
            help="Serve metrics to Prometheus.",
        ),
        click.option(
            "--log",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="What is said on stderr: lines for people, or a JSON value each.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
