"""Safe ends of forked children: they must not wait for an engine's threads, which the parent alone has."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from typing import Any

_ENGINES: weakref.WeakSet[Any] = weakref.WeakSet()


def never_end_in_children(engine: Any) -> None:
    """Keeps forked children from taking ``engine`` apart, which would wait for its threads for ever."""
    _ENGINES.add(engine)


def _after_fork() -> None:
    for engine in _ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    libc = ctypes.CDLL(None)
    if "onnxruntime" in sys.modules and hasattr(libc, "on_exit"):
        # ONNX Runtime's library has a thread of its own, for which it waits at exit even without an engine.
        # Once Python has ended all that is its own, the process ends before that, with the same status.
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
