"""Engine of a run: opened, guarded and checked as its options say."""

from __future__ import annotations

from functools import partial

from measnet.errors import UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.guard import Guard, safer_than
from measnet.runtime.options import STEADY, RunOptions
from measnet.runtime.restorer import Restorer
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.steady import Steady
from measnet.runtime.turns import Turns


def open_restorer(options: RunOptions, turns: Turns | None = None) -> Restorer:
    """Loads what restores, in ``turns`` with others that are given the same.

    Raises UsageError where it cannot do what is asked, BackendError.
    """
    engine = options.engine
    restorer = Restorer(
        engine.model,
        engine.backend,
        tile=engine.tile,
        threads=engine.threads,
        memory=None if engine.memory is None else int(engine.memory * 1e9),
        task=engine.task,
        turns=turns,
        steered=options.steady != 0,
    )
    if options.steady and not restorer.steerable:
        restorer.close()
        raise UsageError(
            f"{engine.model} cannot be held steady: it takes no decisions from outside; take a "
            "bundled model, a checkpoint, or a graph or an engine made with --steerable"
        )
    return restorer


def guard_for(restorer: Restorer, options: RunOptions, info: StreamInfo) -> Guard:
    """Guards ``restorer`` for the frames of one source."""
    return Guard(
        restorer,
        options.checks.on_fault,
        lambda: safer_than(restorer, options.checks.checkpoint),
        steady_for=partial(_steady_for, options, info),
        scenes=None if info.kind == "images" else SceneCut(),
    )


def _steady_for(options: RunOptions, info: StreamInfo, engine: Restorer) -> Steady | None:
    """Holds a video steady where that matters: over time, or over its tiles."""
    share = options.steady
    if info.kind == "images" or (share == 0 and len(engine.tiles_for(info.height, info.width)) == 1):
        return None
    if not engine.steerable:  # asked last: it may load another graph
        return None
    return Steady(STEADY if share is None else share)
