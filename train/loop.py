"""The training loop: plain, resumable, on one process or on several."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from measnet.errors import MEASNetError, UsageError
from measnet.network import MEASNet
from measnet.network.pixel_experts import NoisyRouting
from measnet.train.cadence import Cadence
from measnet.train.data.crops import Augmentation, TrainingCrops
from measnet.train.data.mixture import mix
from measnet.train.data.sets import ImageSet
from measnet.train.journal import Journal
from measnet.train.losses import TrainingStep
from measnet.train.moving_average import MovingAverage
from measnet.train.optimizer import WeightUpdates
from measnet.train.processes import Processes, per_sample_noise
from measnet.train.recipe import Recipe
from measnet.train.renewal import renew_routing
from measnet.train.run_folder import Progress, RunFolder
from measnet.train.steadiness import Look, looks_at
from measnet.train.task_prompts import learn_task_prompts

OUT_OF_MEMORY = ("allocate memory", "could not create a primitive", "could not execute a primitive")
"""Parts of errors that mean that memory ran out on a CPU: PyTorch's allocator's, and two of oneDNN, which
gives no reason."""

Batch = tuple[Tensor, Tensor, Tensor]


class TrainingError(MEASNetError):
    """Training could not go on: the loss left the numbers, or memory ran out."""


@dataclass(frozen=True)
class Start:
    """The start of a run, beside its recipe. The run stores it, and resumes with no other."""

    weights: MEASNet | None = None
    """Weights to go on from; ``None`` starts from random ones."""

    teacher: MEASNet | None = None
    """A larger network to learn from."""

    origin: tuple[tuple[str, str], ...] = ()
    """The origins of the two, in words."""

    renew_routing: bool = False
    """True where prompt and pixel router of ``weights`` are made anew (``measnet/train/renewal.py``)."""


def train(
    recipe: Recipe,
    sets: Sequence[ImageSet],
    out: Path,
    *,
    start: Start = Start(),
    workers: int = 1,
    on_step: Callable[[int, int, dict[str, float]], None] = lambda step, steps, figures: None,
    stop: threading.Event | None = None,
    cadence: Cadence = Cadence(),  # noqa: B008 - immutable
) -> MEASNet:
    """Runs ``recipe`` on ``sets``; goes on where a run in ``out`` stopped.

    Returns the moving average of the weights. ``on_step`` hears of every step: its number from 1, how many
    there are, and its figures (loss, l1, balance, seconds, share of the time spent waiting for data).

    Once ``stop`` is set, the run is saved behind the step under way, and ``KeyboardInterrupt`` raised. Under
    torchrun, every process runs this with the same arguments, and without it. Raises ``UsageError``,
    ``OutputError`` and ``TrainingError``.
    """
    with Processes() as processes:
        return _train(
            recipe, sets, out, start, workers, on_step, stop or threading.Event(), cadence, processes
        )


def _train(
    recipe: Recipe,
    sets: Sequence[ImageSet],
    out: Path,
    start: Start,
    workers: int,
    on_step: Callable[[int, int, dict[str, float]], None],
    stop: threading.Event,
    cadence: Cadence,
    processes: Processes,
) -> MEASNet:
    _check_start(recipe, start)
    share = processes.part_of(recipe.batch)
    device = processes.device
    crops = _crops(recipe, sets)
    steps, steps_of_epoch = _lengths(recipe, crops)
    crops.samples = steps * recipe.batch

    torch.manual_seed(recipe.seed)
    network = MEASNet(recipe.config)
    if start.weights is not None:
        network.load_state_dict(start.weights.state_dict())
        if start.renew_routing:
            renew_routing(network, crops, recipe.seed)
    network.train()
    network.recompute_blocks(recipe.recompute)
    average = copy.deepcopy(network).requires_grad_(False)
    network, average = network.to(device), average.to(device)
    bf16 = _uses_bf16(recipe, device)
    if bf16 and device.type == "cpu":
        keep_channels_together(network)
    updates = WeightUpdates(network, recipe)
    folder = RunFolder(out)
    done = folder.resume(recipe, dict(start.origin), network, average, updates).step
    processes.join_norms(network)
    moving = MovingAverage(average, network, recipe.ema_decay)
    teacher = None if start.teacher is None else start.teacher.to(device)
    step_losses = processes.wrap(TrainingStep(network, recipe, teacher))
    batches = _batches(crops, recipe.batch, processes, done=done, steps=steps, workers=workers)

    with (
        Journal(out, [draw.task for draw in crops.draws], done, cadence.pictures_every)
        if processes.leads
        else Journal.silent() as journal
    ):
        for step in range(done + 1, steps + 1):
            began = time.perf_counter()
            degraded, clean, draws = next(batches)
            fed = time.perf_counter()
            degraded, clean = degraded.to(device), clean.to(device)
            rate = learning_rate(recipe, step, steps, steps_of_epoch)
            first = (step - 1) * recipe.batch + processes.rank * share
            noisy = NoisyRouting(
                draw=per_sample_noise(recipe.seed, first, share, device),
                total=processes.total,
                balance=recipe.balance,
            )
            updates.forget_gradients()
            looks = looks_at(recipe.seed, first, share)
            losses = _losses_and_gradients(step_losses, degraded, clean, noisy, bf16, looks)
            figures = {
                name: processes.mean(value).item() for name, value in losses.items() if value.ndim == 0
            }
            if not math.isfinite(figures["loss"]):
                kept = folder.keep_batch(step, degraded, clean)
                raise TrainingError(
                    f"the loss is {figures['loss']} at step {step}; the batch is saved in {kept}, "
                    "lower learning_rate or clip_norm and start again"
                )
            if recipe.clip_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            updates.step(rate)
            moving.follow(step)
            journal.watch(degraded, losses, clean, draws)
            figures["learning_rate"] = rate
            figures["seconds"] = time.perf_counter() - began
            figures["data_wait"] = (fed - began) / figures["seconds"]
            if processes.leads and (step % cadence.log_every == 0 or step == steps):
                figures |= journal.write(step, figures)
                folder.log(step, figures)
            on_step(step, steps, figures)
            stopped = stop.is_set() and step < steps
            if processes.leads and (step % recipe.save_every == 0 or step == steps or stopped):
                folder.save(recipe, dict(start.origin), Progress(step), network, average, updates)
            if stopped:
                raise KeyboardInterrupt
    average.eval()
    if processes.leads:
        average.task_prompts = learn_task_prompts(average, crops, cadence.prompt_crops)
        folder.save_weights(dict(start.origin), steps, average)
    return average


def learning_rate(recipe: Recipe, step: int, steps: int, steps_of_epoch: int) -> float:
    """The rate of ``step`` (from 1), by the recipe's schedule."""
    if recipe.schedule == "released":
        # Lightning Bolts' LinearWarmupCosineAnnealingLR(warmup_epochs=15, max_epochs=180), per epoch.
        epoch = (step - 1) // steps_of_epoch
        if epoch < 15:
            return recipe.learning_rate * epoch / 14
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1, (epoch - 15) / 165)))
    if step <= recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return recipe.learning_rate * decline(progress)


def decline(done: float) -> float:
    """The cosine of our schedules: 1 at the beginning of a run, a hundredth at its end."""
    return 0.01 + 0.99 * (0.5 * (1 + math.cos(math.pi * done)))


def _check_start(recipe: Recipe, start: Start) -> None:
    if start.weights is not None and start.weights.config != recipe.config:
        raise UsageError(
            "the weights to start from are of another configuration than the recipe's network; "
            "give weights of the same variant"
        )
    distills = bool(recipe.distill_output or recipe.distill_routing)
    if distills and start.teacher is None:
        raise UsageError("this recipe learns from a teacher: add --teacher WEIGHTS, or set distill_* to 0")
    if start.teacher is not None and not distills:
        raise UsageError("a teacher is given, but the recipe's distill_output and distill_routing are both 0")
    if start.teacher is not None:
        rule = start.teacher.config.size_rule
        if rule.fit(recipe.crop, recipe.crop) != (recipe.crop, recipe.crop):
            raise UsageError(
                f"the teacher takes crops of at least {rule.minimum}, multiples of {rule.multiple}"
            )


def _crops(recipe: Recipe, sets: Sequence[ImageSet]) -> TrainingCrops:
    epochs = recipe.epochs > 0
    return TrainingCrops(
        mix(sets, recipe.tasks, pairs_share=recipe.pairs_share, epochs=epochs),
        crop=recipe.crop,
        samples=0,
        seed=recipe.seed,
        epochs=epochs,
        augmentation=Augmentation(recipe.turns, recipe.zoom, recipe.zoom_pairs, recipe.dim, recipe.plain),
    )


def _lengths(recipe: Recipe, crops: TrainingCrops) -> tuple[int, int]:
    """Steps of the run, and of an epoch (the last batch of an epoch may reach into the next)."""
    if crops.order is None:
        return recipe.steps, recipe.steps
    return len(crops.order) * recipe.epochs // recipe.batch, -(-len(crops.order) // recipe.batch)


def keep_channels_together(network: MEASNet) -> None:
    """Lays the channels of a pixel side by side in all kernels, as oneDNN's kernels for bf16 want them."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _uses_bf16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"


def _losses_and_gradients(
    step: nn.Module,
    degraded: Tensor,
    clean: Tensor,
    noisy: NoisyRouting,
    bf16: bool,
    looks: Sequence[Look],
) -> dict[str, Tensor]:
    try:
        losses: dict[str, Tensor] = step(degraded, clean, noisy, bf16, looks)
        losses["loss"].backward()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
            raise TrainingError(
                f"memory ran out on a batch of {len(degraded)} crops of {degraded.shape[-1]} pixels: "
                "lower batch or crop in the recipe, or set recompute = true"
            ) from error
        raise
    return losses


def _batches(
    crops: TrainingCrops, batch: int, processes: Processes, *, done: int, steps: int, workers: int
) -> Iterator[Batch]:
    """This process's part of every batch that is left."""
    share = processes.part_of(batch)
    starts = (step * batch + processes.rank * share for step in range(done, steps))
    parts = (list(range(start, start + share)) for start in starts)
    # A generator of its own: the loader must not draw from anybody else's.
    own = torch.Generator().manual_seed(0)
    pinned = processes.device.type == "cuda"
    return iter(
        DataLoader(
            crops,
            batch_sampler=parts,
            num_workers=workers,
            generator=own,
            pin_memory=pinned,
            worker_init_fn=_leave_signals_to_us if workers else None,
        )
    )


def _leave_signals_to_us(worker: int) -> None:
    """Ctrl-C reaches workers too, whose samples the step under way may still need."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
