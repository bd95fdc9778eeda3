"""Servers and clients that end with their test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from measnet.runtime.live.events import Events
from measnet.runtime.operations.access import FILE_VARIABLE, VARIABLE
from measnet.runtime.operations.address import Address
from measnet.runtime.operations.server import Operations
from runtime.operations.browser import CHROMIUM, Browser, browser
from runtime.operations.kit import HERE, Camera, Client, Serve


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def serve(events: Events) -> Iterator[Serve]:
    """Starts the server for these cameras, and ends it after the test."""
    with contextlib.ExitStack() as stack:

        def start(*cameras: Camera, console: Address = HERE, **options: Any) -> Operations:
            operations = Operations(events, console=console, **options)
            for camera in cameras:
                operations.board.watch(camera.telemetry, camera.pair)
            return stack.enter_context(operations)

        yield start


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    with contextlib.ExitStack() as stack:

        def connect(operations: Operations, source: str = "127.0.0.1", name: str = "console") -> Client:
            made = Client(operations.url(name), source)
            stack.callback(made.close)
            return made

        yield connect


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not on PATH")
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(chromium: Browser, serve: Serve) -> Iterator[Browser]:
    """A page that is left before the server ends, so that it does not ask in vain."""
    yield chromium
    chromium.open("about:blank")
    chromium.said.clear()
