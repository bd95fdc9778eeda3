"""Prompts of tasks: the scores that hold a network to one degradation.

Not published; the paper's prompt is always the image's own (eq. 1). A training run learns them when its
weights are done, from means over degraded pictures, and stores them with the weights.
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

# Those of weights are some tens; a float32 holds no number of any size.
_Score = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
_Scores = Annotated[list[_Score], msgspec.Meta(min_length=PROMPT_BASIS, max_length=PROMPT_BASIS)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Stored = Annotated[dict[_Name, _Scores], msgspec.Meta(max_length=64)]
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
