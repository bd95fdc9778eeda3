"""A picture of who restored a run, over time: one SVG that needs nothing else, for light and dark viewers."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEFT, WIDTH, RIGHT = 190, 820, 150  # pixels: names, time, legends
GAP = 44

COLOURS = ["#3b82c4", "#e08a2c", "#4aa564", "#c8504f", "#8d6cc0", "#b0763f", "#cf6fa8", "#8a8f98", "#a9a83a"]
"""Of experts, by number, from the first again where there are more."""

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 17px; font-weight: 600 } .name { font-weight: 600 } .small { font-size: 11px; fill: #777 }
.frame { fill: none; stroke: #8886 } .line { fill: none; stroke: #3b82c4; stroke-width: 1.4 }
.area { fill: #3b82c4; fill-opacity: .15 } .cut { stroke: #888; stroke-dasharray: 3 3 }
.fault { fill: #d33 } .verified { fill: #2a9d5c } .flips { fill: #d33 } .paper { fill: #fff }
image { image-rendering: pixelated }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .small { fill: #999 } .paper { fill: #1b1d21 } }
""".strip()

Columns = NDArray[np.float64]


def draw(name: str, experts: dict[str, Any]) -> str:
    """The picture of ``experts``, as ``Experts.for_report`` gives it, under the heading ``name``."""
    page = _Page(experts)
    page.heading(name, _in_words(experts))
    page.marks()
    if "pixel_experts" in experts:
        page.pixel_experts()
    if "image_experts" in experts:
        page.image_experts()
    if "prompts" in experts:
        page.prompts()
    page.flicker()
    return page.finished()


def _in_words(experts: dict[str, Any]) -> str:
    def many(count: int, one: str, more: str | None = None) -> str:
        return f"{count} {one if count == 1 else more or one + 's'}"

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


@dataclass
class _Page:
    """Grows downwards, panel by panel."""

    experts: dict[str, Any]
    parts: list[str] = field(default_factory=list)
    y: float = 0

    def __post_init__(self) -> None:
        self.bins: list[dict[str, Any]] = self.experts["over_time"]["bins"]
        starts = np.array([bin_["from"] for bin_ in self.bins])
        last = self.bins[-1]
        # A last frame of unknown length is shown as long as the others are on average.
        mean = (starts[-1] - starts[0]) / max(1, self.experts["frames"] - last["frames"])
        self.since, self.until = starts[0], max(last["to"], starts[-1] + last["frames"] * mean)
        if self.until <= self.since:
            self.until = self.since + 1
        middles = self.since + (np.arange(WIDTH) + 0.5) * (self.until - self.since) / WIDTH
        self.at = np.clip(np.searchsorted(starts, middles, side="right") - 1, 0, len(starts) - 1)
        """For each pixel of width, the bin that is shown there."""

    def heading(self, name: str, words: str) -> None:
        self.text(24, 34, name, "title")
        self.text(24, 54, words)
        self.y = 78

    def marks(self) -> None:
        """Scene cuts, faults and verified frames, where there are any."""
        kinds = [
            (key, label) for key, label in (("faults", "Faults"), ("verified", "Verified")) if self.any(key)
        ]
        for key, label in kinds:
            self.text(24, self.y + 10, label, "name")
            shape = "fault" if key == "faults" else "verified"
            for x in self.places(key):
                self.parts.append(f'<circle class="{shape}" cx="{x:.1f}" cy="{self.y + 6:.1f}" r="3.5"/>')
            self.y += 20
        self.top = self.y
        self.y += 12 if kinds else 0

    def pixel_experts(self) -> None:
        total = self.experts["pixel_experts"]
        count, height = len(total["first"]), 130
        shares = np.zeros((len(self.bins), count))
        for row, bin_ in zip(shares, self.bins, strict=True):
            known = bin_.get("pixel_experts", {"first": []})["first"]
            row[: len(known)] = known
        self.panel("Pixels by expert", height, ["share of pixels whose", "first choice it is"])
        edges = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)], axis=1)
        for expert in range(count):
            upper = self.steps(self.y + height * (1 - edges[:, expert + 1]))
            lower = self.steps(self.y + height * (1 - edges[:, expert]))[::-1]
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in upper + lower)
            self.parts.append(f'<polygon fill="{_colour(expert)}" points="{points}"/>')
        self.legend([(e, f"{e}: {total['first'][e]:.0%}, any {total['any'][e]:.0%}") for e in range(count)])
        self.close(height)

    def image_experts(self) -> None:
        total = self.experts["image_experts"]
        pairs, row_height = total["pairs"], 10
        for branch, chosen in enumerate(total["chosen"]):
            count, height = len(chosen), len(chosen) * row_height
            pixels = np.zeros((count, WIDTH, 4), np.uint8)
            shares = self.column("image_experts", lambda found, b=branch: found["chosen"][b], count)
            for expert in range(count):
                pixels[expert, :, :3] = _blue_green_red(expert)
                pixels[expert, :, 3] = np.rint(255 * shares[self.at, expert])
            flips = total["flips"][branch]
            rate = f"{flips} flips" + (f", {100 * flips / pairs:.0f} in 100 frames" if pairs else "")
            heading = "Whole picture by expert" if branch == 0 else ""
            self.panel(heading, height, [f"branch {branch}", rate], gap=GAP if branch == 0 else 12)
            self.image(pixels, height)
            for expert in range(count):
                y = self.y + (expert + 0.5) * row_height + 3.2
                self.text(LEFT + WIDTH + 10, y, f"{expert}: {chosen[expert]:.0%}", "small", size=9.5)
            self.close(height)
            self.flip_marks(self.flips_of("image_experts", lambda found, b=branch: found["flips"][b]))

    def prompts(self) -> None:
        total = self.experts["prompts"]
        count = len(total["weights"])
        weights = self.column("prompts", lambda found: found["weights"], count)
        low, high = weights.min(), weights.max()
        levels = np.rint(255 * (weights - low) / max(high - low, 1e-9)).astype(np.uint8)
        pixels = cv2.applyColorMap(levels[self.at].T.copy(), cv2.COLORMAP_VIRIDIS)
        height = max(60, 5 * count)
        flips, pairs = total["flips"], total["pairs"]
        rate = f"{flips} flips" + (f", {100 * flips / pairs:.0f} in 100 frames" if pairs else "")
        self.panel("Prompt weights", height, [f"{count} basic prompts", "strongest changes:", rate])
        self.image(np.asarray(pixels), height)
        ramp = cv2.applyColorMap(np.arange(255, -1, -1, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
        self.image(np.asarray(ramp), 80, left=LEFT + WIDTH + 12, width=12)
        self.text(LEFT + WIDTH + 30, self.y + 10, f"{high:.3f}", "small")
        self.text(LEFT + WIDTH + 30, self.y + 80, f"{low:.3f}", "small")
        self.close(height)
        self.flip_marks(self.flips_of("prompts", lambda found: found["flips"]))

    def flicker(self) -> None:
        values = np.array([b["flicker"] if b["flicker"] is not None else np.nan for b in self.bins])
        if np.isnan(values).all():
            return
        height, top = 90, _round_up(float(np.nanmax(values)), steps=(1, 1.5, 2, 3, 4, 5, 6, 8, 10))
        self.panel("Flicker", height, ["change of blocks from", "frame to frame, of 255"])
        runs: list[list[tuple[float, float]]] = [[]]
        for x, bin_at in enumerate(self.at):
            if np.isnan(values[bin_at]):
                runs.append([])
                continue
            runs[-1].append((LEFT + x + 0.5, self.y + height * (1 - values[bin_at] / top)))
        for run in filter(None, runs):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            bottom = self.y + height
            ends = f"{run[0][0]:.1f},{bottom:.1f} {line} {run[-1][0]:.1f},{bottom:.1f}"
            self.parts.append(f'<polygon class="area" points="{ends}"/>')
            self.parts.append(f'<polyline class="line" points="{line}"/>')
        self.text(LEFT + WIDTH + 10, self.y + 10, f"{top:g}", "small")
        self.text(LEFT + WIDTH + 10, self.y + height, "0", "small")
        self.close(height)

    def finished(self) -> str:
        self.axis()
        height = self.y + 46
        cuts = "".join(
            f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top:.1f}" y2="{self.y:.1f}"/>'
            for x in self.places("cuts")
        )
        full = LEFT + WIDTH + RIGHT
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {height:.0f}" '
            f'width="{full}" height="{height:.0f}">\n<style>{_STYLE}</style>\n'
            f'<rect class="paper" width="{full}" height="{height:.0f}"/>\n'
            + "\n".join([*self.parts, cuts])
            + "\n</svg>\n"
        )

    def axis(self) -> None:
        step = _round_up((self.until - self.since) / 12)
        if self.experts["unit"] == "frames":
            step = max(1.0, np.ceil(step))
        at = np.ceil(self.since / step) * step
        while at <= self.until + 1e-9:
            x = self.x(float(at))
            self.parts.append(
                f'<line class="frame" x1="{x:.1f}" x2="{x:.1f}" y1="{self.y}" y2="{self.y + 5}"/>'
            )
            label = f"{at:g}" if self.experts["unit"] == "frames" else _clock(float(at), step)
            self.text(x, self.y + 19, label, "small", anchor="middle")
            at += step
        unit = "picture" if self.experts["unit"] == "frames" else "time in the video"
        self.text(LEFT + WIDTH + 30, self.y + 19, unit, "small")
        self.legend_of_marks()

    def legend_of_marks(self) -> None:
        x, y = LEFT, self.y + 38
        if self.any("cuts"):
            self.parts.append(f'<line class="cut" x1="{x}" x2="{x}" y1="{y - 10}" y2="{y + 2}"/>')
            self.text(x + 8, y, "a scene begins", "small")
            x += 120
        if "image_experts" in self.experts or "prompts" in self.experts:
            self.parts.append(f'<rect class="flips" x="{x}" y="{y - 8}" width="4" height="8"/>')
            self.text(x + 10, y, "the choice changed from one frame to the next (paler: less often)", "small")

    def panel(self, name: str, height: float, notes: list[str], gap: float = GAP) -> None:
        if name:
            self.y += gap - 12
            self.text(24, self.y - 6, name, "name")
        else:
            self.y += gap
        for line, note in enumerate(notes):
            self.text(24, self.y + 11 + 15 * line, note, "small")
        self.height = height

    def close(self, height: float) -> None:
        self.parts.append(
            f'<rect class="frame" x="{LEFT}" y="{self.y:.1f}" width="{WIDTH}" height="{height}"/>'
        )
        self.y += height

    def legend(self, entries: list[tuple[int, str]]) -> None:
        for line, (expert, words) in enumerate(entries):
            y = self.y + 11 + 16 * line
            x = LEFT + WIDTH + 10
            self.parts.append(
                f'<rect fill="{_colour(expert)}" x="{x}" y="{y - 9:.1f}" width="10" height="10"/>'
            )
            self.text(x + 16, y, words, "small")

    def flip_marks(self, shares: Columns) -> None:
        """Ticks under a panel, as dark as the share of a bin's frames with a flip."""
        pixels = np.zeros((1, WIDTH, 4), np.uint8)
        pixels[..., :3] = (0x33, 0x33, 0xDD)
        # A flip in a long bin is still to be seen.
        pixels[..., 3] = np.where(shares > 0, 70 + 185 * np.minimum(1, shares), 0)[self.at]
        self.image(pixels, 5)
        self.y += 5

    def flips_of(self, part: str, count: Any) -> Columns:
        found = [count(bin_[part]) if part in bin_ else 0 for bin_ in self.bins]
        return np.array(found, np.float64) / [bin_["frames"] for bin_ in self.bins]

    def column(self, part: str, values: Any, count: int) -> Columns:
        """Bins x count, what bins lack is 0."""
        rows = np.zeros((len(self.bins), count))
        for row, bin_ in zip(rows, self.bins, strict=True):
            if part in bin_:
                found = values(bin_[part])
                row[: len(found)] = found
        return rows

    def any(self, key: str) -> bool:
        return any(bin_.get(key) for bin_ in self.bins)

    def places(self, key: str) -> list[float]:
        return [self.x(bin_["from"]) for bin_ in self.bins if bin_.get(key)]

    def x(self, at: float) -> float:
        return float(LEFT + WIDTH * (at - self.since) / (self.until - self.since))

    def steps(self, heights: Columns) -> list[tuple[float, float]]:
        """One step per bin, from the left."""
        edges = [self.x(bin_["from"]) for bin_ in self.bins] + [float(LEFT + WIDTH)]
        points = []
        for height, left, right in zip(heights, edges, edges[1:], strict=False):
            points += [(left, float(height)), (right, float(height))]
        return points

    def image(
        self, pixels: NDArray[np.uint8], height: float, left: float = LEFT, width: float = WIDTH
    ) -> None:
        _, png = cv2.imencode(".png", pixels)
        data = base64.b64encode(png.tobytes()).decode()
        self.parts.append(
            f'<image x="{left}" y="{self.y:.1f}" width="{width}" height="{height}" '
            f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
        )

    def text(
        self, x: float, y: float, words: str, kind: str = "", *, anchor: str = "start", size: float = 0
    ) -> None:
        style = f' style="font-size:{size}px"' if size else ""
        self.parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>'
            f"{html.escape(words)}</text>"
        )


def _colour(expert: int) -> str:
    return COLOURS[expert % len(COLOURS)]


def _blue_green_red(expert: int) -> tuple[int, int, int]:
    value = int(_colour(expert)[1:], 16)
    return value & 255, value >> 8 & 255, value >> 16


def _round_up(value: float, steps: tuple[float, ...] = (1, 2, 5, 10)) -> float:
    """The next of ``steps`` times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * step for step in steps if power * step >= value * (1 - 1e-9)))


def _clock(seconds: float, step: float) -> str:
    digits = max(0, -int(np.floor(np.log10(step)))) if step < 1 else 0
    if seconds < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    short = f"{rest:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02d}:{short}" if hours else f"{minutes}:{short}"
