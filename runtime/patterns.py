"""Inputs that are patterns of names: for shells that hand them on, and lists too long for a command line."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from measnet.errors import UsageError


def expanded(inputs: Iterable[str]) -> tuple[str, ...]:
    """``shots/*.png`` as the files of such names, in their order; ``**`` goes through folders in folders.

    What exists under just that name is meant itself, and so is an address. Raises UsageError for a pattern
    that nothing fits.
    """
    found: list[str] = []
    for spec in inputs:
        if "://" in spec or not glob.has_magic(spec) or Path(spec).exists():
            found.append(spec)
            continue
        # Path.glob takes no pattern that begins at the root.
        names = sorted(glob.glob(spec, recursive=True))  # noqa: PTH207
        if not names:
            raise UsageError(f"no file is called {spec}; check the pattern")
        found += names
    return tuple(found)
