"""Training from a pack: everything on one device, for a number of steps or until a clock runs out.

The loop for rented time. What it draws, degrades and measures stays on the device, the network is compiled
where that pays, and the schedule ends when the minutes do.
Shapes: B batch, V pictures that are seen twice, S side of a crop.
"""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.damage import shares_of, wanted_shares
from measnet.errors import UsageError
from measnet.network import MEASNet
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import NoisyRouting
from measnet.task_prompts import TaskPrompts
from measnet.train.data.pack import Pack
from measnet.train.data.packed_crops import PackedBatch, PackedCrops
from measnet.train.loop import OUT_OF_MEMORY, Start, TrainingError
from measnet.train.losses import NEAR
from measnet.train.optimizer import WeightUpdates
from measnet.train.recipe import Recipe
from measnet.train.run_folder import Progress, RunFolder
from measnet.train.steadiness import BLOCK, GAIN, GRAIN, LITTLE, TONED
from measnet.train.task_prompts import task_name

LEAST_MINUTES = 0.2  # below this a run is over before it is warm
SAVE_SECONDS = 120.0  # between checkpoints of a run by the clock
LOG_EVERY = 50  # steps
TWICE = 16  # of so many samples one is seen twice
SHIFT = BLOCK  # pixels that a camera has moved between two looks, at most
SMALLEST_BATCH = 4
MOST_MISSED = 20  # steps in a row without a finite loss


@dataclass(frozen=True)
class Clock:
    """When a run ends: by its steps, or by its minutes."""

    steps: int
    minutes: float | None

    def __post_init__(self) -> None:
        if self.minutes is not None and self.minutes < LEAST_MINUTES:
            raise UsageError(
                f"--minutes {self.minutes:g} is too short to train and save anything; "
                f"give at least {LEAST_MINUTES:g}"
            )

    def done(self, step: int, seconds: float) -> float:
        """The share of the run that is over before ``step`` (from 1), 0 to 1."""
        if self.minutes is not None:
            return min(1.0, seconds / (self.minutes * 60))
        return min(1.0, (step - 1) / self.steps)


class StepFigures(NamedTuple):
    """What a run reports every ``LOG_EVERY`` steps, as means since the last time."""

    step: int
    done: float
    """Share of the run, 0 to 1."""

    figures: dict[str, float]


def train_packed(
    recipe: Recipe,
    pack: Pack,
    out: Path,
    *,
    start: Start = Start(),
    minutes: float | None = None,
    on_figures: Callable[[StepFigures], None] = lambda figures: None,
    on_event: Callable[[str], None] = lambda words: None,
) -> MEASNet:
    """Runs ``recipe`` on ``pack``; goes on where a run in ``out`` stopped. Returns the moving average.

    With ``minutes`` the run ends, cosine and all, when so much time was spent on it, in however many parts.
    ``on_event`` hears what a user should know (a batch that had to be halved, say). Raises ``UsageError``,
    ``OutputError`` and ``TrainingError``.
    """
    return _Run(recipe, pack, out, start, Clock(recipe.steps, minutes), on_event).train(on_figures)


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        pack: Pack,
        out: Path,
        start: Start,
        clock: Clock,
        on_event: Callable[[str], None],
    ) -> None:
        self.began = time.perf_counter()
        if not recipe.steps:
            raise UsageError("a recipe that counts epochs cannot train from a pack; give steps")
        self.recipe, self.clock, self.on_event = recipe, clock, on_event
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.origin = dict(start.origin)
        torch.manual_seed(recipe.seed)
        network = MEASNet(recipe.config)
        if start.weights is not None:
            network.load_state_dict(start.weights.state_dict())
        network.taught = recipe.teach_weight > 0 and network.prompt is not None
        network.train()
        network.ask_all_experts()
        self.network = network.to(self.device)
        if self.device.type == "cpu" and recipe.precision == "bf16":
            for parameter in network.parameters():  # as oneDNN's bf16 kernels want them
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and self.device.type == "cuda")
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        self.updates = WeightUpdates(self.network, recipe)
        self.folder = RunFolder(out)
        self.before = self.folder.resume(recipe, self.origin, self.network, self.average, self.updates)
        self.missed = 0
        self.batch = self.before.batch or recipe.batch
        self.crops = PackedCrops(
            pack.to(self.device),
            recipe.tasks,
            crop=recipe.crop,
            seed=recipe.seed,
            pairs_share=recipe.pairs_share,
        )
        self._tracked = [
            (ours, theirs)
            for ours, theirs in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            )
            if ours.is_floating_point()
        ]
        self._psnr: list[tuple[Tensor, Tensor]] = []
        forward = _Forward(self.network)
        self.forward = torch.compile(forward) if self.device.type == "cuda" else forward

    @property
    def seconds(self) -> float:
        """Spent on this run, in this part of it and before."""
        return self.before.seconds + time.perf_counter() - self.began

    def train(self, on_figures: Callable[[StepFigures], None]) -> MEASNet:
        step, saved = self.before.step, time.perf_counter()
        gathered: defaultdict[str, list[Tensor]] = defaultdict(list)
        since, last = step, time.perf_counter()
        while (done := self.clock.done(step + 1, self.seconds)) < 1:
            step += 1
            for name, value in self._step(step, done).items():
                gathered[name].append(value)
            if step % LOG_EVERY == 0:
                figures = {name: torch.stack(values).mean().item() for name, values in gathered.items()}
                figures |= self._psnr_by_task()
                now = time.perf_counter()
                figures["pictures_per_second"] = (step - since) * self.batch / (now - last)
                figures["minutes"] = self.seconds / 60
                since, last = step, now
                gathered.clear()
                self.folder.log(step, figures)
                on_figures(StepFigures(step, done, figures))
            due = time.perf_counter() - saved > SAVE_SECONDS
            if due if self.clock.minutes is not None else step % self.recipe.save_every == 0:
                self._save(step)
                saved = time.perf_counter()
        self.average.eval()
        self.average.ask_all_experts(False)
        self.average.task_prompts = self._task_prompts()
        if step > self.before.step:
            self._save(step)
        return self.average

    def _save(self, step: int) -> None:
        progress = Progress(step, self.seconds, self.batch)
        self.folder.save(self.recipe, self.origin, progress, self.network, self.average, self.updates)

    def _step(self, step: int, done: float) -> dict[str, Tensor]:
        while True:
            try:
                return self._try_step(step, done)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                out = isinstance(error, torch.OutOfMemoryError)
                if not out and not any(words in str(error) for words in OUT_OF_MEMORY):
                    raise
                if self.batch // 2 < SMALLEST_BATCH:
                    raise TrainingError(
                        f"memory ran out on a batch of {self.batch} crops of {self.recipe.crop} pixels: "
                        "lower crop in the recipe"
                    ) from error
                self.batch //= 2
            self.updates.forget_gradients()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.on_event(f"memory ran out: going on with {self.batch} crops a step")

    def _try_step(self, step: int, done: float) -> dict[str, Tensor]:
        recipe = self.recipe
        batch = self.crops.batch(step, self.batch)
        rng = torch.Generator(self.device).manual_seed((recipe.seed << 32) + step + (1 << 30))
        twice = (step * self.batch // TWICE - (step - 1) * self.batch // TWICE) if recipe.steady_weight else 0
        looks = _two_looks(batch.degraded[:twice], rng, step) if twice else None
        given = batch.degraded if looks is None else torch.cat([batch.degraded, looks.first, looks.second])
        scale = self.network.config.stem_scale
        experts = self.network.config.pixel_experts[0]
        noise = torch.randn(
            (len(given), experts, given.shape[2] // scale, given.shape[3] // scale),
            generator=rng,
            device=self.device,
        )
        fade = max(0.0, 1 - done / recipe.quiet_share) if recipe.quiet_share else 1.0
        self.updates.forget_gradients()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            passed = self.forward(given, noise * fade)
        losses = self._losses(batch, given, passed, looks)
        losses["loss"].backward()
        if recipe.clip_norm:
            losses["gradient"] = nn.utils.clip_grad_norm_(
                self.network.parameters(), recipe.clip_norm
            ).detach()
        if not all(math.isfinite(value) for value in torch.stack(list(losses.values())).tolist()):
            self._forget_step(step)
            return {}
        self.missed = 0
        self.updates.step(_rate(recipe, step, done))
        self._move_average(step)
        return {name: value.detach().float() for name, value in losses.items()}

    def _losses(
        self, batch: PackedBatch, given: Tensor, passed: TrainingPass, looks: _Looks | None
    ) -> dict[str, Tensor]:
        recipe, size = self.recipe, len(batch.clean)
        restored = passed.restored.float()
        error = restored[:size] - batch.clean  # B 3 S S
        l1_of_picture = error.abs().mean(dim=(1, 2, 3))  # B
        losses = {"l1": l1_of_picture.mean(), "balance": passed.balance.float()}
        distance = (l1_of_picture + NEAR).log().mean() if recipe.loss == "log_l1" else losses["l1"]
        loss = distance + recipe.balance_weight * losses["balance"]
        if recipe.z_weight:
            losses["router_size"] = passed.router_size.float()
            loss = loss + recipe.z_weight * losses["router_size"]
        if recipe.teach_weight and passed.prompt_weights is not None:
            said = shares_of(passed.prompt_weights[:size].float()).clamp(min=1e-6)  # B D+1
            wanted = wanted_shares(batch.damage)
            losses["taught"] = (wanted * (wanted.clamp(min=1e-6).log() - said.log())).sum(dim=1).mean()
            loss = loss + recipe.teach_weight * losses["taught"]
        if looks is not None:
            change = restored[size:] - given[size:]
            losses["unsteady"] = looks.unsteadiness(*change.chunk(2))
            loss = loss + recipe.steady_weight * losses["unsteady"]
        squared = error.detach().square().mean(dim=(1, 2, 3)).clamp_min(1e-12)  # B
        self._psnr.append((batch.tasks, -10 * squared.log10()))
        losses["loss"] = loss
        return losses

    def _forget_step(self, step: int) -> None:
        """Leaves out a step whose loss or gradient is no number: it happens, rarely, in 16 bits.

        Raises ``TrainingError`` when it happens again and again.
        """
        self.missed += 1
        self.updates.forget_gradients()
        self._psnr.pop()
        buffers = dict(self.average.named_buffers())
        for name, buffer in self.network.named_buffers():  # the running figures of FD's norm
            buffer.copy_(buffers[name])
        if self.missed > MOST_MISSED:
            raise TrainingError(
                f"no step from {step - MOST_MISSED} on gave a finite loss; "
                "lower learning_rate and go on with the same command, from the last checkpoint"
            )

    def _move_average(self, step: int) -> None:
        decay = min(self.recipe.ema_decay, step / (step + 10))  # the first steps count less
        ours, theirs = ([pair[side] for pair in self._tracked] for side in (0, 1))
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def _psnr_by_task(self) -> dict[str, float]:
        """The mean PSNR of each task's crops since the last time, dB."""
        tasks = torch.cat([tasks for tasks, _ in self._psnr])
        psnr = torch.cat([psnr for _, psnr in self._psnr]).cpu()
        self._psnr.clear()
        means = {task: psnr[tasks == number].mean().item() for number, task in enumerate(self.crops.tasks)}
        return {f"psnr_{task}": mean for task, mean in means.items() if math.isfinite(mean)}

    def _task_prompts(self) -> TaskPrompts:
        """The mean prompt scores of each task's pictures."""
        if self.average.prompt is None:
            return {}
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for step in range(8):
                batch = self.crops.batch((1 << 31) - 1 - step, 32)
                scores = self.average.prompt.scores(batch.degraded).double().cpu()
                for task, row in zip(batch.tasks.tolist(), scores, strict=True):
                    if (name := task_name(self.crops.tasks[task])) is not None:
                        found.setdefault(name, []).append(row)
        return {task: tuple(torch.stack(rows).mean(dim=0).tolist()) for task, rows in sorted(found.items())}


class _Forward(nn.Module):
    """The training pass as tensors in, tensors out, for the compiler."""

    def __init__(self, network: MEASNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: Tensor, noise: Tensor) -> TrainingPass:
        return self.network.forward_training(given, NoisyRouting(draw=lambda scores: noise))


class _Looks(NamedTuple):
    """Pictures that are seen twice, as by a camera that has moved on."""

    first: Tensor
    """V 3 S S."""

    second: Tensor
    """V 3 S S, moved by ``down`` and ``across`` pixels."""

    down: int
    across: int

    def unsteadiness(self, first: Tensor, second: Tensor) -> Tensor:
        """How far apart the network's changes to both are (each V 3 S S), over how large they are: a scalar.

        As ``measnet/train/steadiness.py`` has it, for a whole batch at once.
        """
        side = first.shape[-1]
        rows = slice(max(0, self.down), side + min(0, self.down))
        columns = slice(max(0, self.across), side + min(0, self.across))
        moved_rows = slice(max(0, -self.down), side + min(0, -self.down))
        moved_columns = slice(max(0, -self.across), side + min(0, -self.across))
        ours = F.avg_pool2d(first[:, :, rows, columns], BLOCK)
        theirs = F.avg_pool2d(second[:, :, moved_rows, moved_columns], BLOCK)
        size = (ours.abs() + theirs.abs()).mean(dim=(1, 2, 3)).detach() / 2  # V
        return ((ours - theirs).abs().mean(dim=(1, 2, 3)) / (size + LITTLE)).mean()


def _two_looks(pictures: Tensor, rng: torch.Generator, step: int) -> _Looks:
    """V 3 S S -> both looks: most pictures darker, milkier or both, as no pair has them; apart by a movement
    (the same for all), a little exposure, and grain."""
    many, device = len(pictures), pictures.device

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand((many, 1, 1, 1), generator=rng, device=device) * (high - low) + low

    veil = drawn(0, 0.6) * (drawn(0, 1) < 0.5)
    toned = drawn(0.3, 1) * pictures.clamp(0, 1) ** drawn(0.7, 2.2)
    toned = toned * (1 - veil) + veil * drawn(0.3, 0.9)
    pictures = torch.where(drawn(0, 1) < TONED, toned, pictures)
    moved = torch.Generator().manual_seed(step)
    down, across = (int(torch.randint(-SHIFT, SHIFT + 1, (), generator=moved)) for _ in range(2))
    side = pictures.shape[-1]
    wide = F.pad(pictures, (SHIFT,) * 4, mode="reflect")
    second = wide[:, :, SHIFT + down : SHIFT + down + side, SHIFT + across : SHIFT + across + side]
    grain = drawn(0, GRAIN)
    both = []
    for look in (pictures, second):
        noise = torch.randn(look.shape, generator=rng, device=device)
        both.append((look * drawn(1 - GAIN, 1 + GAIN) + noise * grain).clamp(0, 1))
    return _Looks(both[0], both[1], down, across)


def _rate(recipe: Recipe, step: int, done: float) -> float:
    """The learning rate: a warm-up by steps, then a cosine over the run down to a hundredth."""
    warm = min(1.0, step / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
