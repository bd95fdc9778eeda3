"""Takes out of a report what says whose machine it was: paths, the user's name, the machine's name."""

from __future__ import annotations

import contextlib
import getpass
import platform
import re
from typing import Any

# Two folders at least, so that fractions, versions and option pairs stay as they are.
PATH = re.compile(r"(?:[A-Za-z]:|~|\\)?(?:[\\/][^\s\\/'\":;,()<>|]+)+[\\/]([^\s\\/'\":;,()<>|]*)")

SHORTEST_NAME = 3


def discreet(value: Any) -> Any:
    """``value``, made of what JSON is made of, with every path cut down to its last part and no names."""
    if isinstance(value, str):
        return _discreet_text(value)
    if isinstance(value, dict):
        return {name: discreet(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [discreet(inner) for inner in value]
    return value


def _discreet_text(text: str) -> str:
    text = PATH.sub(lambda found: f"…/{found[1]}", text)
    for name in _names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text


def _names() -> list[str]:
    """Of the machine and of its user, the longer first."""
    names = {platform.node(), platform.node().partition(".")[0]}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name, as in containers
        names.add(getpass.getuser())
    return sorted((name for name in names if len(name) >= SHORTEST_NAME), key=len, reverse=True)
