"""Prompts of tasks: the mean scores that the prompt gives to pictures of one degradation.

Not published; the paper's prompt is always the image's own (eq. 1). A training run learns them when its
weights are done, as means over degraded pictures, and stores them beside the weights.
Shapes: T basic prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import msgspec

from measnet.config import PROMPT_BASIS

TaskPrompts = Mapping[str, tuple[float, ...]]
"""T scores for each task (``dehaze``), before the softmax that turns them into prompt weights."""

_Scores = Annotated[list[float], msgspec.Meta(min_length=PROMPT_BASIS, max_length=PROMPT_BASIS)]
_Stored = Annotated[dict[str, _Scores], msgspec.Meta(max_length=64)]
_KEY = "measnet.task_prompts"


def to_metadata(prompts: TaskPrompts) -> dict[str, str]:
    """The entry of a checkpoint's or a graph's metadata; none for no tasks."""
    rounded = {task: [round(score, 4) for score in scores] for task, scores in prompts.items()}
    return {_KEY: json.dumps(rounded)} if rounded else {}


def from_metadata(metadata: Mapping[str, str]) -> TaskPrompts:
    """Reads what ``to_metadata`` wrote. Raises ``ValueError`` for anything else."""
    try:
        stored = msgspec.json.decode(metadata.get(_KEY, "{}"), type=_Stored)
    except RecursionError:
        raise ValueError("task prompts nested too deep") from None
    return {task: tuple(scores) for task, scores in stored.items()}
