"""The folder of a run: everything needed to go on, the weights for use, and what happened.

``checkpoint.pt`` resumes, ``weights.safetensors`` is for use, ``log.jsonl`` has a line per 50 steps, and
``bad_batch.pt`` appears when a loss was not a number.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from measnet.checkpoint import save_checkpoint
from measnet.errors import CheckpointError, OutputError, UsageError
from measnet.network import MEASNet
from measnet.train.optimizer import WeightUpdates
from measnet.train.recipe import Recipe
from measnet.whole_file import write_whole


class Progress(NamedTuple):
    """The progress of a run."""

    step: int = 0
    seconds: float = 0.0
    """Spent so far, for runs that end by the clock."""

    batch: int = 0
    """Crops per step, where that changed on the way; 0 for the recipe's."""


def seconds_spent(path: Path) -> float:
    """Reads the seconds spent so far on the run in ``path`` from its last checkpoint, if there is one."""
    try:
        state: dict[str, Any] = torch.load(path / "checkpoint.pt", map_location="cpu", weights_only=True)
        return float(state["progress"]["seconds"])
    except Exception:  # whoever resumes says what is wrong with it
        return 0.0


class RunFolder:
    """Raises ``OutputError`` when the folder or a file in it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".writable.{os.getpid()}"  # several processes may share a run
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(f"cannot write to the run folder {path}: {error.strerror}") from None

    def save(
        self,
        recipe: Recipe,
        origin: dict[str, str],
        progress: Progress,
        network: MEASNet,
        average: MEASNet,
        updates: WeightUpdates,
    ) -> None:
        """Writes the checkpoint, then the weights; each replaces the one before when it is whole."""
        state = {
            "recipe": asdict(recipe),
            "origin": origin,
            "step": progress.step,
            "progress": progress._asdict(),
            "network": network.state_dict(),
            "average": average.state_dict(),
            "updates": updates.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_whole(self.path / "checkpoint.pt", content.getvalue())
        self.save_weights(origin, progress.step, average)

    def save_weights(self, origin: dict[str, str], step: int, average: MEASNet) -> None:
        """Writes the weights for use; they replace those before when they are whole."""
        save_checkpoint(average, self.path / "weights.safetensors", {"measnet.steps": str(step), **origin})

    def resume(
        self,
        recipe: Recipe,
        origin: dict[str, str],
        network: MEASNet,
        average: MEASNet,
        updates: WeightUpdates,
    ) -> Progress:
        """Takes up the run saved here; returns how far it had come, nowhere if there is none.

        Raises ``CheckpointError`` for a damaged checkpoint, ``UsageError`` when it has other settings.
        """
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return Progress()
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            stored, stored_origin = state["recipe"], state["origin"]
        except Exception as error:
            raise CheckpointError(
                f"cannot resume from {path}, which is damaged or no checkpoint of a run "
                f"({type(error).__name__}); remove it to start over"
            ) from None
        ours = asdict(recipe)
        changed = sorted(name for name in {*ours, *stored} if ours.get(name) != stored.get(name))
        changed += sorted(k for k in {*origin, *stored_origin} if origin.get(k) != stored_origin.get(k))
        if changed:
            raise UsageError(
                f"{self.path} holds a run with other settings ({', '.join(changed)}); "
                "give the recipe it was started with, or another --out folder; "
                f"--init {self.path / 'weights.safetensors'} goes on from its weights there"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        updates.load_state_dict(state["updates"])
        self._forget_lines_after(int(state["step"]))
        return Progress(**state.get("progress", {"step": int(state["step"])}))

    def _forget_lines_after(self, step: int) -> None:
        """Steps after the last checkpoint are done again, and logged again."""
        path = self.path / "log.jsonl"
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            if kept != lines:
                write_whole(path, "".join(kept))

    def log(self, step: int, figures: dict[str, float]) -> None:
        line = {"step": step, **{name: round(value, 6) for name, value in figures.items()}}
        try:
            with (self.path / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / 'log.jsonl'}: {error.strerror}") from None

    def keep_batch(self, step: int, degraded: Tensor, clean: Tensor) -> Path:
        """Keeps a batch that went wrong, for inspection."""
        content = io.BytesIO()
        torch.save({"step": step, "degraded": degraded.cpu(), "clean": clean.cpu()}, content)
        write_whole(self.path / "bad_batch.pt", content.getvalue())
        return self.path / "bad_batch.pt"
