"""Cadence of a training run: how often it looks up from its steps, and what it spends besides them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Intervals at which a run logs, shows and saves, its spending besides the steps, and its clock."""

    log_every: int = 50
    """Steps."""

    pictures_every: int = 500
    """Steps between pictures for TensorBoard."""

    save_seconds: float = 60.0
    """Between checkpoints of a run by the clock; others save by the recipe's ``save_every``."""

    most_missed: int = 20
    """Steps in a row without a finite loss, before a run from a pack gives up."""

    least_minutes: float = 0.2
    """Of a run by the clock: below this it is over before it is warm."""

    tone_steps: int = 6000
    """Of each fit of the tone (``first_tone.py``), at most."""

    prompt_crops: int = 24
    """Crops of each task that its prompt is taken of, where they are degraded on the fly."""

    prompt_batches: int = 8
    """Batches of 32 crops likewise, of a run from a pack."""

    seconds: Callable[[], float] = time.perf_counter
    """The clock of a run from a pack."""
