"""Recipes: the settings of a training run, read from a TOML file that begins with the command to run it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from measnet.config import VARIANTS, MEASNetConfig, filled
from measnet.errors import UsageError
from measnet.network.pixel_experts import Balance
from measnet.train.degradations import DEGRADATIONS, PACKED_TASKS

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One training run. Raises ``UsageError`` on values that cannot work."""

    variant: str
    """A named variant of the network."""

    network: dict[str, Any] = field(default_factory=dict)
    """Entries of ``MEASNetConfig`` that differ from the variant (the rows of Table VI, say)."""

    steps: int = 0
    """Updates of the weights; or, in its place, ``epochs``."""

    epochs: int = 0
    """Passes over the data. One epoch holds each set as often as ``tasks`` says."""

    tasks: dict[str, float] = field(default_factory=lambda: {"denoise": 0.55, "derain": 0.45})
    """With ``steps``: degradations and how often each is drawn. With ``epochs``: how often an epoch repeats
    the pictures of each task. ``denoise15``, ``denoise25`` and ``denoise50`` are the published noise."""

    pairs_share: float = 0.5
    """With ``steps``: share of a task's samples that come from real pairs, where there are both."""

    batch: int = 8
    """Crops per update, over all processes."""

    crop: int = 128
    """Side of a crop, in pixels."""

    turns: Literal[7, 8] = 8
    """Flips and quarter turns of a crop; the released code's 7 leave out the untouched one."""

    zoom: float = 0.0
    """Share of synthetic samples whose picture is first made smaller, down to half."""

    zoom_pairs: float = 0.0
    """Share of samples from real pairs of haze and low light that are first made smaller, down to the whole
    picture in a crop."""

    dim: float = 0.0
    """Real low-light pictures are darkened by a random share up to this one."""

    plain: float = 0.0
    """Share of ``keep`` samples looked at from near, half of these with less contrast, as asphalt and walls
    have it: a network that meets low contrast in haze alone takes it away everywhere."""

    meant: float = 0.0
    """With a pack: share of ``keep`` samples, and a third of it of noisy ones, that look damaged and are
    meant so: coloured light, lamps, stars, pale things, drawings (``measnet/train/data/meant.py``)."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """``adamw`` as published, or ``muon`` for matrices (``measnet/train/optimizer.py``)."""

    learning_rate: float = 8e-4
    """Peak of the schedule."""

    routing_rate: float = 1.0
    """Share of the learning rate at which the prompt and the routers learn. They decide by softmax; one that
    they have run into the end of is hard to leave."""

    schedule: Literal["cosine", "released"] = "cosine"
    """``cosine``: per step, a linear warm-up, then a cosine down to a hundredth at the end. ``released``: per
    epoch, as the authors' code: warm-up over 15 epochs from 0, then a cosine to 0 at epoch 180 (training
    stops at 150)."""

    warmup_steps: int = 300
    weight_decay: float = 1e-4
    loss: Literal["l1", "log_l1"] = "l1"
    """``l1``: eq. 11, the mean over all pixels. ``log_l1``: the mean over pictures of the logarithm of their
    L1 distance, so that every picture gains by its own share of error (as PSNR counts) and the largest
    errors, of haze and low light, do not drown the rest."""

    balance: Balance = "released"
    """Form of the balance loss: the released code's, or eq. 6 as the ``paper`` prints it."""

    balance_weight: float = 1e-3
    """Weight of the balance loss (eq. 12; 1e-3 in the released code, 1e-4 in the paper)."""

    distill_output: float = 0.0
    """Weight of the L1 distance to the teacher's picture. Needs a teacher, as does the next."""

    distill_routing: float = 0.0
    """Weight of the distance between both networks' routing."""

    steady_weight: float = 0.0
    """Weight of how far apart two frames of one picture come back (``measnet/train/steadiness.py``). For
    video; a step restores two frames more for every third crop. Where the crop is the least that the network
    takes, the two differ in exposure and grain alone."""

    teach_weight: float = 0.0
    """With a pack: weight of the cross-entropy between the prompt's groups and the damage that was done
    (``measnet/damage.py``), so that the prompt says what is wrong with a picture."""

    z_weight: float = 0.0
    """With a pack: weight of the pixel router's z-loss, the squared log-sum-exp of its scores, which keeps
    them small (Zoph et al., "ST-MoE", 2022): a router with large scores no longer learns."""

    route_weight: float = 0.0
    """With a pack: weight of the mutual information of picture and image expert (FD-MEE), in nats, which is
    rewarded. Nothing else keeps these routers from choosing the same experts for every picture."""

    quiet_share: float = 0.0
    """With a pack: share of the run after which routing noise has faded to nothing, linearly; 0 keeps it. In
    use there is none, so the last part of the training should have none either."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are shortened to it. 0 leaves them."""

    ema_decay: float = 0.999
    """Decay of the moving average of the weights, which is what gets saved for use. 0 saves the weights
    themselves."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` is bf16 on GPUs that have it, fp32 elsewhere. Weights and losses stay fp32."""

    recompute: bool = False
    """Gradient checkpointing of transformer blocks: less memory, more time, the same gradients."""

    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise UsageError("this recipe cannot run: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        found = []
        if self.variant not in VARIANTS:
            return [f"variant is {self.variant!r}, must be one of {sorted(VARIANTS)}"]
        try:
            rule = self.config.size_rule
        except UsageError as error:
            return [str(error)]
        if rule.fit(self.crop, self.crop) != (self.crop, self.crop):
            found.append(
                f"crop is {self.crop}, must be at least {rule.minimum} and a multiple of {rule.multiple}"
            )
        if (self.steps > 0) == (self.epochs > 0):
            found.append("give steps or epochs, one of the two, at least 1")
        if self.schedule == "released" and not self.epochs:
            found.append("the released schedule counts epochs: give epochs in place of steps")
        if self.save_every < 1:
            found.append("save_every must be at least 1")
        if self.batch < 2:
            found.append(f"batch is {self.batch}, must be at least 2 (FD normalises over the batch)")
        known = {*DEGRADATIONS, *PACKED_TASKS}
        unknown = sorted(set(self.tasks) - known)
        if unknown or not self.tasks:
            found.append(f"unknown tasks {unknown}; there are {sorted(known)}")
        elif min(self.tasks.values()) <= 0:
            found.append("every task needs a weight above 0; leave out what is not wanted")
        for name in (
            "pairs_share",
            "quiet_share",
            "zoom",
            "zoom_pairs",
            "dim",
            "plain",
            "meant",
            "ema_decay",
        ):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} is {getattr(self, name)}, must be within 0 and 1")
        for name in (
            "learning_rate",
            "routing_rate",
            "weight_decay",
            "balance_weight",
            "steady_weight",
            "teach_weight",
            "z_weight",
            "route_weight",
            "clip_norm",
        ):
            if getattr(self, name) < 0:
                found.append(f"{name} is {getattr(self, name)}, must not be negative")
        return found

    @property
    def config(self) -> MEASNetConfig:
        variant = VARIANTS[self.variant]
        return MEASNetConfig.from_dict({**dataclasses.asdict(variant), **self.network})


def read_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """A recipe of ours by name, or any TOML file; ``changes`` are lines of TOML (``batch=4``) that go over
    it.

    Raises ``UsageError`` with every unknown entry.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        ours = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UsageError(f"no recipe {name!r}; there are {ours}, or give the path of a .toml file")
    try:
        stored: dict[str, Any] = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a recipe: {error}") from None
    changed: dict[str, Any] = {}
    for change in changes:
        changed |= _change(change)
    known = sorted(entry.name for entry in dataclasses.fields(Recipe))
    for place, entries in (("--set", changed), (str(path), stored)):
        if unknown := sorted(set(entries) - set(known)):
            raise UsageError(f"{place}: unknown entries {unknown}; there are {', '.join(known)}")
    stored |= changed
    if "variant" not in stored:
        raise UsageError(f"{path}: variant is missing")
    try:
        return filled(Recipe, stored)
    except UsageError as error:
        changed_too = f" with --set {' '.join(changes)}" if changes else ""
        raise UsageError(f"{path}{changed_too}: {error}") from None


def _change(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"--set {text}: write ENTRY=VALUE, as in --set batch=4") from None
        return {name.strip(): value.strip()}  # a word without its quotation marks
