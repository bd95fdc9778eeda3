"""Parity while a run goes on: some frames are restored with the reference too, and held against it."""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from measnet.errors import MissingPackageError, ParityError, UsageError
from measnet.image import Pixels
from measnet.metrics import (
    FP32_TOLERANCE,
    TOLERANCES,
    Parity,
    Tolerance,
    experts_agree,
    largest_difference,
    psnr,
)
from measnet.runtime.backends.choice import checkpoint_of
from measnet.runtime.frame import Restoration
from measnet.runtime.guard import bundled_name, safer_than
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.run_report import RunReport
from measnet.runtime.stream import Observer


@dataclass
class ParityFigures:
    """Parity over all frames that were verified: the worst of each figure, routing as a mean."""

    tolerance: Tolerance
    frames: int = 0
    psnr_db: float = float("inf")
    largest_difference: float = 0.0
    experts_agree_sum: float = 0.0

    def add(self, parity: Parity) -> None:
        self.frames += 1
        self.psnr_db = min(self.psnr_db, parity.psnr_db)
        self.largest_difference = max(self.largest_difference, parity.largest_difference)
        self.experts_agree_sum += parity.experts_agree

    @property
    def worst(self) -> Parity:
        agree = self.experts_agree_sum / self.frames if self.frames else 1.0
        return Parity(self.psnr_db, self.largest_difference, agree)

    @property
    def breaches(self) -> list[str]:
        return self.worst.breaches(self.tolerance)


class Verifier:
    """Holds a restorer's frames against the reference's, on the same input and the same tiles.

    The reference is PyTorch. Without torch it is the float32 graph of the same weights on the CPU, where that
    is bundled and is not what restores anyway.

    ``checkpoint`` is the checkpoint the restorer's model was made from, or its float32 graph; bundled models
    know theirs. ``tolerance`` is by default that of the model's precision. ``tell`` hears of every frame.
    Raises ``MissingPackageError`` without torch and such a graph, ``UsageError`` when the checkpoint has
    other weights.
    """

    def __init__(
        self,
        restorer: Restorer,
        checkpoint: str | None = None,
        tolerance: Tolerance | None = None,
        tell: Callable[[Parity], None] = lambda parity: None,
    ) -> None:
        self._restorer = restorer
        self._tell = tell
        self._network = _reference(restorer, checkpoint)
        ours = restorer.description["weights_sha256"]
        theirs = self._network.description["weights_sha256"]
        if ours != theirs:
            raise UsageError(
                f"{restorer.model} was not made from {self._network.model}: its weights are {ours[:12]}…, "
                f"the checkpoint's {theirs[:12]}…"
            )
        precision = restorer.description["precision"]
        self._figures = ParityFigures(tolerance or TOLERANCES.get(precision, FP32_TOLERANCE))

    def check(self, pixels: Pixels, restored: RestoredFrame) -> Parity:
        """Restores ``pixels`` with PyTorch and adds how far ``restored`` is from it."""
        self._network.follow(self._restorer, *pixels.shape[:2])
        steering = restored.steering
        expected = self._network.restore(pixels, steering, apart=steering is None)
        agree = [
            experts_agree(ours, theirs)
            for ours, theirs in zip(restored.choices, expected.choices, strict=True)
        ]
        parity = Parity(
            psnr_db=psnr(restored.image, expected.image),
            largest_difference=largest_difference(restored.image, expected.image),
            experts_agree=float(np.mean(agree)),
        )
        self._figures.add(parity)
        self._tell(parity)
        return parity

    @property
    def figures(self) -> dict[str, Any]:
        """Ready for JSON: the reference, the frames verified, three figures, the tolerance, the verdict."""
        worst = self._figures.worst
        return {
            "reference": self._network.description["backend"],
            "frames": self._figures.frames,
            "psnr_db": worst.psnr_db if np.isfinite(worst.psnr_db) else None,
            "largest_difference": worst.largest_difference,
            "experts_agree": worst.experts_agree,
            "tolerance": vars(self._figures.tolerance),
            "passed": not self._figures.breaches,
            "breaches": self._figures.breaches,
        }

    def close(self) -> None:
        self._network.close()


def _reference(restorer: Restorer, checkpoint: str | None) -> Restorer:
    """Opens what computes the same weights in float32; those of a checkpoint are yet to be compared."""
    if checkpoint is not None and checkpoint.lower().endswith(".onnx"):
        return Restorer(checkpoint, "onnxruntime-cpu", restorer.channel_order, tile=restorer.tile)
    known = bundled_name(restorer.description["weights_sha256"]) if checkpoint is None else None
    path = checkpoint_of(known or restorer.model, checkpoint)
    try:
        return Restorer(str(path), "torch", restorer.channel_order, tile=restorer.tile)
    except MissingPackageError:
        graph = safer_than(restorer, None)
        if graph is None:
            raise
        return graph


class BackgroundChecker(Observer):
    """Has every N-th frame compared in the background of a run.

    A frame is taken when the one before is done and the checker has kept to its share since; otherwise it is
    left out and counted, so that nothing waits and nothing piles up. The first frame is always taken.

    Args:
        checker: what compares; used in this object's thread alone, and closed with it.
        share: of the time by the clock that it may compute, above 0 to 1. Its first frame is not counted:
            it prepares much that later ones reuse.
        every: so many frames one is offered.
        clock: tells seconds.
    """

    def __init__(
        self,
        checker: Verifier,
        share: float,
        every: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._checker = checker
        self._share = share
        self._every = every
        self._clock = clock
        self._seen = 0
        self._seconds = 0.0
        self._frames: queue.Queue[tuple[Pixels, RestoredFrame] | None] = queue.Queue(1)
        self._idle = threading.Event()
        self._idle.set()
        self._free_from = 0.0
        self._checked = 0
        self._left_out = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="measnet-verify", daemon=True)
        self._thread.start()

    def restored(self, passing: Restoration) -> None:
        # A ladder has frames restored at another size: then there is no result to compare.
        if self._seen % self._every == 0 and passing.engine_result is not None:
            started = time.perf_counter()
            passing.verified = self.check(passing.source.pixels, passing.engine_result)
            self._seconds += time.perf_counter() - started
        self._seen += 1

    def conclude(self, report: RunReport) -> None:
        """See Observer.conclude. Raises ParityError."""
        report.verify = figures = self.figures
        report.seconds["verify"] = round(self._seconds, 4)
        if not figures["passed"]:
            message = (
                f"{report.output} is not what the network gives in float32: "
                f"{'; '.join(figures['breaches'])}; try another --backend and report this one"
            )
            report.error = message
            raise ParityError(message)

    def check(self, pixels: Pixels, restored: RestoredFrame) -> bool:
        """Has ``restored`` compared soon; False where it is left out.

        Raises what an earlier comparison raised.
        """
        self._raise_failure()
        if not self._idle.is_set() or self._clock() < self._free_from:
            self._left_out += 1
            return False
        self._idle.clear()
        self._frames.put(copy.deepcopy((pixels, restored)))  # an engine may use its memory again
        return True

    @property
    def figures(self) -> dict[str, Any]:
        """Waits for the checker; gives its figures, with the frames it did not take as ``left_out``."""
        self._idle.wait()
        self._raise_failure()
        return {**self._checker.figures, "left_out": self._left_out}

    def close(self) -> None:
        """Ends the thread, after the comparison it is at, and closes the checker."""
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()
            self._checker.close()

    def _work(self) -> None:
        while (item := self._frames.get()) is not None:
            started = self._clock()
            try:
                self._checker.check(*item)
            except BaseException as error:
                self._failure = error
            ended = self._clock()
            if self._checked:
                self._free_from = ended + (ended - started) * (1 / self._share - 1)
            self._checked += 1
            self._idle.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
