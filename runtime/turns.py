"""Turns: threads that share an engine, or a machine, compute one at a time, in the order they asked."""

from __future__ import annotations

import threading


class Turns:
    """Lets one thread at a time in, in the order they came; one that is in may come in again.

    Batches of several cameras' frames were tried instead: on a CPU they take longer than the same frames one
    by one (``python bench/batching.py``, docs/cameras.md).
    """

    def __init__(self) -> None:
        self._threads: list[int] = []
        """Threads: the one whose turn it is, then those that wait, each as often as it came."""
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._threads.append(me)
            try:
                # A signal's handler may come in where its own thread waits, or is in.
                self._changed.wait_for(lambda: self._threads[0] == me)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *failure: object) -> None:
        with self._changed:
            latest = len(self._threads) - 1 - self._threads[::-1].index(threading.get_ident())
            del self._threads[latest]
            self._changed.notify_all()
