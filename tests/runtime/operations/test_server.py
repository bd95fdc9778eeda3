"""Beginning and end of the server, and clients that are broken or mean no good."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import socket
import threading
import time
import urllib.parse

import pytest

from measnet.errors import UsageError
from measnet.runtime.live.events import Events
from measnet.runtime.operations import server as server_module
from measnet.runtime.operations.address import Address
from measnet.runtime.operations.server import Operations
from runtime.operations.kit import HERE, Camera, Client, Connect, Serve, running_camera


def malformed(chance: random.Random) -> bytes:
    """A request that no client should send."""
    sound = b"GET /api/live?after=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    kind = chance.randrange(10)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n"
    if kind == 1:
        at = chance.randrange(len(sound) - 4)
        return sound[:at] + chance.randbytes(3) + sound[at + 3 :]
    if kind == 2:
        return b"GET /" + b"a" * chance.randrange(20_000, 200_000) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == 3:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(chance.randrange(2000, 5000)))
        return b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n"
    if kind == 4:
        names = ["after", "event", "camera", "token", "any"]
        value = urllib.parse.quote(chance.randbytes(20)) if chance.random() < 0.7 else str(-(10**40))
        path = chance.choice(["/api/live", "/api/events", "/api/pair", "/readyz", "/"])
        return f"GET {path}?{chance.choice(names)}={value}".encode() + sound[21:]
    if kind == 5:
        method = chance.choice([b"POST", b"PUT", b"DELETE", b"TRACE", b"CONNECT", b"BREW"])
        return (
            method
            + b" /api/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
            + b"x" * 5000
        )
    if kind == 6:
        header = chance.choice(
            [
                b"Content-Length: -1",
                b"Content-Length: 1\r\nContent-Length: 2",
                b"Transfer-Encoding: chunked\r\nContent-Length: 3",
                b"Transfer-Encoding: gzip",
                b"Upgrade: websocket\r\nConnection: Upgrade",
                b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
                b"Cookie: measnet=\xff\xfe; ;;;=",
                b"Authorization: Bearer \xff",
                b"Accept: text/plain;version=a.b;q=x",
                b"Accept: application/openmetrics-text;version=;escaping=y",
                b"Host: other",
                b" folded: yes",
                b"No colon at all",
            ]
        )
        page = chance.choice([b"/", b"/metrics", b"/api/cameras"])
        return b"GET " + page + b" HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\nzz\r\n\r\n"
    if kind == 7:
        path = chance.choice(
            ["//evil.example/", "/../../etc/passwd", "/%00", "/api/pair/%2e%2e", "*", "http://x/"]
        )
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    if kind == 8:
        return chance.choice(
            [
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET /\r\n\r\n",
                b"\r\n\r\n\r\n",
                b"\x16\x03\x01\x02\x00" * 50,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ]
        )
    return sound[: chance.randrange(1, len(sound) - 2)]


def test_three_hundred_malformed_requests_are_answered_or_ended_and_harm_nothing(
    serve: Serve, client: Connect, events: Events, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = running_camera("door", events)
    operations = serve(camera, console=HERE, metrics=HERE)
    port = urllib.parse.urlsplit(operations.url()).port
    chance = random.Random(16)
    statuses = set()
    for _ in range(300):
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
        ):
            raw.sendall(malformed(chance))
            try:
                raw.shutdown(socket.SHUT_WR)
            except OSError as error:  # the server has ended it already, for good
                assert error.errno == errno.ENOTCONN
                continue
            answer = raw.recv(65536)
            if answer:
                statuses.add(int(answer.split()[1]))
                assert b"Traceback" not in answer
    assert 400 in statuses and 200 in statuses
    assert not {status for status in statuses if status >= 500}, statuses
    asking = client(operations)
    assert asking.json("/api/live")["cameras"][0]["state"] == "running"
    assert asking.get("/metrics")[0] == 200
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_who_never_finishes_a_request_is_let_go(
    serve: Serve, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.3)
    operations = serve()
    port = urllib.parse.urlsplit(operations.url()).port
    begun = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    for first, drop in (
        (b"", b""),
        (b"GET / HT", b"x"),
        (b"GET / HTTP/1.1\r\nA: b\r\n", b"C: d\r\n"),
        (begun, b"x"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
            slow.sendall(first)
            slow.settimeout(0.05)
            until = time.monotonic() + 60
            while True:
                assert time.monotonic() < until, f"{first!r} is still waited for"
                try:
                    if drop:
                        slow.sendall(drop)
                    if not slow.recv(65536):
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
    assert client(operations).get("/healthz")[0] == 200


def test_a_port_that_is_taken_is_said_in_one_line(events: Events) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"--metrics 127.0.0.1:{port}: the port is taken"):
            Operations(events, console=HERE, metrics=Address("127.0.0.1", port))
    with pytest.raises(UsageError, match="no such address"):
        Operations(events, console=Address("192.0.2.1", 0))


@pytest.mark.parametrize(
    ("text", "read", "home"),
    [
        ("8080", "127.0.0.1:8080", True),
        (":8080", "127.0.0.1:8080", True),
        ("0.0.0.0:1", "0.0.0.0:1", False),
        ("[::1]:80", "[::1]:80", True),
        ("[::]:80", "[::]:80", False),
        ("localhost:0", "localhost:0", True),
        ("localhost.example:1", "localhost.example:1", False),
    ],
)
def test_addresses_are_read(text: str, read: str, home: bool) -> None:
    address = Address.parse(text)
    assert str(address) == read and address.is_loopback is home


@pytest.mark.parametrize(
    "text", ["", "here", "1:2:3", "::1:80", "host:", "65536", "a b:1", "http://x:1", "u@h:1", "-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:"):
        Address.parse(text)


def test_it_ends_with_its_clients_still_there_and_gives_the_port_back(events: Events) -> None:
    camera = Camera("door", events)
    operations = Operations(events, console=HERE)
    operations.board.watch(camera.telemetry, camera.pair)
    url = operations.url()
    place = ("127.0.0.1", urllib.parse.urlsplit(url).port)
    with operations, contextlib.ExitStack() as stack:
        idle = stack.enter_context(socket.create_connection(place))
        waiting = stack.enter_context(socket.create_connection(place))
        waiting.sendall(b"GET /api/pair?camera=door HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half = stack.enter_context(socket.create_connection(place))
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        asking = Client(url)
        assert asking.get("/healthz")[0] == 200
        started = time.monotonic()
        operations.close()
        assert time.monotonic() - started < 10
        assert idle.recv(100) == b""
        asking.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "measnet-operations"]
    socket.create_server(place).close()


def test_loggers_of_the_program_around_it_stay_as_they_were(events: Events) -> None:
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    before = [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names]
    with Operations(events, console=HERE):
        pass
    assert [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names] == before


def test_one_that_never_began_can_be_closed(events: Events) -> None:
    operations = Operations(events, console=HERE, metrics=HERE)
    operations.close()
    operations.close()
