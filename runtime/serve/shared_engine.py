"""Engines that cameras share: one for each model, and turns over all of them."""

from __future__ import annotations

from typing import Any

from measnet.decisions import Vector
from measnet.image import Pixels
from measnet.runtime.backends import Steering
from measnet.runtime.engine import open_restorer
from measnet.runtime.options import EngineOptions, RunOptions
from measnet.runtime.restorer import RestoredFrame, Restorer
from measnet.runtime.serve.turns import Turns
from measnet.runtime.tiles import Tile


class SharedEngine:
    """A restorer as one of several cameras sees it: every picture is restored in a turn of its own.

    ``restorer`` stays its owner's, unless this is closed.
    """

    def __init__(self, restorer: Restorer, turns: Turns) -> None:
        self._restorer = restorer
        self._turns = turns

    @property
    def description(self) -> dict[str, Any]:
        """See Restorer."""
        return self._restorer.description

    @property
    def decisions_size(self) -> int:
        """See Restorer."""
        return self._restorer.decisions_size

    @property
    def steerable(self) -> bool:
        """See Restorer."""
        return self._restorer.steerable

    def restore(self, pixels: Pixels, steering: Steering | None = None) -> RestoredFrame:
        """See Restorer."""
        with self._turns.taken():
            return (
                self._restorer.restore(pixels)
                if steering is None
                else self._restorer.restore(pixels, steering)
            )

    def settle(self, pixels: Pixels) -> Steering | None:
        """See Restorer."""
        with self._turns.taken():
            return self._restorer.settle(pixels)

    def steer(self, held: Vector, share: float) -> Steering:
        """See Restorer."""
        return self._restorer.steer(held, share)

    def unsteered(self) -> Steering:
        """See Restorer."""
        return self._restorer.unsteered()

    def tiles_for(self, height: int, width: int) -> list[Tile]:
        """See Restorer."""
        return self._restorer.tiles_for(height, width)

    def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
        """See Restorer."""
        self._restorer.use_tiles(height, width, tiles)

    def close(self) -> None:
        """Closes the restorer, once nobody is at work with it."""
        with self._turns.taken():
            self._restorer.close()


class Engines:
    """All engines of a number of cameras. Cameras that ask for the same one share it.

    A Triton server takes requests of all cameras at once and batches them itself: its cameras have a
    connection each, and no turns.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._shared: dict[EngineOptions, Restorer] = {}
        self._opened: list[Restorer] = []

    def open(self, options: RunOptions) -> Restorer:
        """Opens the engine that ``options`` ask for, or finds it open. Raises MEASNetError."""
        known = self._shared.get(options.engine)
        if known is not None:
            return known
        restorer = open_restorer(options)
        self._opened.append(restorer)
        if not _batches_itself(restorer):
            self._shared[options.engine] = restorer
        # What steers it is loaded when it is first asked for: here, and not by two cameras at once.
        _ = restorer.steerable
        return restorer

    def share(self, restorer: Restorer) -> SharedEngine:
        """Gives one camera's part of an engine of its own, or of one that it has fallen back to."""
        return SharedEngine(restorer, Turns() if _batches_itself(restorer) else self._turns)

    def close(self) -> None:
        """Lets go of all of them."""
        for restorer in self._opened:
            restorer.close()


def _batches_itself(restorer: Restorer) -> bool:
    return bool(restorer.description.get("backend") == "triton")
