"""A look at all inputs before the first is restored: what would fail is said before hours have gone by."""

from __future__ import annotations

from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.job import Job
from measnet.runtime.options import RunOptions
from measnet.runtime.overall import Amount
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT
from measnet.runtime.sources.choose import is_on_disk


class Survey:
    """Looks at one input after the other. ``options`` are those of the run."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._targets: dict[Path, str] = {}

    def look_at(self, spec: str) -> Amount:
        """What ``spec`` asks for. A live source, or standard input, is left alone.

        Raises:
            MEASNetError: it cannot be restored to where it is to go.
        """
        if not is_on_disk(spec):
            return Amount(None, 0)
        job = Job(spec, self._options)
        job.close()
        if job.target != STANDARD_OUTPUT:
            first = self._targets.setdefault(job.target.resolve(), spec)
            if first != spec:
                raise UsageError(
                    f"{first} and {spec} would both become {job.target}; restore them one by one"
                )
        return Amount(job.length, job.info.width * job.info.height)
