"""Sources inside TLS: their certificates are checked."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from measnet.errors import InputError, UsageError
from measnet.runtime.frame import Frame
from measnet.runtime.live.peer import tls_options, why_refused
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.options import Live
from measnet.runtime.sources.choose import open_source

from .conftest import MakeClip
from .rtsp_server import RtspServer
from .senders import serving
from .tls_proxy import inside_tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(params=["rtsps", "https"])
def address(request: pytest.FixtureRequest, clip: MakeClip, tmp_path: Path) -> Iterator[str]:
    """A camera inside TLS, whose certificate is ``certificate.pem``."""
    video = clip("cam.mp4", "-g", "5", "-bf", "0", "-movflags", "+faststart")
    if request.param == "https":
        with serving(video.parent) as plain, inside_tls(int(plain.rpartition(":")[2]), tmp_path) as port:
            yield f"https://me:hush@127.0.0.1:{port}/{video.name}"
        return
    server = RtspServer(video, tmp_path, endless=True)
    server.restore()
    try:
        with inside_tls(int(server.url.split(":")[2].partition("/")[0]), tmp_path) as port:
            yield f"rtsps://me:hush@127.0.0.1:{port}/cam"
    finally:
        server.close()


def size(url: str, *, insecure: bool = False, waits: Waits = USUAL) -> tuple[int, int]:
    source = open_source(url, live=Live(insecure=insecure, waits=waits))
    try:
        next(iter(source.read()))
        return source.info.width, source.info.height
    finally:
        source.close()


def test_a_camera_inside_tls_is_taken_if_its_certificate_is_trusted_or_any_is(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as refused:
        size(address)
    line = str(refused.value)
    assert "its certificate is not trusted (self-signed certificate)" in line and "--insecure" in line
    assert "hush" not in line and "***@127.0.0.1" in line
    taken = size(address, insecure=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    assert size(address) == taken


def test_a_certificate_for_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as plain, inside_tls(int(plain.rpartition(":")[2]), tmp_path, "DNS:cam") as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        with pytest.raises(InputError, match=r"of another machine \(IP address mismatch.*use the name"):
            size(f"https://127.0.0.1:{port}/cam.mp4")


@pytest.mark.parametrize("insecure", [False, True])
def test_a_port_without_tls_is_said(tmp_path: Path, insecure: bool) -> None:
    with serving(tmp_path) as web:
        port = web.rpartition(":")[2]
        with pytest.raises(InputError, match=rf"port {port} there speaks no TLS; use http://, or the port"):
            size(f"https://127.0.0.1:{port}/cam.mp4", insecure=insecure)


def test_a_port_that_waits_for_plain_words_is_said_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} there speaks no TLS; use rtsp://"):
            size(f"rtsps://127.0.0.1:{port}/cam", waits=Waits(opening=1.2))


@pytest.mark.parametrize(
    ("named", "why"), [("absent.pem", "cannot be read"), ("text.pem", "is no certificate")]
)
def test_a_file_of_certificates_that_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, why: str
) -> None:
    (tmp_path / "text.pem").write_text("hello")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / named))
    with pytest.raises(UsageError, match=rf"SSL_CERT_FILE names .*{named}, which {why}.*; have it name"):
        size("https://127.0.0.1:9/cam.mp4")
    assert tls_options("https://cam/s", insecure=True) == {"tls_verify": "0"}


def test_addresses_without_tls_are_asked_for_no_certificate() -> None:
    assert tls_options("rtsp://cam/stream", insecure=False) == {}
    assert why_refused("rtsp://127.0.0.1:9/stream", USUAL, insecure=False) is None


def test_a_name_that_nobody_has_is_said() -> None:
    with pytest.raises(InputError, match=r"no machine is called nobody\.invalid; check the name"):
        size("rtsp://nobody.invalid/stream")


@pytest.mark.parametrize(
    "url",
    [
        "tcp://[::1",
        "srt://[",
        "rtsp://h:99999/",
        "https://h:x/",
        "rtsp://",
        "https:///x",
        "tcp://h",
        "srt://",
        "udp://h/",
    ],
)
def test_what_is_no_address_is_said_in_one_line(url: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        tls_options(url, insecure=False)


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """A folder with a list of six pieces, ``live.m3u8``."""
    web = tmp_path / "web"
    web.mkdir()
    picture = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=3", "-c:v", "libx264", "-g", "12", "-bf", "0"]
    cut = ["-f", "hls", "-hls_time", "0.48", "-hls_list_size", "0"]
    subprocess.run(["ffmpeg", "-v", "error", *picture, *cut, str(web / "live.m3u8")], check=True)
    return web


def count(url: str) -> int:
    source = open_source(url, live=Live(reconnect=0))
    try:
        return sum(isinstance(item, Frame) for item in source.read())
    finally:
        source.close()


def led_elsewhere(web: Path, place: str) -> None:
    """Has the list lead to pieces of the same names at ``place``."""
    text = (web / "live.m3u8").read_text()
    (web / "live.m3u8").write_text(re.sub(r"^(\w+\.ts)$", rf"{place}/\1", text, flags=re.MULTILINE))


def test_pieces_of_a_list_inside_tls_come_from_the_trusted_alone(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with (
        serving(pieces) as plain,
        inside_tls(int(plain.rpartition(":")[2]), tmp_path) as port,
        inside_tls(int(plain.rpartition(":")[2]), elsewhere) as other,
    ):
        address = f"https://me:hush@127.0.0.1:{port}/live.m3u8"
        with pytest.raises(InputError, match=r"its certificate is not trusted \(self-signed"):
            count(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert count(address) == 75
        (pieces / "live2.ts").unlink()
        assert count(address) == 75 - 12
        led_elsewhere(pieces, f"https://me:hush@127.0.0.1:{other}")
        with pytest.raises(InputError) as refused:
            count(address)
        line = str(refused.value)
        assert f"its list leads to https://***@127.0.0.1:{other}/live0.ts: its certificate is not" in line
        assert size(address, insecure=True) == (96, 64)


def test_pieces_without_tls_of_a_list_inside_it_are_refused(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(pieces) as plain, inside_tls(int(plain.rpartition(":")[2]), tmp_path) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        led_elsewhere(pieces, plain)
        with pytest.raises(InputError, match=rf"its list leads to {plain}/live0.ts, where there is no TLS"):
            size(f"https://127.0.0.1:{port}/live.m3u8")
