"""The server of a run: one thread with its own event loop, for the page, metrics and health."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from measnet.errors import MissingPackageError, UsageError
from measnet.runtime.experts import Account
from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.events import Events
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.operations.address import Address
from measnet.runtime.stream import Observer

try:
    import h11
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    from uvicorn import Config, Server
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingPackageError("--console or --metrics", error.name or "uvicorn", "live") from None

from measnet.runtime.operations.access import VARIABLE, Access, Token
from measnet.runtime.operations.app import application, browser_rules, packaged
from measnet.runtime.operations.board import Board
from measnet.runtime.operations.pair_feed import LatestPair

CONNECTIONS = 256
"""More at once are answered with 503."""

HEAD_BYTES = 16 * 1024
"""Most that a request's first lines may take."""

REQUEST_SECONDS = 10
"""Time that a request may take to arrive."""

TICK = 1.0

_LOGGER = logging.getLogger("measnet.operations")
_LOGGER.setLevel(logging.CRITICAL)  # no log of malformed requests; ERROR shows faults of this server


@dataclass(frozen=True, slots=True)
class _Place:
    """One address with what is to be seen there."""

    name: str
    address: Address
    token: Token | None
    socket: socket.socket
    server: Server

    @property
    def line(self) -> str:
        host, port = self.address.host, self.socket.getsockname()[1]
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
        url = f"http://{Address(shown, port)}/{'' if self.name == 'console' else 'metrics'}"
        if self.token is None:
            return f"{self.name}: {url}"
        if not self.token.generated:
            return f"{self.name}: {url} (with the token of {VARIABLE})"
        if self.name == "console":
            return f"{self.name}: {url}?token={self.token.secret}"
        return f"{self.name}: {url} (Authorization: Bearer {self.token.secret})"


class Operations:
    """Serves what there is to know of the cameras of a run, from ``start`` to ``close``; a context manager.

    Nothing that clients do reaches the streams: these write into ``Telemetry``, ``Events`` and
    ``LatestPair``, and the server's thread reads them.

    Args:
        events: of all cameras.
        metrics, console: where to serve them; one address may have both.
        may_print: there is somebody to print a token to.

    Raises:
        UsageError: an address cannot be had, or the token be used.
    """

    def __init__(
        self,
        events: Events,
        *,
        metrics: Address | None = None,
        console: Address | None = None,
        may_print: bool = True,
    ) -> None:
        self.board = Board(events)
        self._places: list[_Place] = []
        self._thread = threading.Thread(target=self._run, name="measnet-operations", daemon=True)
        html = packaged("page.html")
        wanted = {"console": console, "metrics": metrics}
        if metrics is not None and metrics == console:
            del wanted["metrics"]
        try:
            for name, address in wanted.items():
                if address is not None:
                    token = self._token(name, address, may_print)
                    app = application(
                        self.board, html, console=address == console, metrics=address == metrics
                    )
                    guarded = Access(app, address, token, browser_rules(html))
                    self._places.append(
                        _Place(name, address, token, address.listen(f"--{name}"), Server(_config(guarded)))
                    )
        except BaseException:
            self.close()
            raise

    def show(self, telemetry: Telemetry, info: StreamInfo | None = None) -> list[Observer]:
        """Shows a camera from now on, its pictures too: gives the observers that its stream has to have.

        ``info`` says how the frames are turned; without it they are a live stream's, not turned.
        """
        pair = LatestPair(info)
        self.board.watch(telemetry, pair)
        return [Account(telemetry), pair]

    @property
    def lines(self) -> list[str]:
        """Addresses for the user, a line each; a generated token stands in them, so print them once."""
        return [place.line for place in self._places]

    def url(self, name: str = "console") -> str:
        """The address of ``console`` or ``metrics``, without a path."""
        place = next((place for place in self._places if place.name == name), self._places[0])
        return f"http://{Address(place.address.host, place.socket.getsockname()[1])}"

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Ends the server, answers under way too. May be called twice."""
        self.board.leave()
        for place in self._places:
            place.server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        for place in self._places:
            place.socket.close()

    def __enter__(self) -> Operations:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _token(self, name: str, address: Address, may_print: bool) -> Token | None:
        known = next((place.token for place in self._places if place.token is not None), None)
        token = Token.for_address(address)
        if token is None or not token.generated:
            return token
        if not may_print:
            raise UsageError(
                f"--{name} {address} can be reached from other machines and needs a token, and none is made "
                f"where it would stand in a log; set {VARIABLE} to one (openssl rand -hex 24)"
            )
        return known or token

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        ticking = asyncio.create_task(self._tick())
        await asyncio.gather(*(place.server.serve(sockets=[place.socket]) for place in self._places))
        ticking.cancel()

    async def _tick(self) -> None:
        while True:
            self.board.tick()
            await asyncio.sleep(TICK)


def _config(app: Access) -> Config:
    return Config(
        app,
        http=_Patient,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )


class _Patient(H11Protocol):
    """HTTP whose requests have to arrive in their time: uvicorn itself would wait for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Uvicorn's own are those of the program that this one may be part of.
        self.logger, self.access_log = _LOGGER, False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _expect(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
