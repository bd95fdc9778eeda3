"""Options that nothing of a run would use: whoever gives one expects something of it, so it is refused."""

from __future__ import annotations

from collections.abc import Sequence

from measnet.errors import UsageError
from measnet.runtime.options import Checks, Live, RunOptions
from measnet.runtime.sources.choose import is_live


def refuse_idle(options: RunOptions, inputs: Sequence[str]) -> None:
    """Raises UsageError that names each option which goes with another one, or with other inputs."""
    checks, live = options.checks, options.live
    idle = []
    if checks.verify is None and checks.verify_share != Checks().verify_share:
        idle.append("--verify-share goes with --verify 1/N")
    if checks.checkpoint is not None and checks.verify is None and checks.on_fault != "fallback":
        idle.append("--checkpoint goes with --verify 1/N or --on-fault fallback")
    if not live.ladder and live.max_latency is None:
        idle.append("--no-ladder goes with --max-latency")
    if not any(map(is_live, inputs)):
        if live.reconnect != Live().reconnect:
            idle.append("--reconnect is for cameras and streams")
        if live.insecure and not any("://" in out for out in options.out):
            idle.append("--insecure is for addresses")
    if idle:
        raise UsageError(f"{'; '.join(idle)}; leave {'it' if len(idle) == 1 else 'them'} away, or add that")
