"""Pairs degraded pictures with clean ones, by the names that the sets give their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

# Rain100L, Rain100H (Yang et al., CVPR 2017): rain-001.png shows norain-001.png. Their later release calls
# the rainy pictures norain-1x2.png and the clean ones norain-1.png.
_RAINY = re.compile(r"(?:no)?rain-(\d+)(?:x2)?")

# RESIDE (Li et al., TIP 2019): number of the clean picture, then what the haze was made with.
# OTS, SOTS outdoor: 0001_0.8_0.2.jpg shows 0001.*; ITS: 1_1_0.90179.png shows 1.*; SOTS indoor: 1400_3.png.
_HAZY = re.compile(r"([^_]+)(?:_\d+(?:\.\d+)?){1,2}")


class _Rule(NamedTuple):
    names: re.Pattern[str]
    clean: str
    example: str


_RULES = {
    "derain": _Rule(_RAINY, "norain-{}", "rain-001 (for norain-001)"),
    "dehaze": _Rule(_HAZY, "{}", "0001_0.8_0.2 (for 0001) or 1400_3 (for 1400)"),
}


def match_names(
    degraded: Iterable[Path], clean: Iterable[Path], task: str, shown: Callable[[Path], str] = str
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pairs of a degraded and its clean picture, by name, and what does not fit, a line each.

    Two files belong together when their names without the ending are the same, or as the rule of ``task``
    says. Many degraded pictures may share a clean one; a picture on either side that is left over, and two
    clean ones of the same name, do not fit. ``shown`` makes a path fit to be read.
    """
    problems = []
    by_name: dict[str, Path] = {}
    for path in sorted(clean):
        if path.stem in by_name:
            problems.append(
                f"{shown(path)} has the name of another clean picture, {shown(by_name[path.stem])}"
            )
        by_name.setdefault(path.stem, path)
    pairs = []
    for path in sorted(degraded):
        names = _clean_names(path.stem, task)
        found = next((by_name[name] for name in names if name in by_name), None)
        if found is not None:
            pairs.append((path, found))
        else:
            problems.append(f"{shown(path)} {_why_alone(path.stem, names, task)}")
    used = {found for _, found in pairs}
    problems += [f"{shown(path)} has no degraded picture" for path in by_name.values() if path not in used]
    return pairs, problems


def _clean_names(stem: str, task: str) -> list[str]:
    """Possible names of the clean picture of the degraded one called ``stem``, the likeliest first."""
    rule = _RULES.get(task)
    found = rule.names.fullmatch(stem) if rule else None
    return [stem, rule.clean.format(found[1])] if rule and found else [stem]


def _why_alone(stem: str, names: list[str], task: str) -> str:
    rule = _RULES.get(task)
    if rule and not rule.names.fullmatch(stem):
        return f"is misnamed: it has neither the name of a clean picture nor one like {rule.example}"
    return f"has no clean picture, {' or '.join(dict.fromkeys(f'{name}.*' for name in names))}"
