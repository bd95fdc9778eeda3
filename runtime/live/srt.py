"""SRT, which PyAV's FFmpeg is built without: libsrt does it, for a stream that comes and for one that goes.

Nothing of this package is imported here, as the process that sends starts by this file.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
import struct
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit


def _passphrase(words: str) -> bytes:
    if not 10 <= len(words.encode()) <= 79:
        raise ValueError("passphrase is to have 10 to 79 letters")
    return words.encode()


# libsrt's number of each, and how it takes the value.
_OPTIONS: dict[str, tuple[int, Callable[[str], bytes]]] = {
    "latency": (23, lambda microseconds: struct.pack("<i", int(microseconds) // 1000)),
    "passphrase": (26, _passphrase),
    "pbkeylen": (27, lambda length: struct.pack("<i", int(length))),
    "streamid": (46, str.encode),
}
_RECEIVE_TIMEOUT = 14  # SRTO_RCVTIMEO, in milliseconds
_LOOK_EVERY = 100  # milliseconds
_TIMED_OUT = 6003  # SRT_ETIMEOUT
_LONGEST_MESSAGE = 1456

_PLAYED = 1.0
"""Seconds after which nothing of a stream is on its way; receivers wait 0.12 s for lost parts or more."""


class SrtSocket:
    """A connection as a file, of which messages are read or into which they are written.

    Args:
        url: ``srt://HOST:PORT?passphrase=…&streamid=…&latency=…``, the latency in microseconds, as FFmpeg and
            OBS count it; ``mode=listener`` waits to be called.
        patience: seconds in which the other side has to call, and the first message has to come.
        is_called_off: says whether nobody waits any more.

    Raises:
        OSError: libsrt is not there, nobody answers, or the address asks for what it cannot be asked for.
    """

    MESSAGE = 1316
    """Bytes that are sent at once: seven packets of MPEG-TS."""

    def __init__(
        self, url: str, *, patience: float = 0.0, is_called_off: Callable[[], bool] = lambda: False
    ) -> None:
        self._srt = _libsrt()
        self._srt.srt_startup()
        self._until = time.monotonic() + patience
        self._is_called_off = is_called_off
        self._received = b""
        self._sent = False
        parts = urlsplit(url)
        self._socket = self._srt.srt_create_socket()
        try:
            try:
                listens, asked = parse_query(parts.query)
            except ValueError as error:
                raise OSError(0, str(error)) from None
            self._set(_RECEIVE_TIMEOUT, struct.pack("<i", _LOOK_EVERY))
            for option, value in asked:
                self._set(option, value)
            address = _packed(parts.hostname, parts.port or 0)
            if listens:
                self._wait_for_call(address)
            elif self._srt.srt_connect(self._socket, address, len(address)) < 0:
                raise self._failed()
        except BaseException:
            self._srt.srt_close(self._socket)
            raise

    def close(self) -> None:
        """Ends it, once all that was sent has arrived: a receiver throws the rest away."""
        if self._sent:
            time.sleep(_PLAYED)
        self._srt.srt_close(self._socket)

    def read(self, size: int) -> bytes:
        """Waits for up to ``size`` bytes; none at the end, when nothing came in time, or when called off."""
        buffer = ctypes.create_string_buffer(_LONGEST_MESSAGE)
        while not self._received and not self._is_called_off():
            length = self._srt.srt_recvmsg(self._socket, buffer, len(buffer))
            if length > 0:
                self._received, self._until = buffer.raw[:length], float("inf")
            elif self._srt.srt_getlasterror(None) != _TIMED_OUT or time.monotonic() > self._until:
                break
        given, self._received = self._received[:size], self._received[size:]
        return given

    def write(self, data: bytes) -> int:
        """Sends it, in messages."""
        self._sent = True
        for at in range(0, len(data), self.MESSAGE):
            message = data[at : at + self.MESSAGE]
            if self._srt.srt_sendmsg2(self._socket, message, len(message), None) < 0:
                raise self._failed()
        return len(data)

    def _set(self, option: int, value: bytes) -> None:
        if self._srt.srt_setsockflag(self._socket, option, value, len(value)) < 0:
            raise self._failed()

    def _wait_for_call(self, address: bytes) -> None:
        listener = (ctypes.c_int * 1)(self._socket)
        if self._srt.srt_bind(self._socket, address, len(address)) < 0:
            raise self._failed()
        if self._srt.srt_listen(self._socket, 1) < 0:
            raise self._failed()
        while (called := self._srt.srt_accept_bond(listener, 1, ctypes.c_int64(_LOOK_EVERY))) < 0:
            if self._is_called_off() or time.monotonic() > self._until:
                raise OSError(0, "nobody called")
        self._srt.srt_close(self._socket)
        self._socket = called

    def _failed(self) -> OSError:
        return OSError(0, self._srt.srt_getlasterror_str().decode(errors="replace"))


def parse_query(query: str) -> tuple[bool, list[tuple[int, bytes]]]:
    """Says, of the part of an address behind the question mark, whether it waits to be called, and gives
    libsrt's options with their values. Raises ValueError for what it cannot be asked for."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    listens = asked.pop("mode", "caller") == "listener"
    options = []
    for name, value in asked.items():
        if name not in _OPTIONS:
            raise ValueError(f"srt:// takes {', '.join(_OPTIONS)} behind the question mark alone")
        option, packed = _OPTIONS[name]
        try:
            options.append((option, packed(value)))
        except (ValueError, struct.error) as error:
            raise ValueError(str(error) if name == "passphrase" else f"{name} is to be a number") from None
    return listens, options


def _packed(host: str | None, port: int) -> bytes:
    """A struct sockaddr_in, or sockaddr_in6 with no flow and no scope."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    packed = socket.inet_pton(family, str(place[0]))
    inner = packed + bytes(8) if family == socket.AF_INET else bytes(4) + packed + bytes(4)
    return struct.pack("=H", family) + struct.pack(">H", port) + inner


def _libsrt() -> ctypes.CDLL:
    for name in ("srt-gnutls", "srt-openssl", "srt"):
        if (found := ctypes.util.find_library(name)) is not None:
            library = ctypes.CDLL(found)
            library.srt_getlasterror_str.restype = ctypes.c_char_p
            return library
    raise OSError(0, "srt:// needs libsrt, which is not installed (Debian: apt install libsrt1.5-gnutls)")
