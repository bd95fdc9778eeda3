"""Measuring: restores every picture of a set and holds the results against the true ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from measnet.errors import InputError
from measnet.evaluation.cases import Case, PictureCases
from measnet.evaluation.classical import Tool
from measnet.evaluation.protocol import Protocol, to_picture
from measnet.evaluation.structural_similarity import ssim
from measnet.metrics import Choices, experts_agree, largest_difference, psnr
from measnet.train.degradations.picture import Picture

if TYPE_CHECKING:
    from measnet import Restorer
    from measnet.runtime.restorer import RestoredFrame


@dataclass(frozen=True)
class Quality:
    """The likeness of a picture to the true one."""

    psnr_db: float
    """Over RGB, values of 0 to 1; infinite when the two are equal."""

    ssim: float


@dataclass(frozen=True)
class Likeness:
    """The likeness of the second model's result to the first one's, before rounding and clipping."""

    psnr_db: float
    largest_difference: float
    experts_agree: float | None
    """Share of pixels, 0 to 1; ``None`` where the two networks do not have the same routers."""


@dataclass(frozen=True)
class PictureFigures:
    """One picture's figures."""

    name: str
    before: Quality
    restored: tuple[Quality, ...]
    """One per model."""

    tiles: int
    """Pieces that the first model restored it in."""

    classical: dict[str, Quality] = field(default_factory=dict)
    likeness: Likeness | None = None


@dataclass(frozen=True)
class SetFigures:
    """A set's figures: its pictures' and their means."""

    name: str
    title: str
    task: str
    sigma: int | None
    pictures: list[PictureFigures]

    @property
    def before(self) -> Quality:
        return mean([picture.before for picture in self.pictures])

    def restored(self, model: int = 0) -> Quality:
        return mean([picture.restored[model] for picture in self.pictures])

    @property
    def improved(self) -> int:
        """Pictures whose PSNR the first model raises."""
        return sum(p.restored[0].psnr_db > p.before.psnr_db for p in self.pictures)

    @property
    def tiled(self) -> int:
        """Pictures that were restored in pieces."""
        return sum(picture.tiles > 1 for picture in self.pictures)

    @property
    def classical(self) -> dict[str, Quality]:
        """The mean of every classical tool that was tried, the best first."""
        names = self.pictures[0].classical
        means = {name: mean([picture.classical[name] for picture in self.pictures]) for name in names}
        return dict(sorted(means.items(), key=lambda item: -item[1].psnr_db))

    @property
    def worst_loss_db(self) -> float:
        """The second model's loss on the picture where it is largest, as a negative number of dB."""
        return min(gained(p.restored[0].psnr_db, p.restored[1].psnr_db) for p in self.pictures)

    @property
    def likeness(self) -> Likeness | None:
        """The worst PSNR and largest difference of any picture, and the experts' mean agreement."""
        found = [picture.likeness for picture in self.pictures if picture.likeness is not None]
        if not found:
            return None
        agree = [one.experts_agree for one in found if one.experts_agree is not None]
        return Likeness(
            psnr_db=min(one.psnr_db for one in found),
            largest_difference=max(one.largest_difference for one in found),
            experts_agree=float(np.mean(agree)) if agree else None,
        )


CaseWatcher = Callable[[Case, list[Picture], PictureFigures], None]
"""Receives the case, the models' results and the figures of every picture."""


def measure(
    cases: PictureCases,
    restorers: Sequence[Restorer],
    protocol: Protocol,
    *,
    seed: int,
    tools: Sequence[Tool] = (),
    watch: CaseWatcher | None = None,
) -> SetFigures:
    """Figures of one or two models, and of classical ``tools``, on one set.

    The second restorer restores in the same tiles as the first. Raises ``InputError`` for pictures that
    cannot be read.
    """
    pictures: list[PictureFigures] = []
    for case in cases.read(protocol, seed):
        frames = _restore(case, restorers)
        results = [protocol.result(frame) for frame in frames]
        target = to_picture(case.clean)
        figures = PictureFigures(
            name=case.name,
            before=quality(to_picture(case.degraded), target),
            restored=tuple(quality(result, target) for result in results),
            tiles=frames[0].tiles,
            classical={
                tool.name: quality(to_picture(tool.apply(case.degraded, cases.sigma)), target)
                for tool in tools
            },
            likeness=likeness(*frames) if len(frames) == 2 else None,
        )
        pictures.append(figures)
        if watch is not None:
            watch(case, results, figures)
    if not pictures:
        raise InputError(f"the set {cases.title} has no pictures")
    return SetFigures(
        name=cases.name,
        title=cases.title,
        task=cases.task,
        sigma=cases.sigma,
        pictures=pictures,
    )


def quality(result: Picture, target: Picture) -> Quality:
    """PSNR and SSIM of two pictures, each H W 3 in [0, 1]."""
    return Quality(psnr(result, target), ssim(result, target))


def likeness(first: RestoredFrame, second: RestoredFrame) -> Likeness:
    """Measures how alike two restorations of one picture are."""
    return Likeness(
        psnr_db=psnr(first.image, second.image),
        largest_difference=largest_difference(first.image, second.image),
        experts_agree=_agreement(first.choices, second.choices),
    )


def mean(values: Sequence[Quality]) -> Quality:
    """The mean of each figure."""
    return Quality(float(np.mean([v.psnr_db for v in values])), float(np.mean([v.ssim for v in values])))


def gained(a: float, b: float) -> float:
    """``b - a``, in dB; 0 when both are infinite."""
    return 0.0 if a == b else b - a


def _restore(case: Case, restorers: Sequence[Restorer]) -> list[RestoredFrame]:
    height, width = case.degraded.shape[:2]
    for other in restorers[1:]:
        if other.tiles_for(height, width) != restorers[0].tiles_for(height, width):
            other.follow(restorers[0], height, width)
    return [restorer.restore(case.degraded) for restorer in restorers]


def _agreement(first: list[Choices], second: list[Choices]) -> float | None:
    if [_shapes(one) for one in first] != [_shapes(one) for one in second]:
        return None
    if all(one.pixel_experts is None and one.image_experts is None for one in first):
        return None
    return float(np.mean([experts_agree(a, b) for a, b in zip(first, second, strict=True)]))


def _shapes(choices: Choices) -> list[tuple[int, ...] | None]:
    return [None if one is None else one.shape for one in (choices.pixel_experts, choices.image_experts)]
