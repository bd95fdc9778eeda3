"""The training loop: plain, resumable, one process.

A run folder holds ``checkpoint.pt`` (everything needed to go on), ``weights.safetensors`` (the moving
average of the weights, for use) and ``log.jsonl`` (a line per 50 steps).
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from measnet.checkpoint import save_checkpoint
from measnet.errors import CheckpointError, MEASNetError, OutputError, UsageError, first_line
from measnet.network import MEASNet
from measnet.train.data import DegradedCrops
from measnet.train.recipe import Recipe
from measnet.whole_file import write_whole

LOG_EVERY = 50  # steps


class TrainingError(MEASNetError):
    """The loss left the numbers."""


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    workers: int = 1,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> MEASNet:
    """Runs ``recipe`` on the clean pictures in ``data``; goes on where a run in ``out`` stopped.

    Returns the moving average of the weights. ``on_step`` hears of every step: its number from 1 and its
    figures (loss, l1, balance, seconds, share of the time spent waiting for data).
    """
    torch.manual_seed(recipe.seed)
    network = MEASNet(recipe.config).train()
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    crops = DegradedCrops(
        data, recipe.tasks, crop=recipe.crop, samples=recipe.steps * recipe.batch, seed=recipe.seed
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the run folder {out}: {error.strerror}") from None
    done = _resume(out / "checkpoint.pt", recipe, network, average, optimizer)
    batches = _batches(crops, recipe.batch, start=done, workers=workers)
    for step in range(done + 1, recipe.steps + 1):
        began = time.perf_counter()
        degraded, clean = next(batches)
        fed = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        figures = _update(recipe, network, optimizer, degraded, clean)
        if not math.isfinite(figures["loss"]):
            torch.save({"step": step, "degraded": degraded, "clean": clean}, out / "bad_batch.pt")
            raise TrainingError(
                f"the loss is {figures['loss']} at step {step}; the batch is saved in {out}/bad_batch.pt, "
                "lower learning_rate or clip_norm and start again"
            )
        _move_average(average, network, recipe.ema_decay, step)
        figures["seconds"] = time.perf_counter() - began
        figures["data_wait"] = (fed - began) / figures["seconds"]
        on_step(step, figures)
        if step % LOG_EVERY == 0 or step == recipe.steps:
            _log(out / "log.jsonl", {"step": step, **figures})
        if step % recipe.save_every == 0 or step == recipe.steps:
            _save(out, recipe, step, network, average, optimizer)
    return average.eval()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak at the last step."""
    if step <= recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.learning_rate * (0.01 + 0.99 * cosine)


def _update(
    recipe: Recipe,
    network: MEASNet,
    optimizer: torch.optim.Optimizer,
    degraded: Tensor,
    clean: Tensor,
) -> dict[str, float]:
    restored, balance = network.forward_training(degraded)
    l1 = (restored - clean).abs().mean()  # eq. 11
    loss = l1 + recipe.balance_weight * balance  # eq. 12
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimizer.step()
    return {"loss": loss.item(), "l1": l1.item(), "balance": balance.item()}


def _move_average(average: MEASNet, network: MEASNet, decay: float, step: int) -> None:
    decay = min(decay, step / (step + 10))  # the first steps count less than they otherwise would
    ours, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)


def _batches(
    crops: DegradedCrops, batch: int, *, start: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    left = Subset(crops, range(start * batch, len(crops)))
    # A generator of its own: the loader must not draw from the one that makes the routing noise.
    own = torch.Generator().manual_seed(0)
    return iter(DataLoader(left, batch_size=batch, num_workers=workers, generator=own))


def _save(
    out: Path,
    recipe: Recipe,
    step: int,
    network: MEASNet,
    average: MEASNet,
    optimizer: torch.optim.Optimizer,
) -> None:
    state = {
        "recipe": dataclasses.asdict(recipe),
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(out / "checkpoint.pt", content.getvalue())
    save_checkpoint(average, out / "weights.safetensors", {"measnet.steps": str(step)})


def _resume(
    path: Path,
    recipe: Recipe,
    network: MEASNet,
    average: MEASNet,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Takes up the run saved at ``path``; returns how many steps it had done, 0 if there is none."""
    if not path.is_file():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        stored = state["recipe"]
    except Exception as error:
        raise CheckpointError(
            f"cannot resume from {path}: {first_line(error)}; remove it to start over"
        ) from None
    ours = dataclasses.asdict(recipe)
    changed = sorted(name for name in ours if ours[name] != stored.get(name))
    if changed:
        raise UsageError(
            f"{path.parent} holds a run with other settings ({', '.join(changed)}); "
            "give another --out folder, or the recipe it was started with"
        )
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def _log(path: Path, line: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps({name: round(value, 6) for name, value in line.items()}) + "\n")
