"""Refusal of options that would have no effect on the run."""

from __future__ import annotations

from collections.abc import Sequence

from measnet.errors import UsageError
from measnet.runtime.options import Checks, Live, RunOptions
from measnet.runtime.sources.choose import is_live


def refuse_idle(options: RunOptions, inputs: Sequence[str]) -> None:
    """Raises UsageError that names each option which goes with another one, or with other inputs."""
    if idle := idle_options(options, inputs):
        them = "it" if len(idle) == 1 else "them"
        raise UsageError(f"{'; '.join(idle.values())}; leave {them} away, or add that")


def idle_options(options: RunOptions, inputs: Sequence[str]) -> dict[str, str]:
    """Finds options that were given and have no effect; says by name with which others they would."""
    checks, live = options.checks, options.live
    idle = {}
    if checks.verify is None and checks.verify_share != Checks().verify_share:
        idle["verify_share"] = "--verify-share goes with --verify 1/N"
    if checks.checkpoint is not None and checks.verify is None and checks.on_fault != "fallback":
        idle["checkpoint"] = "--checkpoint goes with --verify 1/N or --on-fault fallback"
    if not live.ladder and live.max_latency is None:
        idle["ladder"] = "--no-ladder goes with --max-latency"
    if not any(map(is_live, inputs)):
        if live.reconnect != Live().reconnect:
            idle["reconnect"] = "--reconnect is for cameras and streams"
        if live.insecure and not any("://" in out for out in options.out):
            idle["insecure"] = "--insecure is for addresses"
    return idle
