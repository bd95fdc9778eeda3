"""The smallest RTSP server a client will talk to: one client after another, one stream, RTP inside TCP.

ffmpeg packs the clip into RTP and sends it here; this wraps the packets as RTSP wants them. It can be cut off
and restored, and ask for a user and a password.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class RtspServer:
    """Serves ``clip``'s picture, at its own pace, from the moment a client asks to play."""

    def __init__(self, clip: Path, folder: Path, *, endless: bool = False, login: str | None = None) -> None:
        self.played = 0
        self._clip = clip
        self._loop = ["-stream_loop", "-1"] if endless else []
        self._login = login and base64.b64encode(login.encode()).decode()
        self._client: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._sdp = folder / "stream.sdp"
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp.bind(("127.0.0.1", 0))
        self._rtp.settimeout(0.2)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self._port}/cam"
        # A first sender only writes the description; the real one starts on PLAY.
        self._sender = self._send()
        while not self._sdp.exists() or not self._sdp.read_text().strip():
            time.sleep(0.02)
        self._stop_sending()

    def restore(self, clip: Path | None = None) -> None:
        """Serves, from now on ``clip`` if one is given, at the address where it was."""
        if clip is not None:
            self._clip = clip
            self._sdp.unlink()
            self._sender = self._send()
            while not self._sdp.exists() or not self._sdp.read_text().strip():
                time.sleep(0.02)
            self._stop_sending()
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self._port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def cut(self) -> None:
        """Drops the client and answers nobody."""
        # close() alone does not wake the thread that waits in accept() or recv().
        for connection in (self._listener, self._client):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._stop_sending()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        self.cut()
        self._rtp.close()

    def _serve(self) -> None:
        while True:
            try:
                self._client, _ = self._listener.accept()
            except OSError:
                return
            with self._client, contextlib.suppress(OSError):
                self._talk(self._client)
            self._stop_sending()

    def _talk(self, client: socket.socket) -> None:
        requests = client.makefile("r", encoding="ascii", newline="\r\n")
        while request := self._read_request(requests):
            method, cseq, login = request
            if self._login is not None and login != self._login and method != "OPTIONS":
                refusal = (
                    f'RTSP/1.0 401 Unauthorized\r\nCSeq: {cseq}\r\nWWW-Authenticate: Basic realm="cam"\r\n'
                )
                client.sendall(f"{refusal}\r\n".encode())
                continue
            extra, body = "", ""
            if method == "OPTIONS":
                extra = "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = self._sdp.read_text()
                extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{extra}\r\n{body}".encode())
            if method == "PLAY":
                self._forget_first_sender()
                self.played += 1
                self._sender = self._send()
                self._relay(client)
                return

    def _read_request(self, requests: Iterator[str]) -> tuple[str, str, str | None] | None:
        lines = []
        for line in requests:
            if not line.strip():
                break
            lines.append(line.strip())
        if not lines:
            return None
        cseq = next(line.split(":")[1].strip() for line in lines if line.startswith("CSeq"))
        login = next((line.split()[-1] for line in lines if line.startswith("Authorization: Basic")), None)
        return lines[0].split()[0], cseq, login

    def _relay(self, client: socket.socket) -> None:
        while True:
            try:
                packet = self._rtp.recv(65_536)
            except TimeoutError:
                if self._sender.poll() is not None:
                    return
                continue
            client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)

    def _forget_first_sender(self) -> None:
        self._rtp.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._rtp.recv(65_536)
        self._rtp.settimeout(0.2)

    def _send(self) -> subprocess.Popen[bytes]:
        port = self._rtp.getsockname()[1]
        command = [
            "ffmpeg",
            "-v",
            "quiet",
            "-y",
            "-re",
            *self._loop,
            "-i",
            str(self._clip),
            "-an",
            "-c",
            "copy",
        ]
        command += ["-f", "rtp", "-sdp_file", str(self._sdp)]
        return subprocess.Popen([*command, f"rtp://127.0.0.1:{port}"])

    def _stop_sending(self) -> None:
        self._sender.kill()
        self._sender.wait()


@contextlib.contextmanager
def rtsp_camera(clip: Path, folder: Path, *, login: str | None = None) -> Iterator[RtspServer]:
    """Serves ``clip`` over and over, to be cut off and restored."""
    server = RtspServer(clip, folder, endless=True, login=login)
    server.restore()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def rtsp_server(clip: Path, folder: Path) -> Iterator[str]:
    """Serve ``clip`` and yield its address."""
    server = RtspServer(clip, folder)
    server.restore()
    try:
        yield server.url
    finally:
        server.close()
