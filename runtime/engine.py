"""Engine of a run: opened, guarded and checked as its options say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from measnet.errors import UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.guard import Engine, Guard, safer_than
from measnet.runtime.options import STEADY, RunOptions
from measnet.runtime.scene_cut import SceneCut
from measnet.runtime.steady import Steady

if TYPE_CHECKING:
    from measnet.runtime.restorer import Restorer


def open_restorer(options: RunOptions) -> Restorer:
    """Loads what restores. Raises UsageError where it cannot do what is asked, BackendError."""
    from measnet.runtime.restorer import Restorer

    engine = options.engine
    restorer = Restorer(
        engine.model,
        engine.backend,
        tile=engine.tile,
        threads=engine.threads,
        memory=None if engine.memory is None else int(engine.memory * 1e9),
        task=engine.task,
    )
    if options.steady and not restorer.steerable:
        restorer.close()
        raise UsageError(
            f"{engine.model} cannot be held steady: it takes no decisions from outside; take a "
            "bundled model, a checkpoint, or a graph or an engine made with --steerable"
        )
    return restorer


def guard_for(
    restorer: Restorer,
    options: RunOptions,
    info: StreamInfo,
    share: Callable[[Restorer], Engine] = lambda restorer: restorer,
) -> Guard:
    """Guards ``restorer`` for the frames of one source.

    ``share`` gives what this source may use of a restorer, and of the one that is fallen back to.
    """

    def safer() -> Engine | None:
        safe = safer_than(restorer, options.checks.checkpoint)
        return None if safe is None else share(safe)

    return Guard(
        share(restorer),
        options.checks.on_fault,
        safer,
        steady_for=partial(_steady_for, options, info),
        scenes=None if info.kind == "images" else SceneCut(),
    )


def _steady_for(options: RunOptions, info: StreamInfo, engine: Any) -> Steady | None:
    """Holds a video steady where that matters: over time, or over its tiles."""
    if info.kind == "images" or not engine.steerable:
        return None
    share = options.steady
    if share == 0 and len(engine.tiles_for(info.height, info.width)) == 1:
        return None
    return Steady(STEADY if share is None else share)
