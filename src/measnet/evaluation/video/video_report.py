"""The figures of video for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from measnet.evaluation.evaluation_report import finite, quality_for_report
from measnet.evaluation.measure import Quality
from measnet.evaluation.video.figures import MethodFigures, SequenceFigures, VideoFigures
from measnet.evaluation.video.measure import VideoOptions
from measnet.evaluation.video.stopwatch import Taken


def video_report(figures: VideoFigures, options: VideoOptions) -> dict[str, Any]:
    """The report as it is written; ``null`` stands for what is infinite or does not exist."""
    return {
        "degrade": [step.text for step in options.chain],
        "task": options.task,
        "seed": options.seed,
        "temporal": options.temporal,
        "methods": {method: _mean(figures, method) for method in figures.methods},
        "settings_tried": {
            family: [
                {"setting": one.setting, "gain_db": finite(one.gain_db), **_taken(one.taken)} for one in tried
            ]
            for family, tried in figures.trials.items()
        },
        "sequences": [_sequence(one) for one in figures.sequences],
    }


def _mean(figures: VideoFigures, method: str) -> dict[str, Any]:
    return {
        **quality_for_report(figures.mean(method)),
        "gain_db": finite(figures.gain(method)),
        "last_frame_db": finite(figures.last(method)),
        "worst_frame_db": finite(figures.worst(method)),
        "flicker": figures.flicker(method),
        "warping": figures.warping(method),
        "fps": figures.fps(method),
        "core_seconds_per_frame": figures.cores(method),
    }


def _sequence(one: SequenceFigures) -> dict[str, Any]:
    return {
        "name": one.name,
        "width": one.size[0],
        "height": one.size[1],
        "frames": one.length,
        "clean_warping_steps": one.clean_warping,
        "methods": {method: _method(one, method, found) for method, found in one.methods.items()},
    }


def _method(one: SequenceFigures, method: str, found: MethodFigures) -> dict[str, Any]:
    worst = one.worst(method)
    return {
        **quality_for_report(found.mean),
        "gain_db": finite(one.gain(method)),
        "worst_frame": None if worst is None else {"number": worst[0], "gain_db": finite(worst[1])},
        "flicker": found.flicker,
        "warping": one.warping(method),
        "warping_steps": found.warping,
        **_taken(found.taken),
        "per_frame": _frames(found.frames),
    }


def _frames(frames: Sequence[Quality]) -> dict[str, list[float | None]]:
    return {
        "psnr_db": [finite(quality.psnr_db) for quality in frames],
        "ssim": [quality.ssim for quality in frames],
    }


def _taken(taken: Taken | None) -> dict[str, float | None]:
    return {
        "seconds_per_frame": None if taken is None else taken.clock,
        "core_seconds_per_frame": None if taken is None else taken.cores,
    }
