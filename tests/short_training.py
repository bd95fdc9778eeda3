"""Training that is over soon, by whichever clock, and with what its passes are made to give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from measnet.network.measnet import TrainingPass
from measnet.train.cadence import Cadence

SOON = Cadence(tone_steps=5, prompt_batches=1, prompt_crops=4)
"""Shortens what a run does besides its steps: the fit of the tone (``test_first_tone.py`` has the whole fit),
and the look at crops of each task that ends it (the smoke run of ``test_cli.py`` has the whole)."""

Change = Callable[[Tensor, TrainingPass], TrainingPass]
"""A change of a training pass: its inputs and its outcome -> the outcome to give instead."""


@contextlib.contextmanager
def passes_changed(change: Change) -> Iterator[None]:
    """Lets ``change`` see what goes into every training pass of a run from a pack, and replace what comes
    out: a hook of PyTorch's."""

    def hook(module: nn.Module, given: Any, passed: Any) -> Any:
        return change(given[0], passed) if isinstance(passed, TrainingPass) else None

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class HalfSeconds:
    """A clock of runs from a pack that every training pass moves by half a second, and nothing else does."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    @property
    def cadence(self) -> Cadence:
        return replace(SOON, seconds=self, least_minutes=0.01)
