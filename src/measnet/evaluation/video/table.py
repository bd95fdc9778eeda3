"""The figures of video for people, in Markdown."""

from __future__ import annotations

from measnet.evaluation.table import NOTHING, cell, decibels, markdown, signed
from measnet.evaluation.video.figures import DEGRADED, SequenceFigures, VideoFigures


def video_tables(figures: VideoFigures) -> str:
    """Methods in the mean over all sequences; and every sequence, where there are several."""
    parts = [_by_method(figures)]
    if len(figures.sequences) > 1:
        parts.append(_by_sequence(figures))
    return "\n".join(parts)


def _by_method(figures: VideoFigures) -> str:
    one = figures.sequences[0]
    what = one.name if len(figures.sequences) == 1 else f"{len(figures.sequences)} sequences"
    lengths = sorted({sequence.length for sequence in figures.sequences})
    frames = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    title = f"Video: {what} of {frames} frames, {one.size[0]}×{one.size[1]}"
    headings = (
        "PSNR/SSIM",
        "gain, dB",
        "last frame",
        "worst frame",
        "flicker",
        "warping",
        "frames/s",
        "core s",
    )
    rows = [
        [
            method,
            cell(figures.mean(method)),
            "" if method == DEGRADED else signed(figures.gain(method)),
            _signed(figures.last(method)),
            _signed(figures.worst(method)),
            _short(figures.flicker(method)),
            _short(figures.warping(method)),
            _rate(figures.fps(method)),
            _short(figures.cores(method)),
        ]
        for method in figures.methods
    ]
    return markdown(title, ["method"], headings, rows)


def _by_sequence(figures: VideoFigures) -> str:
    """PSNR of the degraded frames, and every method's gain."""
    methods = [method for method in figures.methods if method != DEGRADED]
    rows = [
        [
            one.name,
            decibels(one.methods[DEGRADED].mean.psnr_db),
            *(signed(one.gain(method)) for method in methods),
            _worst(one),
        ]
        for one in figures.sequences
    ]
    headings = ("degraded, dB", *methods, "worst frame")
    return markdown("Sequence by sequence: gain in dB over the degraded one", ["sequence"], headings, rows)


def _worst(one: SequenceFigures) -> str:
    found = [worst for method in one.alone if (worst := one.worst(method)) is not None]
    if not found:
        return NOTHING
    number, gain = min(found, key=lambda worst: worst[1])
    return f"{signed(gain)} ({number})"


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return NOTHING if value is None else signed(value)


def _rate(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"
