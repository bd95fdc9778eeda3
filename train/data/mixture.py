"""Mixes data sets: assigns each to the tasks that it trains, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from measnet.errors import InputError
from measnet.train.data.crops import Draw
from measnet.train.data.sets import ImageSet
from measnet.train.degradations import field_of


def mix(
    sets: Sequence[ImageSet], tasks: Mapping[str, float], *, pairs_share: float, epochs: bool
) -> list[Draw]:
    """The draws of a run.

    Real pairs train their own task; clean pictures train every task, by degrading them. By chance (not
    ``epochs``) the weight of a task that has both is split, ``pairs_share`` to the pairs; sets of one kind
    share by size. In epochs every set of a task counts its pictures as often as the task says, and clean
    pictures stand in only where a task has no set of its own. Raises ``InputError`` with every task that has
    no data.
    """
    draws: list[Draw] = []
    without = []
    for task, weight in tasks.items():
        field = field_of(task)
        own = [images for images in sets if images.task == field and not images.synthetic]
        clean = [images for images in sets if images.synthetic and images.task in (field, "clean")]
        if not own and not clean:
            without.append(task)
        elif epochs:
            exact = own or [images for images in clean if images.task == field] or clean
            draws += [Draw(images, task, weight) for images in exact]
        else:
            share = pairs_share if own and clean else float(bool(own))
            draws += _by_size(own, task, weight * share) + _by_size(clean, task, weight * (1 - share))
    if without:
        raise InputError(
            f"no data for {', '.join(without)}: give pairs of these tasks, "
            "or a folder of clean pictures to degrade"
        )
    return draws


def _by_size(sets: Sequence[ImageSet], task: str, weight: float) -> list[Draw]:
    total = sum(len(images.pairs) for images in sets)
    if weight == 0:
        return []
    return [Draw(images, task, weight * len(images.pairs) / total) for images in sets]
