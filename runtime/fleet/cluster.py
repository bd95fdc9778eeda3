"""A cluster of Ray: files become tasks, and a task whose worker is lost is begun again by another one.

archive ── a task for each file ── workers ── results, in the order in which they are done
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from measnet.errors import MissingPackageError, UsageError, first_line
from measnet.runtime.fleet.archive import Item
from measnet.runtime.options import RunOptions
from measnet.runtime.run_report import RunReport

LOCAL = "local"
LOST = 5
"""Workers that may be lost over one file; then it is given up, as it may have killed them."""

_CONNECT_SECONDS = 5.0
_LOOK = 0.1
_LAST_SECONDS = 30.0


class Cluster:
    """Workers of a Ray cluster; a context manager, which starts one of this machine's own for ``local``.

    Args:
        address: ``local``, ``local:N`` for N workers, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        threads: CPUs of each worker.

    Raises:
        UsageError: it is not there.
    """

    def __init__(self, address: str, threads: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or it tells its makers
        try:
            import ray
        except ModuleNotFoundError:
            raise MissingPackageError("--ray", "ray", "ray") from None
        self._ray: Any = ray
        self._threads = threads
        if not address.startswith((LOCAL, "auto")):
            _check_answers(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        own = _local_cpus(address, threads) if address.partition(":")[0] == LOCAL else 0
        try:
            if own:
                ray.init(LOCAL, num_cpus=own, include_dashboard=False, **quiet)
            else:
                ray.init(address, **quiet)
        except Exception as error:  # Ray raises this very class where a node does not start in time
            ray.shutdown()
            told = f"no Ray cluster at {address} ({first_line(error)}); "
            if own:
                raise UsageError(f"{told}try again when this machine is less busy") from None
            raise UsageError(f"{told}start one with 'ray start --head', or take --ray local") from None
        resources = self._ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0))
        self.workers = self._gpus or int(resources.get("CPU", 1)) // threads
        if not self.workers:
            self.close()
            raise UsageError(
                f"no machine of the cluster has {threads} CPUs for a worker; ask for fewer --threads"
            )

    def restore(
        self, items: Sequence[Item], options: RunOptions, stop: threading.Event
    ) -> Iterator[tuple[Item, int, RunReport]]:
        """Restores ``items``; yields each with its exit status and its report as it is done.

        Once ``stop`` is set, those under way keep what they have of whole segments, and it ends.
        """
        from ray.exceptions import RayError, TaskCancelledError

        from measnet.runtime.fleet.worker import restore

        # A GPU serves one worker; without one, a worker takes the CPUs that its engine computes on.
        needs = {"num_gpus": 1, "num_cpus": 1} if self._gpus else {"num_cpus": self._threads}
        task = self._ray.remote(max_retries=LOST, **needs)(restore)
        asked = {task.remote(item, options): item for item in items}
        while asked:
            ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=_LOOK)
            for reference in ready:
                item = asked.pop(reference)
                try:
                    status, report = self._ray.get(reference)
                except TaskCancelledError:
                    continue
                except RayError as error:
                    words = f"its workers were lost, again and again ({first_line(error)}); see Ray's logs"
                    status, report = 1, RunReport(input=str(item.source), error=f"{item.source}: {words}")
                yield item, status, report
            if stop.is_set() and asked:
                for reference in asked:
                    self._ray.cancel(reference)
                self._ray.wait(list(asked), num_returns=len(asked), timeout=_LAST_SECONDS)
                return

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        self._ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _check_answers(address: str) -> None:
    """Raises UsageError where nobody listens: Ray itself would try for minutes, and complain meanwhile."""
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
        if parts.scheme != "ray" or not host or not port or parts.username is not None:
            raise ValueError
    except ValueError:
        raise UsageError("--ray takes local, local:N, auto, HOST:PORT or ray://HOST:PORT") from None
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster at {address} ({error.strerror or 'no answer'}); start one with "
            "'ray start --head', or take --ray local"
        ) from None


def _local_cpus(address: str, threads: int) -> int:
    _, colon, number = address.partition(":")
    if not colon:
        return os.cpu_count() or 1
    if not number.isdecimal() or not 1 <= int(number) <= 1024:
        raise UsageError(f"--ray {address}: say how many workers, as in local:4")
    return int(number) * threads
