"""Inputs by patterns of names: for shells that hand them on, and lists too long for a command line; and which
of them an earlier run made."""

from __future__ import annotations

import glob
import re
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


def results_among(inputs: Iterable[str]) -> dict[str, str]:
    """Inputs that are results of other inputs, and those: ``clip.restored.mp4`` of ``clip.mp4``.

    A pattern that found the sources once finds the results the next time.
    """
    sources = {_place_and_stem(spec): spec for spec in inputs}
    results = {}
    for spec in inputs:
        made = re.fullmatch(r"(.+)\.restored(\.compare)?", Path(spec).stem)
        source = made and sources.get((str(Path(spec).parent), made[1]))
        if source:
            results[spec] = source
    return results


def _place_and_stem(spec: str) -> tuple[str, str]:
    return str(Path(spec).parent), Path(spec).stem
