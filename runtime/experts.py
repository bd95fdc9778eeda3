"""Account of who restored a run, over time: prompts, experts of pixels and of images, how often they change,
flicker; and what was wrong with the frames, where the weights were taught to tell.

Memory does not grow with the run: neighbouring frames are merged into bins, 600 at most. Whatever a network
or an engine does not tell is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measnet.config import MOST_MODULES
from measnet.damage import NAMES
from measnet.runtime.flicker import BLOCK, Flicker
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.run_report import RunReport
from measnet.runtime.stream import Observer

MOST_BINS = 600

GRID = 4
"""Every so many pixels of the experts' maps, down and across, are compared with the frame before."""

_Row = dict[str, NDArray[np.float64]]


class Experts(Observer):
    """Keeps account of every frame of one run.

    Args:
        by_number: count frames instead of seconds (a folder of pictures has no times, nor scenes).
    """

    def __init__(self, *, by_number: bool = False) -> None:
        self._by_number = by_number
        self._frames = 0
        self._flicker = Flicker()
        self._bins = _Bins()
        self._strongest: int | None = None
        self._sets: NDArray[np.uint64] | None = None
        self._maps: list[NDArray[np.uint8]] | None = None

    def finished(self, passing: Restoration) -> None:
        source, cut = passing.source, passing.new_scene or self._by_number or not self._frames
        change = self._flicker.add(source.pixels, passing.pixels, cut=cut)
        row: _Row = {"cuts": _one(cut and self._frames > 0 and not self._by_number)}
        if change is not None:
            row |= {"flicker": _one(change), "flicker_pairs": _one(1)}
        if (damage := passing.damage) is not None:
            row |= {"damage": np.array([damage[name] for name in NAMES]), "damage_frames": _one(1)}
        self._add_prompts(row, passing.prompt_weights, cut)
        self._add_pixels(row, [c.pixel_experts for c in passing.choices], cut)
        self._add_image(row, [c.image_experts for c in passing.choices], cut)
        row |= {"faults": _one(passing.faulty), "verified": _one(passing.verified)}
        at = float(self._frames if self._by_number else source.pts * source.time_base)
        self._bins.add(row, at, self._duration(source))
        self._frames += 1

    def fill(self, report: RunReport) -> None:
        report.experts = self.for_report(report.resumed_at)

    def for_report(self, first_frame: int = 0) -> dict[str, Any] | None:
        """Ready for JSON; None before the first frame, whose number is ``first_frame``.

        docs/experts.md says what each entry is.
        """
        if not self._frames:
            return None
        offset = first_frame if self._by_number else 0
        total, bins = _Totals(self._bins.total()), self._bins
        return {
            "frames": self._frames,
            "first_frame": first_frame,
            "unit": "frames" if self._by_number else "seconds",
            "scene_cuts": total.count("cuts"),
            "verified": total.count("verified"),
            "faults": total.count("faults"),
            "flicker": _rounded(self._flicker.value),
            "flicker_pairs": self._flicker.pairs,
            "flicker_block": BLOCK,
            **total.summary(),
            "over_time": {
                "frames_per_bin": bins.width,
                "bins": [_bin(*bin_, offset) for bin_ in bins.each()],
            },
        }

    def _duration(self, source: Frame) -> float:
        return 1.0 if self._by_number else float(source.duration * source.time_base)

    def _add_prompts(self, row: _Row, tiles: list[NDArray[np.float32]], cut: bool) -> None:
        if not tiles:
            self._strongest = None
            return
        weights = np.stack([tile.reshape(-1) for tile in tiles]).astype(np.float64).mean(axis=0)
        strongest, before = int(weights.argmax()), self._strongest
        row |= {"prompts": weights, "prompt_frames": _one(1)}
        if before is not None and not cut:
            row |= {"prompt_flips": _one(strongest != before), "prompt_pairs": _one(1)}
        self._strongest = strongest

    def _add_pixels(self, row: _Row, tiles: list[NDArray[np.uint8] | None], cut: bool) -> None:
        known = [tile[0] for tile in tiles if tile is not None]
        if not known:
            self._maps = None
            return
        first = _count(tile[0] for tile in known)
        any_of = first + _count(plane for tile in known for plane in tile[1:])
        pixels = sum(tile[0].size for tile in known)
        row |= {"pixel_first": first / pixels, "pixel_any": any_of / pixels, "pixel_frames": _one(1)}
        maps, before = [tile[0, ::GRID, ::GRID].copy() for tile in known], self._maps
        self._maps = maps
        if before is not None and not cut and [m.shape for m in maps] == [m.shape for m in before]:
            changed = sum(int((a != b).sum()) for a, b in zip(maps, before, strict=True))
            points = sum(m.size for m in maps)
            row |= {"pixel_changed": _one(changed / points), "pixel_pairs": _one(1)}

    def _add_image(self, row: _Row, tiles: list[NDArray[np.uint8] | None], cut: bool) -> None:
        known = [tile[0] for tile in tiles if tile is not None]
        if not known:
            self._sets = None
            return
        experts = np.stack(known)  # tiles S K
        chosen = experts[..., None] == np.arange(MOST_MODULES)  # tiles S K N; NO_EXPERT is none of them
        sets = chosen.any(axis=2)  # tiles S N
        packed = np.packbits(sets, axis=2).view(np.uint64)[..., 0]  # tiles S
        before, self._sets = self._sets, packed
        row |= {"image": sets.mean(axis=0).reshape(-1), "image_frames": _one(1)}
        if before is not None and not cut and before.shape == packed.shape:
            flips = (packed != before).any(axis=0)
            row |= {"image_flips": flips.astype(np.float64), "image_pairs": _one(1)}


class Account(Observer):
    """Tells ``telemetry``, frame by frame, who restored it and what its damage was taken for."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def finished(self, passing: Restoration) -> None:
        first = _count(c.pixel_experts[0, 0] for c in passing.choices if c.pixel_experts is not None)
        shares = first / first.sum() if first.any() else first[:0]
        self._telemetry.restored_by(tuple(shares[: _used(shares)].tolist()), passing.damage or {})


class _Bins:
    """Sums over neighbouring frames; when there are ``MOST_BINS``, every two become one."""

    def __init__(self) -> None:
        self.width = 1
        """Frames in a bin; the last one may hold fewer."""
        self._rows: list[tuple[_Row, int, float, float]] = []

    def add(self, row: _Row, at: float, duration: float) -> None:
        rows = self._rows
        if rows and rows[-1][1] < self.width:
            rows[-1] = _joined(rows[-1], (row, 1, at, at + duration))
            return
        if len(rows) == MOST_BINS:
            rows[:] = [_joined(a, b) for a, b in zip(rows[::2], rows[1::2], strict=True)]
            self.width *= 2
        rows.append((row, 1, at, at + duration))

    def each(self) -> list[tuple[_Row, int, float, float]]:
        """Sums, frames, from, to."""
        return self._rows

    def total(self) -> _Row:
        total: _Row = {}
        for row, *_ in self._rows:
            total = _sum(total, row)
        return total


class _Totals:
    """Meaning of sums over frames, for a run or a bin."""

    def __init__(self, row: _Row) -> None:
        self._row = row

    def count(self, name: str) -> int:
        return int(self._row[name][0]) if name in self._row else 0

    def mean(self, name: str, frames: str) -> NDArray[np.float64] | None:
        return self._row[name] / self._row[frames] if name in self._row else None

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        damage = self.mean("damage", "damage_frames")
        if damage is not None:
            found["damage"] = dict(zip(NAMES, _list(damage), strict=True))
        prompts = self.mean("prompts", "prompt_frames")
        if prompts is not None:
            found["prompts"] = {
                "weights": _list(prompts),
                "flips": self.count("prompt_flips"),
                "pairs": self.count("prompt_pairs"),
            }
        first, any_of = (self.mean(name, "pixel_frames") for name in ("pixel_first", "pixel_any"))
        if first is not None and any_of is not None:
            experts = _used(any_of)
            changed = self.mean("pixel_changed", "pixel_pairs")
            found["pixel_experts"] = {
                "first": _list(first[:experts]),
                "any": _list(any_of[:experts]),
                "changed": None if changed is None else _rounded(float(changed[0])),
            }
        image = self.mean("image", "image_frames")
        if image is not None:
            branches = image.reshape(-1, MOST_MODULES)
            flips = self._row.get("image_flips", np.zeros(len(branches)))
            found["image_experts"] = {
                "chosen": [_list(branch[: _used(branches.max(axis=0))]) for branch in branches],
                "flips": [int(count) for count in flips],
                "pairs": self.count("image_pairs"),
            }
        return found


def _bin(row: _Row, frames: int, since: float, until: float, offset: int) -> dict[str, Any]:
    total = _Totals(row)
    change = total.mean("flicker", "flicker_pairs")
    counts = {name: total.count(name) for name in ("cuts", "verified", "faults")}
    return {
        "from": round(since + offset, 4),
        "to": round(until + offset, 4),
        "frames": frames,
        "flicker": None if change is None else _rounded(math.sqrt(change[0])),
        **{name: count for name, count in counts.items() if count},
        **total.summary(),
    }


def _joined(
    a: tuple[_Row, int, float, float], b: tuple[_Row, int, float, float]
) -> tuple[_Row, int, float, float]:
    return _sum(a[0], b[0]), a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])


def _sum(a: _Row, b: _Row) -> _Row:
    both = dict(a)
    for name, values in b.items():
        both[name] = both[name] + values if name in both else values
    return both


def _count(planes: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Pixels per expert."""
    counts = np.zeros(MOST_MODULES)
    for plane in planes:
        whole = np.ascontiguousarray(plane)
        counts += cv2.calcHist([whole], [0], None, [MOST_MODULES], [0, MOST_MODULES]).ravel()
    return counts


def _used(shares: NDArray[np.float64]) -> int:
    """Counts the experts, as far as they were ever chosen."""
    return int(shares.nonzero()[0].max(initial=0)) + 1


def _one(value: float) -> NDArray[np.float64]:
    return np.array([value], np.float64)


def _list(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
