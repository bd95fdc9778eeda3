"""Prompts of tasks: the mean scores that the prompt gives to pictures of one degradation.

Not published; the paper's prompt is always the image's own (eq. 1). A training run learns them when its
weights are done, as means over degraded pictures, and stores them beside the weights.
Shapes: T basic prompts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from measnet.config import PROMPT_BASIS

TaskPrompts = Mapping[str, tuple[float, ...]]
"""T scores for each task (``dehaze``), before the softmax that turns them into prompt weights."""

MOST_TASKS = 64
_KEY = "measnet.task_prompts"


def to_metadata(prompts: TaskPrompts) -> dict[str, str]:
    """The entry of a checkpoint's or a graph's metadata; none for no tasks."""
    rounded = {task: [round(score, 4) for score in scores] for task, scores in prompts.items()}
    return {_KEY: json.dumps(rounded)} if rounded else {}


def from_metadata(metadata: Mapping[str, str]) -> TaskPrompts:
    """Reads what ``to_metadata`` wrote. Raises ``ValueError`` for anything else."""
    try:
        stored = json.loads(metadata.get(_KEY, "{}"))
    except RecursionError:
        raise ValueError("task prompts nested too deep") from None
    if not isinstance(stored, dict) or len(stored) > MOST_TASKS:
        raise ValueError("task prompts that are no table of tasks")
    return {task: _scores(scores) for task, scores in stored.items()}


def _scores(scores: object) -> tuple[float, ...]:
    if not isinstance(scores, list) or len(scores) != PROMPT_BASIS:
        raise ValueError(f"a task prompt that is not {PROMPT_BASIS} scores")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError("a task prompt with a score that is no number")
    return tuple(float(score) for score in scores)
