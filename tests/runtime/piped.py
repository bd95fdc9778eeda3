"""``measnet-run`` with pipes for its standard input and output, in this process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .conftest import Answer, run_here


@dataclass
class Piped(Answer):
    """An answer, with the bytes that came out of the pipe."""

    sent: bytes = b""


def pipe(*arguments: str | Path, given: bytes = b"") -> Piped:
    """Runs it with an engine that changes nothing, ``given`` on its standard input."""
    came = bytearray()
    with _standard_pipes(given, came):
        answer = run_here(*arguments)
    return Piped(answer.status, answer.out, answer.err, bytes(came))


@contextlib.contextmanager
def _standard_pipes(given: bytes, came: bytearray) -> Iterator[None]:
    """Feeds ``given`` into file descriptor 0 and drains 1 into ``came``; both are as before in the end."""
    kept = os.dup(0), os.dup(1)
    (reads, feeds), (drains, writes) = os.pipe(), os.pipe()

    def feed() -> None:
        with open(feeds, "wb") as file, contextlib.suppress(BrokenPipeError):  # noqa: PTH123 - a descriptor
            file.write(given)
            file.flush()

    def drain() -> None:
        with open(drains, "rb") as file:  # noqa: PTH123 - a descriptor
            came.extend(file.read())

    threads = [threading.Thread(target=feed), threading.Thread(target=drain)]
    try:
        for ours, theirs in ((reads, 0), (writes, 1)):
            os.dup2(ours, theirs)
            os.close(ours)
        for thread in threads:
            thread.start()
        yield
    finally:
        for number, before in enumerate(kept):
            os.dup2(before, number)
            os.close(before)
        for thread in threads:
            thread.join()
