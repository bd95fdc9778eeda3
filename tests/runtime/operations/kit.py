"""A camera that makes frames by itself, and a client that asks the server about it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from measnet.image import Pixels
from measnet.runtime.frame import Frame, Restoration
from measnet.runtime.live.events import Event, Events
from measnet.runtime.live.telemetry import Telemetry
from measnet.runtime.operations.address import Address
from measnet.runtime.operations.pair_feed import LatestPair
from measnet.runtime.operations.server import Operations

TOKEN = "a-token-for-tests-0123456789"
ANYWHERE = Address("0.0.0.0", 0)
HERE = Address("127.0.0.1", 0)
DAMAGE = {"noise": 0.5, "rain": 0.1, "sound": 0.4}

Serve = Callable[..., Operations]
Connect = Callable[..., "Client"]


class Camera:
    """A stream that makes frames: each is of one brightness, its result the inverse."""

    def __init__(self, name: str, events: Events) -> None:
        self.name = name
        self.events = events
        self.telemetry = Telemetry(name)
        self.pair = LatestPair()
        self.frames = 0

    def enter(self, state: Any, words: str = "so it is") -> None:
        self.telemetry.enter(state)
        self.events.say(Event(self.name, "state", words, state))

    def frame(self, pixels: Pixels | None = None) -> None:
        self.frames += 1
        if pixels is None:
            pixels = np.full((48, 64, 3), 20 + self.frames * 7 % 200, np.uint8)
        passing = Restoration(Frame(pixels, self.frames, Fraction(1, 25)), 255 - pixels)
        self.telemetry.arrived(pixels.shape[1], pixels.shape[0])
        self.telemetry.restored_by((0.75, 0.25), DAMAGE)
        self.pair.finished(passing)
        self.telemetry.delivered(0.04)

    @contextlib.contextmanager
    def running(self, every: float = 0.02) -> Iterator[None]:
        """Frames come, in a thread of their own."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(every):
                self.frame()

        self.enter("running", "frames come")
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Client:
    """Asks over one connection that stays open."""

    def __init__(self, url: str, source: str = "127.0.0.1") -> None:
        place = urllib.parse.urlsplit(url)
        assert place.port is not None
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", place.port, timeout=60, source_address=(source, 0)
        )

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", path, headers=named)
        answer = self._connection.getresponse()
        body = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def json(self, path: str) -> Any:
        status, _, body = self.get(path)
        assert status == 200, body
        return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def next_pair(self, camera: str, after: int = 0) -> tuple[int, Pixels, Pixels]:
        return wait_for(lambda: self.pair(camera, after))

    def pair(self, camera: str, after: int = 0) -> tuple[int, Pixels, Pixels] | None:
        status, headers, body = self.get(f"/api/pair?camera={urllib.parse.quote(camera)}&after={after}")
        if status == 204:
            return None
        assert status == 200, body
        cut = int(headers["x-source-bytes"])
        source, result = (
            cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR).view(np.uint8)
            for part in (body[:cut], body[cut:])
        )
        return int(headers["x-serial"]), source, result

    def close(self) -> None:
        self._connection.close()


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


def running_camera(name: str, events: Events) -> Camera:
    camera = Camera(name, events)
    camera.enter("running")
    camera.frame()
    camera.telemetry.verified(71.5)
    return camera
