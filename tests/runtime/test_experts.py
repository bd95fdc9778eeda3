"""The account of the experts in a report: exact counts, bounded memory, a picture that stands alone."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from measnet.image import Pixels
from measnet.metrics import Choices
from measnet.network.measnet import NO_EXPERT
from measnet.runtime.experts import MOST_BINS, Experts
from measnet.runtime.experts_picture import EXPERTS, draw
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.scene_cut import SceneCut

from .conftest import Answer, MakeClip
from .identity import IdentityRestorer

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
OTHER = np.asarray(255 - PICTURE, np.uint8)


@dataclass
class Restored:
    """As a restorer gives it, in tiles."""

    choices: list[Choices]
    prompt_weights: list[np.ndarray[Any, np.dtype[np.float32]]] = field(default_factory=list)


def tile(pixels: int = 0, image: list[list[int]] | None = None) -> Choices:
    """Whose pixels all choose the expert ``pixels`` first and the next one too."""
    maps = np.stack([np.full((12, 16), pixels + k, np.uint8) for k in range(2)])[None]
    return Choices(maps, np.array([image or [[0, 1], [2, NO_EXPERT]]], np.uint8))


def prompt(strongest: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    weights = np.full((1, 4), 0.2, np.float32)
    weights[0, strongest] = 0.4
    return weights


def looked_at(frames: list[tuple[Pixels, Restored]], faulty: bool = False) -> dict[str, Any]:
    experts = Experts()
    scenes = SceneCut()
    for number, (pixels, restored) in enumerate(frames):
        passing = Restoration(
            Frame(pixels, number, Fraction(1, 25), 1),
            pixels,
            new_scene=scenes.begins_with(pixels),
            choices=restored.choices,
            prompt_weights=restored.prompt_weights,
            faulty=faulty,
        )
        experts.finished(passing)
    report = experts.for_report()
    assert report is not None
    return report


def test_shares_and_weights_are_means_over_tiles_and_frames() -> None:
    frames = [
        Restored([tile(0), tile(2)], [prompt(0), prompt(1)]),
        Restored([tile(0), tile(0)], [prompt(0)] * 2),
    ]
    report = looked_at([(PICTURE, frame) for frame in frames])
    assert report["pixel_experts"]["first"] == [0.75, 0, 0.25, 0]
    assert report["pixel_experts"]["any"] == [0.75, 0.75, 0.25, 0.25]
    assert report["pixel_experts"]["changed"] == 0.5
    assert report["prompts"]["weights"] == pytest.approx([0.35, 0.25, 0.2, 0.2])
    assert report["image_experts"]["chosen"] == [[1, 1, 0], [0, 0, 1]]  # NO_EXPERT is none


def test_flips_are_changes_of_the_set_and_not_counted_across_a_cut() -> None:
    first, turned = [[0, 1], [2, NO_EXPERT]], [[1, 0], [2, NO_EXPERT]]
    changed = [[0, 3], [2, NO_EXPERT]]
    choices = [first, turned, changed, changed, first]
    prompts = [0, 0, 1, 0, 2]
    pictures = [PICTURE, PICTURE, PICTURE, PICTURE, OTHER]
    report = looked_at(
        [
            (pixels, Restored([tile(0, image)], [prompt(strongest)]))
            for pixels, image, strongest in zip(pictures, choices, prompts, strict=True)
        ]
    )
    assert report["scene_cuts"] == 1
    assert report["image_experts"]["flips"] == [1, 0] and report["image_experts"]["pairs"] == 3
    assert report["prompts"]["flips"] == 2 and report["prompts"]["pairs"] == 3


def test_a_long_run_keeps_few_bins_and_every_flip() -> None:
    count = 2 * MOST_BINS + 101
    small = PICTURE[:8, :8]
    frames = [(small, Restored([tile(n % 2)], [prompt(int(n % 3 == 0))])) for n in range(count)]
    report = looked_at(frames, faulty=True)
    over_time = report["over_time"]
    assert len(over_time["bins"]) <= MOST_BINS and over_time["frames_per_bin"] == 4
    assert sum(b["frames"] for b in over_time["bins"]) == report["frames"] == report["faults"] == count
    flips = sum((n % 3 == 0) != ((n - 1) % 3 == 0) for n in range(1, count))
    assert report["prompts"]["flips"] == sum(b["prompts"]["flips"] for b in over_time["bins"]) == flips
    assert over_time["bins"][-1]["to"] == pytest.approx(count / 25)


@pytest.mark.parametrize(
    ("restored", "told"),
    [
        (Restored([]), set()),
        (Restored([Choices(None, None)]), set()),
        (Restored([tile()]), {"pixel_experts", "image_experts"}),
        (Restored([Choices(None, None)], [prompt(1)]), {"prompts"}),
    ],
    ids=["nothing", "no routers", "no prompt", "a prompt alone"],
)
def test_what_an_engine_does_not_tell_is_left_out_of_report_and_picture(
    restored: Any, told: set[str]
) -> None:
    report = looked_at([(PICTURE, restored)] * 3)
    assert {"prompts", "pixel_experts", "image_experts"} & report.keys() == told
    assert ("Prompt weights" in draw("clip", report)) == ("prompts" in told)


def test_the_picture_needs_nothing_else_and_takes_any_name() -> None:
    report = looked_at([(PICTURE, Restored([tile(n % 3)], [prompt(n % 2)])) for n in range(30)])
    svg = draw("<a & $b$> 日本.mp4", report)
    root = ElementTree.fromstring(svg)
    assert "<a & $b$> 日本.mp4" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    images = [
        image.get("{http://www.w3.org/1999/xlink}href", "") for image in root.iter() if "image" in image.tag
    ]
    assert images and all(image.startswith("data:") for image in images)
    assert "script" not in svg and "url(http" not in svg
    assert all(colour in svg for colour in EXPERTS[:4]) and "cross: a fault" in svg
    assert "clip?.mp4" in draw("clip\udcff.mp4", report)  # of a file whose name is no text
    assert "…" in draw("long" * 60, report)


class Routed(IdentityRestorer):
    """Changes nothing, and says who did it."""

    def restore(self, pixels: Pixels) -> RestoredFrame:
        return replace(super().restore(pixels), choices=[tile()], prompt_weights=[prompt(1)])


def test_a_run_with_a_report_has_its_experts_in_it_and_a_picture_for_each_video(
    measnet_run: Callable[..., Answer], clip: MakeClip, tmp_path: Path
) -> None:
    measnet_run = partial(measnet_run, engine=Routed)
    first, second = clip("one.mp4"), clip("two.mp4", seconds=0.4)
    report = tmp_path / "run.json"
    assert measnet_run(first, "-o", tmp_path / "a.mp4", "--report", report, "--temporal", "0").status == 0
    (run,) = json.loads(report.read_text())["runs"]
    assert run["experts"]["frames"] == 20 and run["experts"]["flicker"] == 0
    assert run["experts"]["over_time"]["bins"][-1]["to"] == pytest.approx(0.8)
    assert run["experts"]["picture"] == "run.svg" and (tmp_path / "run.svg").exists()
    assert measnet_run(first, second, "-o", tmp_path, "--report", report, "--frames", "3").status == 0
    pictures = [run["experts"]["picture"] for run in json.loads(report.read_text())["runs"]]
    assert pictures == ["run.1.svg", "run.2.svg"] and all((tmp_path / name).exists() for name in pictures)
    assert not list(tmp_path.glob("*.part"))


def test_a_run_without_a_picture_does_not_wait_for_what_would_draw_it() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from measnet.runtime.run_report import RunReport, write_pictures\n"
        "assert write_pictures(Path('run.json'), [RunReport('camera:0')]) == []\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
