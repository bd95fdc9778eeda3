"""Writes a run's journal for TensorBoard: losses, PSNR per task, each expert's share, and sample pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from measnet.train.cadence import Cadence

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MOST_PICTURES = 4


class Journal:
    """Gathers figures at every step and writes their means when asked. A context manager.

    Without the package tensorboard the means are still gathered (they go to ``log.jsonl``), nothing else is
    written.
    """

    def __init__(
        self,
        out: Path | None,
        tasks: Sequence[str],
        done: int,
        pictures_every: int = Cadence.pictures_every,
    ) -> None:
        self._tasks = tasks
        self._pictures_every = pictures_every
        self._psnr: defaultdict[str, list[float]] = defaultdict(list)
        self._demand: list[Tensor] = []
        self._sample: tuple[Tensor, Tensor, Tensor] | None = None
        self._writer = None if out is None else _writer(out / "tensorboard", done)

    @classmethod
    def silent(cls) -> Journal:
        """One that hears and says nothing: for the processes that do not lead."""
        return cls(None, [], 0)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def watch(self, degraded: Tensor, losses: dict[str, Tensor], clean: Tensor, draws: Tensor) -> None:
        """Takes in one step: two batches (B 3 H W), what ``TrainingStep`` returned, and each sample's draw
        (B)."""
        if not self._tasks:
            return
        restored = losses["restored"].clamp(0, 1)
        errors = (restored - clean).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)  # B
        for draw, error in zip(draws.tolist(), errors.tolist(), strict=True):
            self._psnr[self._tasks[draw]].append(-10 * torch.tensor(error).log10().item())
        if "demand" in losses:
            self._demand.append(losses["demand"].cpu())
        self._sample = (degraded, restored, clean)

    def write(self, step: int, figures: dict[str, float]) -> dict[str, float]:
        """Writes what was gathered since the last time; returns the mean PSNR of each task, dB."""
        psnr = {f"psnr_{task}": sum(seen) / len(seen) for task, seen in sorted(self._psnr.items())}
        self._psnr.clear()
        if self._writer is not None:
            for name, value in {**figures, **psnr}.items():
                self._writer.add_scalar(name.replace("psnr_", "psnr/"), value, step)
            if self._demand:
                shares = torch.stack(self._demand).mean(dim=0)
                for expert, share in enumerate(shares.tolist()):
                    self._writer.add_scalar(f"expert_load/{expert}", share, step)
                self._writer.add_histogram("expert_load", torch.stack(self._demand), step)
            if step % self._pictures_every == 0 and self._sample is not None:
                self.show(step, *self._sample)
        self._demand.clear()
        return psnr

    def show(self, step: int, degraded: Tensor, restored: Tensor, clean: Tensor) -> None:
        """Shows the first pictures of three batches, each B 3 H W."""
        if self._writer is not None:
            rows = [torch.cat(list(b[:MOST_PICTURES]), dim=2) for b in (degraded, restored, clean)]
            self._writer.add_image("degraded_restored_clean", torch.cat(rows, dim=1).clamp(0, 1), step)


def _writer(folder: Path, done: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: Any = SummaryWriter
    return writer(str(folder), purge_step=done + 1)
