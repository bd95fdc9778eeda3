"""What one training run does, read from a TOML file that begins with the command that runs it."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measnet.config import VARIANTS, MEASNetConfig
from measnet.errors import UsageError

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One training run. Raises ``UsageError`` on values that cannot work."""

    variant: str
    """A named variant of the network."""

    steps: int
    """Updates of the weights."""

    tasks: dict[str, float] = field(default_factory=lambda: {"denoise": 0.55, "derain": 0.45})
    """Degradations and how often each is drawn."""

    batch: int = 8
    """Crops per update."""

    crop: int = 128
    """Side of a crop, in pixels."""

    learning_rate: float = 8e-4
    """Peak of the schedule: linear warm-up, then a cosine down to a hundredth."""

    warmup_steps: int = 300
    weight_decay: float = 1e-4
    balance_weight: float = 1e-3
    """Weight of the balance loss (eq. 12; 1e-3 in the released code, 1e-4 in the paper)."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; longer ones are shortened to it."""

    ema_decay: float = 0.999
    """Of the moving average of the weights, which is what gets saved for use."""

    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        problems = []
        if self.variant not in VARIANTS:
            problems.append(f"variant is {self.variant!r}, must be one of {sorted(VARIANTS)}")
        else:
            rule = self.config.size_rule
            if rule.fit(self.crop, self.crop) != (self.crop, self.crop):
                problems.append(
                    f"crop is {self.crop}, must be at least {rule.minimum} and a multiple of {rule.multiple}"
                )
        if self.steps < 1 or self.save_every < 1:
            problems.append("steps and save_every must be at least 1")
        if self.batch < 2:
            problems.append(f"batch is {self.batch}, must be at least 2 (FD normalises over the batch)")
        if problems:
            raise UsageError("this recipe cannot run: " + "; ".join(problems))

    @property
    def config(self) -> MEASNetConfig:
        return VARIANTS[self.variant]


def read_recipe(name: str) -> Recipe:
    """A recipe of ours by name, or any TOML file. Raises ``UsageError`` with every unknown entry."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        ours = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UsageError(f"no recipe {name!r}; there are {ours}, or give the path of a .toml file")
    try:
        stored: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a recipe: {error}") from None
    known = {entry.name for entry in dataclasses.fields(Recipe)}
    unknown = sorted(set(stored) - known)
    absent = sorted({"variant", "steps"} - set(stored))
    if unknown or absent:
        raise UsageError(f"{path}: unknown entries {unknown}, missing entries {absent}")
    return Recipe(**stored)
