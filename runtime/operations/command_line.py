"""Options of the commands that run for long: where they tell how they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from measnet.errors import UsageError
from measnet.runtime.operations.address import Address

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _address(context: click.Context, option: click.Parameter, value: str | None) -> Address | None:
    try:
        return None if value is None else Address.parse(value)
    except UsageError as error:
        raise click.BadParameter(str(error), context, option) from None


def operating_options(command: _Command) -> _Command:
    """Gives a command ``--console``, ``--metrics`` and ``--log``, the fields of ``Operating``."""
    options = (
        click.option(
            "--console",
            callback=_address,
            metavar="[HOST:]PORT",
            help="Serve a page with input and result, figures and events; for other machines: 0.0.0.0:PORT.",
        ),
        click.option(
            "--metrics", callback=_address, metavar="[HOST:]PORT", help="Serve metrics to Prometheus."
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
