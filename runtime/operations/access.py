"""Access: who may see what the server tells, and what each answer tells browsers.

At a loopback address everybody on this machine may, as long as the browser was really sent to this machine: a
page elsewhere whose name was made to point here (DNS rebinding) is known by the name that it asks for. At any
other address, or where there is a token, whoever has the token may.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from measnet.errors import UsageError
from measnet.runtime.operations.address import Address

VARIABLE = "MEASNET_TOKEN"
"""The environment variable that a token is taken from: arguments can be read by everyone on a machine."""

FILE_VARIABLE = "MEASNET_TOKEN_FILE"
"""The environment variable that names a file with the token, as systemd and Docker hand secrets over."""

GUESSES = 10
"""Wrong tokens from one address within ``GUESSING_SECONDS`` after which it is refused for a while."""

GUESSING_SECONDS = 60.0

OPEN = ("/healthz", "/readyz")
"""Paths that need no token: supervisors ask for them, and they tell hardly anything."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}", re.ASCII)
_COOKIE_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Token:
    """A secret that opens the server. ``generated`` says that nobody knows it yet."""

    secret: str
    generated: bool = False

    @classmethod
    def for_address(cls, address: Address) -> Token | None:
        """Takes the one of ``MEASNET_TOKEN``, or of the file that ``MEASNET_TOKEN_FILE`` names; without them
        makes one, or None where the address needs none.

        Raises UsageError for one that could be guessed, that no header can hold, or that cannot be read.
        """
        given = os.environ.get(VARIABLE) or _from_file(os.environ.get(FILE_VARIABLE))
        if given is not None:
            if not _TOKEN.fullmatch(given):
                raise UsageError(
                    f"the token in {VARIABLE} or {FILE_VARIABLE} needs 16 to 256 letters, digits or any of "
                    ". _ ~ + / = -; openssl rand -hex 24 makes a good one"
                )
            return cls(given)
        return None if address.is_loopback else cls(secrets.token_urlsafe(24), generated=True)

    def equals(self, guess: str) -> bool:
        """Compares in a time that does not tell how much of it was right."""
        return hmac.compare_digest(self.secret.encode(), guess.encode())

    @property
    def cookie(self) -> str:
        """A value that proves it without being it: browsers send cookies to every port of a host."""
        return hmac.digest(self.secret.encode(), b"measnet console", hashlib.sha256).hex()


def _from_file(name: str | None) -> str | None:
    if not name:
        return None
    try:
        return Path(name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{FILE_VARIABLE} names {name}, which cannot be read") from None


class Access:
    """Lets requests through to ``app`` that may pass, and answers the others.

    Args:
        app: answers.
        address: where the server listens.
        token: whoever has it passes; None: whoever asks a loopback address by its name.
        headers: added to every answer.
    """

    def __init__(self, app: ASGIApp, address: Address, token: Token | None, headers: dict[str, str]) -> None:
        self._app = app
        self._token = token
        self._headers = headers
        self._names = {"localhost", "127.0.0.1", "::1", address.host.lower()}
        self._guesses = Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            return
        refusal = None if scope["path"] in OPEN else self._refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        if self._token is None:
            if _host_name(request.headers.get("host", "")) in self._names:
                return None
            return PlainTextResponse("this server answers to localhost and 127.0.0.1 alone\n", 421)
        if hmac.compare_digest(
            request.cookies.get(_cookie_name(request), "").encode(), self._token.cookie.encode()
        ):
            return None
        asked = request.query_params.get("token") if request.scope["path"] == "/" else None
        guess = _bearer(request.headers) or asked
        if not guess:
            return _ask(request, 401, "")
        client = request.client.host if request.client else ""
        if wait := self._guesses.seconds_to_wait(client):
            return _ask(
                request, 429, f"Too many wrong tokens; wait {wait} seconds.", {"retry-after": str(wait)}
            )
        if not self._token.equals(guess):
            self._guesses.wrong(client)
            return _ask(request, 401, "That is not the token.")
        if asked is None:
            return None
        # Once in a cookie it stands neither in the address nor in the browser's history.
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            _cookie_name(request), self._token.cookie, _COOKIE_SECONDS, httponly=True, samesite="lax"
        )
        return answer


class Guesses:
    """Counts wrong tokens by address; the networks of IPv6 that one subscriber has count as one address."""

    MOST = 10_000
    """Addresses that are remembered; beyond, the one whose first guess is the oldest is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wrong(self, client: str) -> None:
        """Counts one."""
        times = self._wrong.setdefault(_network(client), deque(maxlen=GUESSES))
        times.append(self._clock())
        if len(self._wrong) > self.MOST:
            self._wrong.popitem(last=False)

    def seconds_to_wait(self, client: str) -> int:
        """Tells until when ``client`` is refused, whatever it says; 0 where it is not."""
        times = self._wrong.get(_network(client))
        if times is None or len(times) < GUESSES:
            return 0
        left = times[0] + GUESSING_SECONDS - self._clock()
        return max(0, int(left) + 1) if left > 0 else 0


def _network(client: str) -> str:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return client


def _host_name(host: str) -> str:
    """Takes the port off: ``[::1]:8080`` is ``::1``."""
    return (
        re.sub(r":\d*$", "", host.lower()).strip("[]") if host.startswith("[") or host.count(":") < 2 else ""
    )


def _cookie_name(request: HTTPConnection) -> str:
    return f"measnet_{(request.scope.get('server') or ('', 0))[1]}"


def _bearer(headers: Headers) -> str:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def _ask(request: HTTPConnection, status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else headers
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(
            f"{words or 'a token is needed: Authorization: Bearer TOKEN'}\n", status, headers
        )
    return HTMLResponse(_FORM.replace("WORDS", words), status, headers)


_FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>MEASNet live</title>
<form>
<h1>MEASNet live</h1>
<p><label>Token <input name="token" type="password" autocomplete="current-password" required></label>
<button>Open</button></p>
<p role="status">WORDS</p>
</form>
</html>
"""
