"""Operating: the server of a run for as long as the run goes, if anybody asked for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.events import Events
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.options import Operating
from measnet.runtime.stream import Observer

Show: TypeAlias = Callable[[Telemetry, StreamInfo | None], list[Observer]]
"""Shows one more camera, and gives the observers that its stream needs for that. Properties of a file
have to be given."""


def show_nothing(telemetry: Telemetry, info: StreamInfo | None) -> list[Observer]:
    """Does for Show where nobody asked for a server."""
    return []


@contextlib.contextmanager
def operating(
    options: Operating, events: Events, note: Callable[[str], None], *, may_print: bool = True
) -> Iterator[Show]:
    """Serves what ``options`` ask for; ``note`` is told where, in a line each.

    ``may_print`` says that a person reads these lines, so that a token may stand in one.

    Raises UsageError: an address cannot be had, or a token is missing. Nothing has been started then.
    """
    if options.metrics is None and options.console is None:
        yield show_nothing
        return
    from measnet.runtime.operations.server import Operations

    with Operations(
        events, metrics=options.metrics, console=options.console, may_print=may_print
    ) as operations:
        for line in operations.lines:
            note(line)
        yield operations.show
