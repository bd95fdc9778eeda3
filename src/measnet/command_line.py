"""Conventions of all our commands: the names of options, and an end with one line and an exit code."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import click

from measnet.errors import UsageError, in_words
from measnet.printable import printable

INTERRUPTED = 130

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""Settings of every command."""


_PART = "measnet.part"
"""Key of the part that was asked for, and its context."""


class CommandInParts(click.Command):
    """A command that does one thing by itself, and others by the names of its ``parts``: the first word."""

    def __init__(self, *arguments: Any, parts: Mapping[str, click.Command], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parts = parts

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self._parts:
            return super().parse_args(ctx, args)
        part = self._parts[args[0]]
        ctx.meta[_PART] = part, part.make_context(f"{ctx.info_name} {args[0]}", args[1:], obj=ctx.obj)
        return []

    def invoke(self, ctx: click.Context) -> Any:
        if _PART not in ctx.meta:
            return super().invoke(ctx)
        part, inner = ctx.meta[_PART]
        with inner:
            return part.invoke(inner)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Also"):
            formatter.write_dl(
                [
                    (f"{ctx.command_path} {name}", part.get_short_help_str(90))
                    for name, part in self._parts.items()
                ]
            )


def say(line: object, *, err: bool = False) -> None:
    """Prints one line, to stderr with ``err``."""
    click.echo(printable(line), err=err)


def print_any_name() -> None:
    """Lets stdout and stderr show what their encoding cannot, such as some file names, not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Has the first Ctrl-C or SIGTERM set ``stop``, for a tidy end; the second ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's alone
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def status_of(step: Callable[[], int | None], *, debug: bool, tell: Callable[[str], None]) -> int:
    """Does ``step`` and gives its exit status; ``tell`` hears its error in one line, unless ``debug``."""
    try:
        return step() or 0
    except click.ClickException:
        raise
    except Exception as error:
        if debug:
            raise
        told, status = in_words(error)
        tell(told)
        return status


def run_command(
    step: Callable[[], int | None],
    *,
    debug: bool,
    interrupted: str = "",
    tell: Callable[[str], None] = lambda line: say(f"error: {line}", err=True),
) -> None:
    """Does all of a command, and exits with its status unless that is 0.

    ``interrupted`` says what Ctrl-C left behind.
    """
    print_any_name()
    try:
        status = status_of(step, debug=debug, tell=tell)
    except KeyboardInterrupt:
        if interrupted:
            say(interrupted, err=True)
        status = INTERRUPTED
    if status:
        sys.exit(status)


def read_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Has an option's text read, or refused as click refuses values, where it raises ``UsageError``."""

    def read(context: click.Context, option: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except UsageError as error:
            raise click.BadParameter(printable(error), context, option) from None

    return read
