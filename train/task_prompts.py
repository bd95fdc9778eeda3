"""Learns what each task calls for (``measnet/task_prompts.py``) from the pictures that train it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from measnet.damage import GROUPS, OF_TASK
from measnet.network import MEASNet
from measnet.task_prompts import TaskPrompts
from measnet.train.cadence import Cadence
from measnet.train.data.crops import Draw, TrainingCrops
from measnet.train.degradations import field_of

CERTAIN = 0.9  # least share of the damage in the prompt of a task that a user names

NO_TASKS = ("keep", "mixture", "camera")
"""Entries of recipes that are no tasks to which a video could be held. A camera's noise is ``denoise``."""


def task_name(task: str) -> str | None:
    """The name of a recipe's ``task`` for users: without its sigma, and after the damage where it is named
    after how that is made; None for what is no task."""
    field = field_of(task)
    if field in NO_TASKS:
        return None
    return "compression" if field == "coded" else field


def said_for_certain(scores: Tensor, task: str, taught: bool) -> tuple[float, ...]:
    """The mean scores (T) of a task's pictures, as they are held: who names a task says for certain what a
    picture shows in part. Where the prompt was taught damage, the task's has at least the share ``CERTAIN``.
    """
    if taught and task in OF_TASK:
        group = GROUPS[OF_TASK[task]]
        share = scores.softmax(dim=0)[group].sum()
        if share < CERTAIN:
            scores = scores.clone()
            scores[group] += math.log(CERTAIN / (1 - CERTAIN)) - torch.logit(share)
    return tuple(scores.tolist())


def learn_task_prompts(
    network: MEASNet, crops: TrainingCrops, of_each: int = Cadence.prompt_crops
) -> TaskPrompts:
    """The prompt scores that hold a network to a task, from ``of_each`` degraded crops of every
    task; none without TSPG.

    The sigmas of one task count as one; pictures that are left alone are no task, nor are mixtures.
    ``network`` must be in evaluation mode.
    """
    if network.prompt is None:
        return {}
    draws: dict[str, list[Draw]] = {}
    for draw in crops.draws:
        if (name := task_name(draw.task)) is not None:
            draws.setdefault(name, []).append(draw)
    return {
        task: said_for_certain(_mean_scores(network, crops.only(own, of_each)), task, network.taught)
        for task, own in sorted(draws.items())
    }


def _mean_scores(network: MEASNet, crops: TrainingCrops) -> Tensor:
    assert network.prompt is not None
    device = next(network.parameters()).device
    scores: list[Tensor] = []
    with torch.inference_mode():
        for number in range(len(crops)):
            degraded, _, _ = crops[number]
            scores.append(network.prompt.scores(degraded[None].to(device)).cpu())
    return torch.cat(scores).double().mean(dim=0)


def is_collapsed(prompts: TaskPrompts) -> bool:
    """Tells whether all of several tasks use the same single basic prompt."""
    weights = [torch.tensor(scores).softmax(dim=0) for scores in prompts.values()]
    return len(weights) > 1 and all(w.max() > 0.99 and w.argmax() == weights[0].argmax() for w in weights)
