"""The process as others see it: ``ps`` shows every argument, and so credentials in addresses."""

from __future__ import annotations

import sys

from measnet.runtime.live.address import has_secrets, shown


def hide_arguments() -> None:
    """Has ``ps`` show this process without the credentials it was started with; nothing where there are
    none. A program that looked at the very beginning may have seen them: a file of cameras is safer."""
    arguments = [_shown(argument) for argument in sys.orig_argv]
    if arguments == sys.orig_argv:
        return
    from setproctitle import setproctitle

    setproctitle(" ".join(arguments))


def _shown(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if argument.startswith("-") and equals and has_secrets(value):
        return f"{name}={shown(value)}"
    return shown(argument)
