"""The request to ``measnet-eval``: its options, checked before any work, and what they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from measnet.errors import UsageError

if TYPE_CHECKING:
    from measnet.evaluation.cases import PictureCases
    from measnet.evaluation.video.measure import VideoOptions

PAPER_ORDER = ("dehaze", "derain", "denoise", "deblur", "lowlight")


@dataclass(frozen=True)
class Request:
    """The options as they were given."""

    model: tuple[str, ...]
    against: str | None
    backend: str
    against_backend: str | None
    data: tuple[Path, ...]
    pairs: tuple[str, ...]
    clean: tuple[Path, ...]
    video: tuple[Path, ...]
    video_target: tuple[Path, ...]
    video_task: str
    degrade: str | None
    temporal: int
    tasks: str | None
    sigma: tuple[int, ...]
    seed: int
    limit: int | None
    protocol: str
    tile: int | Literal["auto", "off"]
    threads: int | None
    classical: bool
    report: Path | None
    contact_sheet: Path | None

    def models(self) -> list[tuple[str, str]]:
        """The one or two models to measure, each with its backend. Raises ``UsageError`` for more."""
        names = [*self.model] or ["nano"]
        if self.against is not None:
            names.append(self.against)
        if len(names) > 2:
            raise UsageError(f"{len(names)} models are given; one is measured, or two side by side")
        if len(names) == 1 and self.against_backend:
            names *= 2
        backends = [self.backend, self.against_backend or self.backend]
        return list(zip(names, backends, strict=False))

    def check_results(self) -> None:
        """Finds out before the work whether its results could be written, and that they replace nothing of
        what is measured. Raises ``UsageError``."""
        from measnet.evaluation.panels import check_picture_path
        from measnet.whole_file import check_place

        results = dict(self._results())
        videos = [*self.video, *self.video_target]
        for name, path in results.items():
            check_place(path, name, [*self.model, self.against, *videos])
        if len({path.resolve() for path in results.values()}) < len(results):
            raise UsageError("--report and --contact-sheet are one and the same file; give them two names")
        folders = [*self.data, *self.clean, *(Path(text.partition("=")[2]) for text in self.pairs)]
        for name, path in results.items():
            # A picture in a folder of frames would be one of them the next time.
            near = [*videos, *(folders if path.exists() else ())]
            inside = [one for one in near if one.is_dir() and path.resolve().is_relative_to(one.resolve())]
            if inside:
                raise UsageError(f"{name} {path} is a file of {inside[0]}; give it another name")
        if self.contact_sheet is not None:
            check_picture_path(self.contact_sheet)

    def sets(self, tell: Callable[[str], None] = lambda line: None) -> list[PictureCases]:
        """The sets of pictures, in the paper's order of tasks. ``tell`` hears of folders that are left out.

        Raises ``UsageError``, ``InputError``.
        """
        from measnet.evaluation.cases import cases_of
        from measnet.train.data.layouts import find_sets, read_pairs
        from measnet.train.data.pictures import list_pictures
        from measnet.train.data.sets import CLEAN, ImageSet, Pair

        images: list[ImageSet] = []
        for folder in self.data:
            images += find_sets(folder, split="test", tell=tell)
        for text in self.pairs:
            task, equals, place = text.partition("=")
            if not equals or not place:
                raise UsageError(f"--pairs {text} must be TASK=FOLDER, such as derain=rain/")
            _check_task(task)
            images.append(read_pairs(Path(place), task))
        for folder in self.clean:
            pairs = tuple(Pair(None, path) for path in list_pictures(folder))
            images.append(ImageSet(folder.resolve().name, CLEAN, pairs))
        sigmas = self.sigma or (15, 25, 50)
        found = [cases for one in images for cases in cases_of(one, sigmas, self.limit)]
        return sorted(found, key=lambda one: PAPER_ORDER.index(one.task))

    def videos(self) -> VideoOptions | None:
        """The sequences and what is asked of them; None without any."""
        _check_task(self.video_task)
        if not self.video:
            for given, option in ((self.video_target, "--video-target"), (self.degrade, "--degrade")):
                if given:
                    raise UsageError(f"{option} goes with --video, which is not given")
            return None
        if not self.video_target and self.degrade is None:
            raise UsageError(
                "--video needs the clean one too: --video-target CLEAN; or, if it is clean itself, "
                "--degrade STEPS, such as --degrade sensor:18,h264:28"
            )
        if self.video_target and self.degrade is not None:
            raise UsageError("--degrade makes a clean --video degraded; with --video-target it is so already")
        from measnet.evaluation.video.degrade import parse_chain
        from measnet.evaluation.video.measure import VideoOptions
        from measnet.evaluation.video.sequences import find_sequences

        return VideoOptions(
            places=tuple(find_sequences(self.video, self.video_target)),
            chain=() if self.degrade is None else parse_chain(self.degrade),
            task=self.video_task,
            temporal=self.temporal,
            seed=self.seed,
            limit=self.limit,
            classical=self.classical,
            threads=self.threads or _cores(),
        )

    def wanted(
        self, sets: Sequence[PictureCases], videos: VideoOptions | None
    ) -> tuple[list[PictureCases], VideoOptions | None]:
        """Keeps what belongs to the tasks asked for. Raises ``UsageError`` where that is nothing."""
        if not sets and videos is None:
            raise UsageError("nothing to measure: give --data, --pairs, --clean or --video (see --help)")
        if self.tasks is None:
            return list(sets), videos
        tasks = self.tasks.split(",")
        for task in tasks:
            _check_task(task)
        given = {one.task for one in sets} | ({videos.task} if videos is not None else set())
        if absent := [task for task in tasks if task not in given]:
            raise UsageError(f"no set was given for {', '.join(absent)}")
        kept = videos if videos is not None and videos.task in tasks else None
        return [one for one in sets if one.task in tasks], kept

    def _results(self) -> Iterator[tuple[str, Path]]:
        if self.report is not None:
            yield "--report", self.report
        if self.contact_sheet is not None:
            yield "--contact-sheet", self.contact_sheet


def _check_task(task: str) -> None:
    from measnet.train.data.sets import TASKS

    if task not in TASKS:
        raise UsageError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
