"""A picture of who restored a run, over time: one SVG that needs nothing else."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Columns = NDArray[np.float64]
"""Bins x numbers."""

WIDTH, GAP = 14.0, 0.45  # inches, as are the heights below
EXPERTS = ("#0072b2", "#f0e442", "#009e73", "#56b4e9", "#e69f00", "#cc79a7")
"""Colours of experts, told apart by colour-blind readers too (those of Okabe and Ito), without a red."""

MARK = "black"  # of faults, verified frames and flips, with a white edge: seen on all colours of the panels
_EDGE = withStroke(linewidth=3, foreground="white")
MARKS = "cross: a fault, circle: a verified frame, tick: the choice changed"
LONGEST_NAME = 120  # letters of it that are drawn


def draw(name: str, experts: dict[str, Any]) -> str:
    """The picture of ``experts``, as ``Experts.for_report`` gives it, under the heading ``name``."""
    name = name.encode("utf-8", "replace").decode()  # a file's name may be no text
    name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    bins: list[dict[str, Any]] = experts["over_time"]["bins"]
    edges = _edges(bins, experts["frames"])
    panels: list[tuple[float, Callable[[Axes], None]]] = []
    if "pixel_experts" in experts:
        panels.append((1.8, lambda axes: _pixel_experts(axes, bins, edges, experts["pixel_experts"])))
    for branch, chosen in enumerate(experts.get("image_experts", {}).get("chosen", ())):

        def image_experts(axes: Axes, branch: int = branch) -> None:
            _image_experts(axes, bins, edges, experts["image_experts"], branch)

        panels.append((0.3 + 0.15 * len(chosen), image_experts))
    if "prompts" in experts:
        count = len(experts["prompts"]["weights"])
        panels.append((max(0.9, 0.07 * count), lambda axes: _prompts(axes, bins, edges, experts["prompts"])))
    if any(bin_["flicker"] is not None for bin_ in bins):
        panels.append((1.2, lambda axes: _flicker(axes, bins, edges)))
    heights = [height for height, _ in panels] or [0.5]
    height = sum(heights) + GAP * (len(heights) - 1) + 1.5
    figure = Figure(figsize=(WIDTH, height))
    gap = GAP * len(heights) / sum(heights)  # of the mean height
    figure.subplots_adjust(left=0.06, right=0.86, top=1 - 0.9 / height, bottom=0.6 / height, hspace=gap)
    figure.suptitle(
        f"{name}\n{_in_words(experts)}", x=0.06, y=1 - 0.1 / height, ha="left", va="top", parse_math=False
    )
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (_, fill) in zip(rows, panels, strict=False):
        fill(axes)
        _marks(axes, bins)
    in_frames = experts["unit"] == "frames"
    rows[-1].set_xlim(edges[0], edges[-1])
    rows[-1].set_xlabel(f"{'picture' if in_frames else 'time in the video; dashed: a scene begins'}; {MARKS}")
    if not in_frames:
        rows[-1].xaxis.set_major_formatter(lambda at, _: str(timedelta(seconds=round(at, 2)))[2:10])
    written = io.StringIO()
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "measnet"}),
        warnings.catch_warnings(action="ignore"),  # signs that are not in its font: the viewer has others
    ):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _in_words(experts: dict[str, Any]) -> str:
    def many(count: int, one: str) -> str:
        return f"{count} {one if count == 1 else one + 's'}"

    words = [many(experts["frames"], "frame")]
    if experts["first_frame"]:
        words[0] += f" from number {experts['first_frame']} on (those before were restored by an earlier run)"
    if experts["unit"] == "seconds":
        words.append(many(experts["scene_cuts"], "scene cut"))
    if experts["flicker"] is not None:
        words.append(f"flicker {experts['flicker']:.2f} of 255")
    if experts["verified"]:
        words.append(f"{experts['verified']} verified")
    if experts["faults"]:
        words.append(many(experts["faults"], "fault"))
    return ", ".join(words)


def _edges(bins: list[dict[str, Any]], frames: int) -> Columns:
    """Edges of the bins along the picture's axis: the start of each, then the end of the last."""
    starts, last = [bin_["from"] for bin_ in bins], bins[-1]
    # A last frame of unknown length is shown as long as the others are on average.
    mean = (starts[-1] - starts[0]) / max(1, frames - last["frames"])
    until = max(last["to"], starts[-1] + last["frames"] * mean)
    return np.array([*starts, until if until > starts[0] else starts[0] + 1], np.float64)


def _pixel_experts(axes: Axes, bins: list[dict[str, Any]], edges: Columns, total: dict[str, Any]) -> None:
    shares = _columns(bins, "pixel_experts", len(total["first"]), lambda found: found["first"])
    both = enumerate(zip(total["first"], total["any"], strict=True))
    names = [f"{expert}: {first:.0%}, any {any_of:.0%}" for expert, (first, any_of) in both]
    # Each bin is a step, as wide as it lasts.
    axes.stackplot(np.repeat(edges, 2)[1:-1], np.repeat(shares, 2, axis=0).T, labels=names, colors=EXPERTS)
    axes.set_ylim(0, 1)
    axes.set_title("Pixels by expert: share whose first choice it is", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True)


def _image_experts(
    axes: Axes, bins: list[dict[str, Any]], edges: Columns, total: dict[str, Any], branch: int
) -> None:
    chosen, flips = total["chosen"][branch], total["flips"][branch]
    shares = _columns(bins, "image_experts", len(chosen), lambda found: found["chosen"][branch])
    axes.pcolormesh(
        edges, np.arange(len(chosen) + 1), shares.T, cmap="Blues", vmin=0, vmax=1, rasterized=True
    )
    axes.set_yticks(
        np.arange(len(chosen)) + 0.5, [f"{expert}: {share:.0%}" for expert, share in enumerate(chosen)]
    )
    axes.set_title(f"Whole picture by expert, branch {branch}: {_rate(flips, total['pairs'])}", loc="left")
    _flips(axes, bins, edges, "image_experts", lambda found: found["flips"][branch])


def _prompts(axes: Axes, bins: list[dict[str, Any]], edges: Columns, total: dict[str, Any]) -> None:
    count = len(total["weights"])
    weights = _columns(bins, "prompts", count, lambda found: found["weights"])
    shown = axes.pcolormesh(edges, np.arange(count + 1), weights.T, cmap="viridis", rasterized=True)
    axes.figure.colorbar(shown, cax=axes.inset_axes((1.01, 0, 0.01, 1)))
    rate = _rate(total["flips"], total["pairs"])
    axes.set_title(f"Prompt weights: of {count} the strongest changes, {rate}", loc="left")
    _flips(axes, bins, edges, "prompts", lambda found: found["flips"])


def _flicker(axes: Axes, bins: list[dict[str, Any]], edges: Columns) -> None:
    values = np.array([np.nan if bin_["flicker"] is None else bin_["flicker"] for bin_ in bins])
    axes.stairs(values, edges, fill=True, alpha=0.2)
    axes.stairs(values, edges)
    axes.set_ylim(bottom=0)
    axes.set_title("Flicker: change of blocks from frame to frame, of 255", loc="left")


def _marks(axes: Axes, bins: list[dict[str, Any]]) -> None:
    """Scene cuts, faults and verified frames."""
    for bin_ in bins:
        if bin_.get("cuts"):
            axes.axvline(bin_["from"], color="grey", linestyle="--", linewidth=0.8)
    for kind, shape, inside in (("verified", "o", "white"), ("faults", "X", MARK)):
        at = [bin_["from"] for bin_ in bins if bin_.get(kind)]
        edge = "white" if inside == MARK else MARK
        axes.plot(
            *(at, [1] * len(at), shape),
            markersize=8,
            markerfacecolor=inside,
            markeredgecolor=edge,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )


def _flips(
    axes: Axes, bins: list[dict[str, Any]], edges: Columns, part: str, count: Callable[[Any], int]
) -> None:
    """Ticks along the lower edge where the choice changed from one frame to the next."""
    at = [left for left, bin_ in zip(edges, bins, strict=False) if part in bin_ and count(bin_[part])]
    axes.vlines(at, 0, 0.08, MARK, transform=axes.get_xaxis_transform(), path_effects=[_EDGE])


def _columns(
    bins: list[dict[str, Any]], part: str, count: int, values: Callable[[Any], list[float]]
) -> Columns:
    """Bins x count; what bins lack is 0."""
    rows = np.zeros((len(bins), count))
    for row, bin_ in zip(rows, bins, strict=True):
        if part in bin_:
            found = values(bin_[part])
            row[: len(found)] = found
    return rows


def _rate(flips: int, pairs: int) -> str:
    return f"{flips} flips" + (f", {100 * flips / pairs:.0f} in 100 frames" if pairs else "")
