"""The paper's figures: Tables I and II of Yu et al., arXiv:2407.19139.

Published figures belong to published sets: they are looked up by set and by sigma, and nothing else has any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from measnet.evaluation.measure import Quality

_SPELLINGS = {
    "SOTS": ("sots", "sotsoutdoor"),
    "Rain100L": ("rain100l",),
    "BSD68": ("bsd68", "cbsd68"),
    "GoPro": ("gopro",),
    "LOL": ("lol", "lolv1"),
}


class Column(NamedTuple):
    """A set of the paper's tables."""

    task: str
    name: str
    sigma: int | None = None

    @property
    def title(self) -> str:
        return self.name if self.sigma is None else f"{self.name} σ{self.sigma}"


@dataclass(frozen=True)
class Setting:
    """One of the paper's tables: the columns and what the all-in-one network reaches in them."""

    title: str
    row: str
    """The name of its row."""

    results: Mapping[Column, Quality]
    mean: Quality


SOTS = Column("dehaze", "SOTS")
RAIN = Column("derain", "Rain100L")
NOISE_15, NOISE_25, NOISE_50 = (Column("denoise", "BSD68", sigma) for sigma in (15, 25, 50))
GOPRO = Column("deblur", "GoPro")
LOL = Column("lowlight", "LOL")

THREE_TASKS = Setting(
    title="Three tasks, as the paper's Table I",
    row="MEASNet, three tasks (published)",
    results={
        SOTS: Quality(31.61, 0.981),
        RAIN: Quality(39.00, 0.985),
        NOISE_15: Quality(34.12, 0.935),
        NOISE_25: Quality(31.46, 0.892),
        NOISE_50: Quality(28.19, 0.803),
    },
    mean=Quality(32.85, 0.919),  # as printed; its five columns have 32.88
)
FIVE_TASKS = Setting(
    title="Five tasks, as the paper's Table II",
    row="MEASNet, five tasks (published)",
    results={
        SOTS: Quality(31.05, 0.980),
        RAIN: Quality(38.32, 0.982),
        NOISE_25: Quality(31.40, 0.888),
        GOPRO: Quality(29.41, 0.890),
        LOL: Quality(23.00, 0.845),
    },
    mean=Quality(30.64, 0.917),
)
SINGLE_TASK: Mapping[Column, Quality] = {
    SOTS: Quality(31.83, 0.981),
    RAIN: Quality(39.06, 0.985),
    NOISE_15: Quality(34.36, 0.938),
    NOISE_25: Quality(31.73, 0.898),
    NOISE_50: Quality(28.50, 0.814),
}
"""One network per task."""


def published_column(task: str, name: str, sigma: int | None) -> Column | None:
    """The paper's column for a set, or ``None`` for a set that the paper does not have."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    for column in (*THREE_TASKS.results, *FIVE_TASKS.results):
        if (column.task, column.sigma) == (task, sigma) and plain in _SPELLINGS[column.name]:
            return column
    return None


def published(task: str, name: str, sigma: int | None) -> dict[str, Quality]:
    """The paper's figures for a set, by setting; empty for a set that the paper does not have."""
    column = published_column(task, name, sigma)
    if column is None:
        return {}
    found = {
        "three tasks": THREE_TASKS.results.get(column),
        "five tasks": FIVE_TASKS.results.get(column),
        "single task": SINGLE_TASK.get(column),
    }
    return {setting: quality for setting, quality in found.items() if quality is not None}
