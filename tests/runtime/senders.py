"""Real senders on the loopback, that can be killed and started again at the same address."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import socketserver
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from ports import free_port

_X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "5", "-pix_fmt", "yuv420p"]


class Sender:
    """ffmpeg, sending a moving picture from the moment it is started."""

    def __init__(
        self, url: str, *output: str, size: str = "96x64", rate: int = 25, sound: bool = False
    ) -> None:
        self.url = url
        self.size, self.rate, self.sound = size, rate, sound
        self.codec = _X264
        self.seconds: float | None = None
        """After which it ends by itself."""

        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        picture = ["-re", "-f", "lavfi", "-i", f"testsrc2=s={self.size}:r={self.rate}"]
        tone = ["-re", "-f", "lavfi", "-i", "sine"] if self.sound else []
        command = ["ffmpeg", "-v", "quiet", "-y", *picture, *tone, *self.codec]
        command += [*(["-t", str(self.seconds)] if self.seconds else []), *self._output]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def wait_until_it_listens(self) -> None:
        """Looks and does not connect: ffmpeg serves the first who comes, and nobody after."""
        if not any("listen" in word for word in self._output):
            return
        kind = "udp" if self.url.startswith("srt:") else "tcp"
        local = f":{urllib.parse.urlsplit(self.url).port:04X} "
        until = time.monotonic() + 60
        while local not in Path(f"/proc/net/{kind}").read_text():
            assert self._process is not None and self._process.poll() is None and time.monotonic() < until
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def over_tcp() -> Sender:
    url = f"tcp://127.0.0.1:{free_port()}"
    return Sender(url, "-f", "mpegts", f"{url}?listen=1")


def over_udp() -> Sender:
    url = f"udp://127.0.0.1:{free_port()}"
    return Sender(url, "-f", "mpegts", f"{url}?pkt_size=1316")


def over_rtmp() -> Sender:
    url = f"rtmp://127.0.0.1:{free_port()}/live/s3cret"
    return Sender(url, "-f", "flv", "-listen", "1", url)


def over_srt() -> Sender:
    address = f"srt://127.0.0.1:{free_port()}"
    key = "passphrase=s3cret-s3cret"
    return Sender(f"{address}?{key}", "-f", "mpegts", f"{address}?mode=listener&{key}")


def single_pictures_over_http() -> Sender:
    url = f"http://127.0.0.1:{free_port()}/cam.mjpg"
    sender = Sender(url, "-f", "mpjpeg", "-listen", "1", url, rate=10)
    sender.codec = ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]
    return sender


class HlsSender(Sender):
    """ffmpeg writing a growing HLS stream into a folder, and a web server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = free_port()
        playlist = ["-f", "hls", "-hls_time", "0.2", "-hls_list_size", "6", "-hls_flags", "delete_segments"]
        super().__init__(f"http://127.0.0.1:{self._port}/live.m3u8", *playlist, str(folder / "live.m3u8"))
        self._server: socketserver.ThreadingTCPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        super().start()
        self.serve()

    def serve(self) -> None:
        handler = functools.partial(_Quiet, directory=str(self.folder))
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def kill(self) -> None:
        super().kill()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def finish(self) -> None:
        """Ends the stream properly: ffmpeg says so in the list."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server for a folder; its address."""
    with _Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def sending(sender: Sender) -> Iterator[Sender]:
    """A sender that has begun: one that is called up listens by then."""
    sender.start()
    try:
        sender.wait_until_it_listens()
        yield sender
    finally:
        sender.kill()
