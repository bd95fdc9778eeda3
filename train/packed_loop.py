"""Training from a pack: everything on one device, for a number of steps or until a clock runs out.

The loop for rented time. Samples are drawn, degraded and measured on the device, the network is compiled
where that pays, and the schedule ends when the minutes do.
Shapes: B batch, V pictures that are seen twice, S side of a crop.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measnet.damage import shares_of, wanted_shares
from measnet.errors import UsageError, first_line
from measnet.network import MEASNet
from measnet.network.measnet import TrainingPass
from measnet.network.pixel_experts import Balance, NoisyRouting
from measnet.task_prompts import TaskPrompts
from measnet.train.cadence import Cadence
from measnet.train.data.pack import Pack
from measnet.train.data.packed_crops import PackedBatch, PackedCrops, drawn_by
from measnet.train.first_tone import fit_tone, seen_in, seen_of
from measnet.train.journal import Journal
from measnet.train.loop import OUT_OF_MEMORY, Start, TrainingError, decline, keep_channels_together
from measnet.train.losses import NEAR
from measnet.train.moving_average import MovingAverage
from measnet.train.optimizer import WeightUpdates
from measnet.train.processes import Processes
from measnet.train.recipe import Recipe
from measnet.train.run_folder import Progress, RunFolder
from measnet.train.steadiness import BLOCK, GAIN, GRAIN, LITTLE, TONED
from measnet.train.task_prompts import said_for_certain, task_name

LEAST_MINUTES_COMPILED = 3.0  # on a GPU, where compiling takes half of it
TWICE = 16  # of so many samples one is seen twice
SHIFT = BLOCK  # pixels that a camera has moved between two looks, at most
SMALLEST_BATCH = 4
MOST_CLIPPED = 50.0  # times clip_norm, to which a gradient is shortened; usual are 1 to 5
WITHOUT_EFFECT = ("turns", "zoom", "zoom_pairs", "dim", "plain", "distill_output", "distill_routing")
"""Entries of recipes that only pictures degraded on the fly, and teachers, make use of."""


def least_minutes(uncompiled: float) -> float:
    """Gives the least minutes of a run that is worth starting on this machine; ``uncompiled`` where nothing
    is compiled."""
    return LEAST_MINUTES_COMPILED if torch.cuda.is_available() else uncompiled


@dataclass(frozen=True)
class Clock:
    """The end of a run: by its steps, or by its minutes."""

    steps: int
    minutes: float | None
    least: float = Cadence.least_minutes
    """Minutes, on a machine that compiles nothing."""

    def __post_init__(self) -> None:
        if self.minutes is None:
            return
        least = least_minutes(self.least)
        if not least <= self.minutes < math.inf:
            raise UsageError(
                f"--minutes {self.minutes:g} is no time to train and save anything; give at least {least:g}"
            )

    def done(self, step: int, seconds: float) -> float:
        """The share of the run that is over before ``step`` (from 1), 0 to 1."""
        if self.minutes is not None:
            return min(1.0, seconds / (self.minutes * 60))
        return min(1.0, (step - 1) / self.steps)

    def overruns(self, seconds: float, step_seconds: float) -> bool:
        """Tells whether a step of this length would end after the run should."""
        return self.minutes is not None and seconds + step_seconds > self.minutes * 60


class StepFigures(NamedTuple):
    """Figures that a run reports every so many steps and at its end, as means since the last report."""

    step: int
    done: float
    """Share of the run, 0 to 1."""

    figures: dict[str, float]


def train_packed(
    recipe: Recipe,
    pack: Pack,
    out: Path,
    *,
    start: Start = Start(),  # noqa: B008 - immutable
    minutes: float | None = None,
    on_step: Callable[[int, float], None] = lambda step, done: None,
    on_figures: Callable[[StepFigures], None] = lambda figures: None,
    on_event: Callable[[str], None] = lambda words: None,
    stop: threading.Event | None = None,
    cadence: Cadence = Cadence(),  # noqa: B008 - immutable
) -> MEASNet:
    """Runs ``recipe`` on ``pack``; goes on where a run in ``out`` stopped. Returns the moving average.

    With ``minutes`` the run ends, cosine and all, when so much time was spent on it, in however many parts;
    one step is always taken, so that there are weights even where getting ready took all of the time.
    ``on_step`` hears of every step and of the share of the run that is over, ``on_event`` what a user should
    know (a batch that had to be halved, say). Once ``stop`` is set, the run is saved behind the step under
    way, and ``KeyboardInterrupt`` raised. Raises ``UsageError``, ``OutputError`` and ``TrainingError``.
    """
    check_packed(recipe, start)
    run = _Run(
        recipe, pack, out, start, Clock(recipe.steps, minutes, cadence.least_minutes), on_event, cadence
    )
    with Journal(out, run.crops.tasks, run.before.step) as journal:
        return run.train(journal, on_step, on_figures, stop or threading.Event())


def check_packed(recipe: Recipe, start: Start) -> None:
    """Refuses what a run from a pack would otherwise pass over in silence. Raises ``UsageError``."""
    if not recipe.steps:
        raise UsageError("a recipe that counts epochs cannot train from a pack; give steps")
    if Processes().world > 1:
        raise UsageError("a run from a pack is one process on one device; start it without torchrun")
    if start.teacher is not None or start.renew_routing:
        raise UsageError("a run from a pack has no teacher and renews no routing; train without --pack")
    usual = Recipe(variant=recipe.variant, steps=1)
    without = [name for name in WITHOUT_EFFECT if getattr(recipe, name) != getattr(usual, name)]
    if without:
        raise UsageError(
            f"from a pack, these entries of the recipe would do nothing: {', '.join(without)}; leave them out"
        )


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        pack: Pack,
        out: Path,
        start: Start,
        clock: Clock,
        on_event: Callable[[str], None],
        cadence: Cadence,
    ) -> None:
        self.cadence = cadence
        self.began = self.cadence.seconds()
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
        network.recompute_blocks(recipe.recompute)
        self.network = network.to(self.device)
        if self.device.type == "cpu" and recipe.precision == "bf16":
            keep_channels_together(network)
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
            self._held(pack),
            recipe.tasks,
            crop=recipe.crop,
            seed=recipe.seed,
            pairs_share=recipe.pairs_share,
            meant=recipe.meant,
        )
        self.seen: Tensor | None = None
        if self.network.tone is not None and self.average.tone is not None:
            self.seen = seen_of(self.crops.pack)
            if self.before.step == 0 and start.weights is None:
                fit_tone(
                    self.network.tone,
                    self.crops.pack,
                    self.seen,
                    recipe.seed,
                    taught=network.taught,
                    steps=self.cadence.tone_steps,
                )
                self.average.tone.load_state_dict(self.network.tone.state_dict())
            self.network.tone.requires_grad_(False)
        self._moving = MovingAverage(self.average, self.network, recipe.ema_decay)
        self._psnr: list[tuple[Tensor, Tensor]] = []
        self._shown: tuple[Tensor, Tensor, Tensor] | None = None
        self._plain = _Forward(self.network, recipe.balance)
        self.compiles = self.device.type == "cuda"
        self.forward: Callable[[Tensor, Tensor, Tensor | None], TrainingPass] = (
            torch.compile(self._plain) if self.compiles else self._plain
        )

    @property
    def seconds(self) -> float:
        """Spent on this run, in this part of it and before."""
        return self.before.seconds + self.cadence.seconds() - self.began

    def train(
        self,
        journal: Journal,
        on_step: Callable[[int, float], None],
        on_figures: Callable[[StepFigures], None],
        stop: threading.Event,
    ) -> MEASNet:
        step, saved = self.before.step, self.cadence.seconds()
        gathered: defaultdict[str, list[Tensor]] = defaultdict(list)
        since, last = step, self.cadence.seconds()

        def report(done: float) -> None:
            nonlocal since, last
            figures = {name: torch.stack(values).mean().item() for name, values in gathered.items()}
            figures |= self._psnr_by_task()
            now = self.cadence.seconds()
            figures["pictures_per_second"] = (step - since) * self.batch / (now - last)
            figures["minutes"] = self.seconds / 60
            since, last = step, now
            gathered.clear()
            self.folder.log(step, figures)
            journal.write(step, figures)
            if step % self.cadence.pictures_every == 0 and self._shown is not None:
                journal.show(step, *self._shown)
            on_figures(StepFigures(step, done, figures))

        if self.compiles and self.clock.done(step + 1, self.seconds) < 1:
            self.on_event("compiling the network for this GPU: a minute or two, once")
        took = 0.0
        while (done := self.clock.done(step + 1, began := self.seconds)) < 1 or step == 0:
            if self.clock.overruns(began, took) and step > 0:
                break
            step += 1
            for name, value in self._step(step, done).items():
                gathered[name].append(value)
            took = self.seconds - began
            on_step(step, self.clock.done(step + 1, began + took))
            if step % self.cadence.log_every == 0:
                report(done)
            due = self.cadence.seconds() - saved > self.cadence.save_seconds
            stopped = stop.is_set() and self.clock.done(step + 1, self.seconds) < 1
            if stopped or (due if self.clock.minutes is not None else step % self.recipe.save_every == 0):
                self._save(step)
                saved = self.cadence.seconds()
            if stopped:
                raise KeyboardInterrupt
        if step > since:
            report(1.0)
        self.average.eval()
        self.average.ask_all_experts(False)
        self.average.task_prompts = self._task_prompts()
        if step > self.before.step:
            self._save(step, ended=True)
        return self.average

    def _held(self, pack: Pack) -> Pack:
        """The pack in the memory of the device. Raises ``UsageError`` when there is no room."""
        self.on_event(f"{len(pack.entries)} pictures of the pack take {pack.size / 1e9:.2f} GB of memory")
        try:
            return pack.to(self.device)
        except torch.OutOfMemoryError:
            raise UsageError(
                f"the pack's {pack.size / 1e9:.2f} GB do not fit the GPU's memory; "
                "pack fewer pairs, or less data"
            ) from None

    def _save(self, step: int, *, ended: bool = False) -> None:
        spent = self.seconds
        if ended and self.clock.minutes is not None:  # time too short for a step counts as spent
            spent = max(spent, self.clock.minutes * 60)
        progress = Progress(step, spent, self.batch)
        self.folder.save(self.recipe, self.origin, progress, self.network, self.average, self.updates)

    def _step(self, step: int, done: float) -> dict[str, Tensor]:
        while True:
            try:
                return self._try_step(step, done)
            except TrainingError:
                raise
            except Exception as error:
                out = isinstance(error, torch.OutOfMemoryError)
                if not out and self.compiles:  # what is compiled may fail in any way; else it fails again
                    self.compiles, self.forward = False, self._plain
                    self.updates.forget_gradients()
                    self.on_event(f"going on without compiling, slower, as that fails: {first_line(error)}")
                    continue
                if not out and not any(words in str(error) for words in OUT_OF_MEMORY):
                    raise
                if self.batch // 2 < SMALLEST_BATCH:
                    raise TrainingError(
                        f"memory ran out on a batch of {self.batch} crops of {self.recipe.crop} pixels: "
                        "lower crop in the recipe, or set recompute = true"
                    ) from error
                self.batch //= 2
            self.updates.forget_gradients()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.on_event(f"memory ran out: going on with {self.batch} crops a step")

    def _try_step(self, step: int, done: float) -> dict[str, Tensor]:
        recipe = self.recipe
        batch = self.crops.batch(step, self.batch)
        rng = torch.Generator(self.device).manual_seed(drawn_by(recipe.seed, step + (1 << 30)))
        twice = (step * self.batch // TWICE - (step - 1) * self.batch // TWICE) if recipe.steady_weight else 0
        looks = _two_looks(batch.degraded[:twice], rng, step) if twice else None
        given = batch.degraded if looks is None else torch.cat([batch.degraded, looks.first, looks.second])
        seen = None if self.seen is None else self.seen[batch.rows.to(self.device)]
        if seen is not None and looks is not None:
            seen = torch.cat([seen, seen_in(looks.first), seen_in(looks.second)])
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
            passed = self.forward(given, noise * fade, seen)
        losses = self._losses(batch, given, passed, looks)
        losses["loss"].backward()
        if recipe.clip_norm:
            parameters = self.network.parameters()
            losses["gradient"] = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm).detach()
        finite = all(math.isfinite(value) for value in torch.stack(list(losses.values())).tolist())
        if not finite or (recipe.clip_norm and losses["gradient"] > MOST_CLIPPED * recipe.clip_norm):
            self._forget_step(step)
            return {}
        self.missed = 0
        restored = passed.restored.detach().float()[: self.batch]
        squared = (restored - batch.clean).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)  # B
        self._psnr.append((batch.tasks, -10 * squared.log10()))
        self._shown = (batch.degraded, restored, batch.clean)
        rate = _rate(recipe, step, done)
        self.updates.step(rate)
        losses["learning_rate"] = torch.tensor(rate)
        self._moving.follow(step)
        return {name: value.detach().float() for name, value in losses.items()}

    def _losses(
        self, batch: PackedBatch, given: Tensor, passed: TrainingPass, looks: _Looks | None
    ) -> dict[str, Tensor]:
        recipe, size = self.recipe, len(batch.clean)
        restored = passed.restored.float()
        l1_of_picture = (restored[:size] - batch.clean).abs().mean(dim=(1, 2, 3))  # B
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
        if recipe.route_weight and passed.image_demands:
            told = torch.stack([information(demand.float()) for demand in passed.image_demands])
            losses["image_routing"] = told.mean()
            loss = loss - recipe.route_weight * losses["image_routing"]
        if looks is not None:
            change = restored[size:] - given[size:]
            losses["unsteady"] = looks.unsteadiness(*change.chunk(2))
            loss = loss + recipe.steady_weight * losses["unsteady"]
        losses["loss"] = loss
        return losses

    def _forget_step(self, step: int) -> None:
        """Leaves out a step whose loss or gradient is no number, or whose gradient is so long that it would
        drown those of other pictures, even shortened. Both are rare.

        Raises ``TrainingError`` when it happens again and again.
        """
        self.missed += 1
        self.updates.forget_gradients()
        buffers = dict(self.average.named_buffers())
        for name, buffer in self.network.named_buffers():  # the running figures of FD's norm
            buffer.copy_(buffers[name])
        most = self.cadence.most_missed
        if self.missed > most:
            raise TrainingError(
                f"no step from {step - most} on gave a finite loss and a gradient of usual length; "
                "lower learning_rate and go on with the same command, from the last checkpoint"
            )

    def _psnr_by_task(self) -> dict[str, float]:
        """The mean PSNR of each task's crops since the last time, dB."""
        if not self._psnr:  # every step since then was left out
            return {}
        tasks = torch.cat([tasks for tasks, _ in self._psnr])
        psnr = torch.cat([psnr for _, psnr in self._psnr]).cpu()
        self._psnr.clear()
        means = {task: psnr[tasks == number].mean().item() for number, task in enumerate(self.crops.tasks)}
        return {f"psnr_{task}": mean for task, mean in means.items() if math.isfinite(mean)}

    def _task_prompts(self) -> TaskPrompts:
        """The prompt scores that hold the network to a task."""
        if self.average.prompt is None:
            return {}
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for step in range(self.cadence.prompt_batches):
                batch = self.crops.batch((1 << 31) - 1 - step, 32)
                scores = self.average.prompt.scores(batch.degraded).double().cpu()
                for task, row in zip(batch.tasks.tolist(), scores, strict=True):
                    if (name := task_name(self.crops.tasks[task])) is not None:
                        found.setdefault(name, []).append(row)
        return {
            task: said_for_certain(torch.stack(rows).mean(dim=0), task, self.average.taught)
            for task, rows in sorted(found.items())
        }


class _Forward(nn.Module):
    """The training pass as tensors in, tensors out, for the compiler."""

    def __init__(self, network: MEASNet, balance: Balance) -> None:
        super().__init__()
        self.network = network
        self.balance = balance

    def forward(self, given: Tensor, noise: Tensor, seen: Tensor | None = None) -> TrainingPass:
        return self.network.forward_training(
            given, NoisyRouting(draw=lambda scores: noise, balance=self.balance), seen
        )


class _Looks(NamedTuple):
    """Pictures that are seen twice, as by a camera that has moved on."""

    first: Tensor
    """V 3 S S."""

    second: Tensor
    """V 3 S S, moved by ``down`` and ``across`` pixels."""

    down: int
    across: int

    def unsteadiness(self, first: Tensor, second: Tensor) -> Tensor:
        """The difference between the network's changes to both (each V 3 S S), over their size: a scalar.

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


def information(demand: Tensor) -> Tensor:
    """B N, what each picture thinks of each expert (sums to 1) -> the mutual information of picture and
    expert in nats: 0 where all pictures think alike, log N at most (a scalar)."""

    def entropy(shares: Tensor) -> Tensor:
        return -(shares * shares.clamp(min=1e-8).log()).sum(dim=-1)

    return entropy(demand.mean(dim=0)) - entropy(demand).mean()


def _rate(recipe: Recipe, step: int, done: float) -> float:
    """The learning rate: a warm-up by steps, then a cosine over the run down to a hundredth."""
    warm = min(1.0, step / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * decline(done)
