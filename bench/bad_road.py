"""A bad road for datagrams, and a real RTSP camera whose pictures take it."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

LOST, DAMAGED, LATE = 0.02, 0.02, 0.02
"""Shares of the datagrams that are lost, have one bit flipped, and come after the next one."""

_CAMERA = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
picture = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=96,height=64,framerate=10/1"
coded = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=400 key-int-max=10"
factory.set_launch(f"( {picture} ! {coded} ! rtph264pay name=pay0 config-interval=1 mtu=700 )")
factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
server = GstRtspServer.RTSPServer(service="0", address="127.0.0.1")
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""
_PORTS = re.compile(rb"client_port=(\d+)-(\d+)")


class BadRoad:
    """Hands on to the port ``to`` what comes to ``port``, but for what happens to it on the way.

    ``passed`` counts datagrams, ``spoiled`` those that are lost, damaged or late.
    """

    def __init__(self, to: int = 0, port: int = 0) -> None:
        self.to = to
        self.passed = self.spoiled = 0
        self._chance = random.Random(1)
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.settimeout(0.2)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._pass_on)

    def __enter__(self) -> BadRoad:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _pass_on(self) -> None:
        kept: bytes | None = None
        while not self._over.is_set():
            with suppress(TimeoutError):
                data = self._socket.recv(65_536)
                fate = self._chance.random()
                self.passed += 1
                self.spoiled += fate < LOST + DAMAGED + LATE
                if fate < LOST:
                    continue
                if fate < LOST + DAMAGED:
                    data = self._with_a_flipped_bit(data)
                elif fate < LOST + DAMAGED + LATE and kept is None:
                    kept = data
                    continue
                for one in (data, kept):
                    if one is not None:
                        self._socket.sendto(one, ("127.0.0.1", self.to))
                kept = None

    def _with_a_flipped_bit(self, data: bytes) -> bytes:
        # Every other one in its head, where numbers and times stand.
        at = self._chance.randrange(self._chance.choice([len(data), min(16, len(data))]))
        bit = self._chance.randrange(8)
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@contextmanager
def rtsp_camera() -> Iterator[tuple[str, BadRoad]]:
    """A camera by GStreamer's RTSP server (Debian's Python), which sends RTP by UDP alone: its address, and
    the road that its pictures take. The conversation with it goes another way, untouched."""
    with ExitStack() as stack:
        camera = subprocess.Popen(["/usr/bin/python3", "-c", _CAMERA], stdout=subprocess.PIPE, text=True)
        stack.callback(camera.communicate)
        stack.callback(camera.kill)
        assert camera.stdout is not None
        port = int(camera.stdout.readline())
        road = stack.enter_context(BadRoad())
        reports = stack.enter_context(BadRoad(port=road.port + 1))
        listener = socket.create_server(("127.0.0.1", 0))
        speaking = threading.Thread(target=_speak, args=(listener, port, road, reports))
        speaking.start()
        stack.callback(speaking.join)
        stack.callback(listener.close)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/camera", road


def _speak(listener: socket.socket, port: int, road: BadRoad, reports: BadRoad) -> None:
    """Hands on what one client after another has to say, and has the camera send to the roads."""

    def led_astray(found: re.Match[bytes]) -> bytes:
        road.to, reports.to = int(found[1]), int(found[2])
        return b"client_port=%d-%d" % (road.port, reports.port)

    with suppress(OSError):
        while True:
            client = listener.accept()[0]
            with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
                answers = threading.Thread(target=_hand_on, args=(server, client))
                answers.start()
                while words := client.recv(65_536):
                    server.sendall(_PORTS.sub(led_astray, words))
                server.shutdown(socket.SHUT_RDWR)
                answers.join()


def _hand_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while words := one.recv(65_536):
            other.sendall(words)
