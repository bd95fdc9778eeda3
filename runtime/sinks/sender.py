"""The process that sends a stream on: it gets packets through a pipe and puts them into the network.

It stands apart because FFmpeg may wait for the network for minutes, with Python's lock held, when it connects
and when it ends. A process can be ended at any moment. It imports nothing of this package, so that it starts
quickly.

On standard input: a line of JSON (``url``, ``muxer``, ``options``, ``tls``), then blocks, each a length and
so many bytes. The first one is NUT that describes the streams, every further one a packet behind its
``HEADER``. On standard output: the line ``ok`` once the receiver has taken the streams; what fails is told in
one line.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import json
import signal
import socket
import struct
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

LENGTH = struct.Struct("<I")

HEADER = struct.Struct("<IqqqqqB")
"""Of a packet: stream, decoding time, presentation time, duration, time base (two numbers), is key frame."""

_SRT_PLAYED = 1.0
"""Seconds after which nothing of a stream is on its way; receivers wait 0.12 s for lost parts or more."""

# A description is complete as it is: nothing of it has to be guessed from packets.
_NO_GUESSING = {"fpsprobesize": "0", "max_ts_probe": "0"}


def main() -> int:
    """Sends until standard input ends."""
    import av

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    pipe = sys.stdin.buffer
    asked = json.loads(pipe.readline())
    url: str = asked["url"]
    try:
        file: Any = SrtSocket(url) if url.lower().startswith("srt://") else url
        muxer, options = asked["muxer"], asked["options"] | asked["tls"]
        if asked["tls"] and muxer != "rtsp":
            # PyAV passes options to muxers alone; the one that is a tee passes them on to what it opens.
            pairs = [f"{name}={_escaped(value, ':]')}" for name, value in {"f": muxer, **options}.items()]
            file, muxer, options = _escaped(f"[{':'.join(pairs)}]{url}", "|"), "tee", {}
        with (
            av.open(io.BytesIO(_block(pipe)), format="nut", options=_NO_GUESSING) as described,
            av.open(file, "w", format=muxer, container_options=options) as out,
        ):
            streams = [out.add_stream_from_template(stream, opaque=True) for stream in described.streams]
            out.start_encoding()
            print("ok", flush=True)
            while block := _block(pipe):
                index, dts, pts, duration, over, under, is_key = HEADER.unpack_from(block)
                packet = av.Packet(block[HEADER.size :])
                packet.stream = streams[index]
                packet.dts, packet.pts, packet.duration = dts, pts, duration
                packet.time_base = Fraction(over, under)
                packet.is_keyframe = bool(is_key)
                out.mux_one(packet)
        if isinstance(file, SrtSocket):
            file.close()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        # Not the whole of it: it may have the address in it, with a password.
        print(getattr(error, "strerror", None) or type(error).__name__, flush=True)
        return 1
    return 0


def _escaped(text: str, special: str) -> str:
    return "".join(f"\\{letter}" if letter in f"\\'{special}" else letter for letter in text)


def _block(pipe: BinaryIO) -> bytes:
    length = pipe.read(LENGTH.size)
    return pipe.read(LENGTH.unpack(length)[0]) if len(length) == LENGTH.size else b""


class SrtSocket:
    """A connection by SRT, which FFmpeg's build in PyAV has not: libsrt does it.

    Args:
        url: ``srt://HOST:PORT?passphrase=…&streamid=…&latency=…``, the latency in microseconds, as FFmpeg and
            OBS count it.

    Raises:
        OSError: libsrt is not there, or nobody answers.
    """

    MESSAGE = 1316
    """Bytes that go at once: seven packets of MPEG-TS."""

    _OPTIONS = MappingProxyType({"latency": 23, "passphrase": 26, "pbkeylen": 27, "streamid": 46})

    def __init__(self, url: str) -> None:
        self._srt = _libsrt()
        self._srt.srt_startup()
        parts = urlsplit(url)
        self._socket = self._srt.srt_create_socket()
        for name, (value, *_) in parse_qs(parts.query).items():
            if name not in self._OPTIONS:
                raise OSError(0, f"srt:// takes {', '.join(self._OPTIONS)} behind the question mark alone")
            number = int(value) // 1000 if name == "latency" else int(value) if name == "pbkeylen" else None
            given = value.encode() if number is None else struct.pack("<i", number)
            if self._srt.srt_setsockflag(self._socket, self._OPTIONS[name], given, len(given)) < 0:
                raise self._failed()
        family, _, _, _, place = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
        packed, port = socket.inet_pton(family, str(place[0])), struct.pack(">H", parts.port or 0)
        # struct sockaddr_in, or sockaddr_in6 with no flow and no scope
        inner = packed + bytes(8) if family == socket.AF_INET else bytes(4) + packed + bytes(4)
        address = struct.pack("=H", family) + port + inner
        if self._srt.srt_connect(self._socket, address, len(address)) < 0:
            raise self._failed()

    def close(self) -> None:
        """Lets what was sent arrive, and be played: a receiver throws away what it has not given out yet."""
        time.sleep(_SRT_PLAYED)
        self._srt.srt_close(self._socket)

    def write(self, data: bytes) -> int:
        """Sends it, in messages."""
        for at in range(0, len(data), self.MESSAGE):
            message = data[at : at + self.MESSAGE]
            if self._srt.srt_sendmsg2(self._socket, message, len(message), None) < 0:
                raise self._failed()
        return len(data)

    def _failed(self) -> OSError:
        return OSError(0, self._srt.srt_getlasterror_str().decode(errors="replace"))


def _libsrt() -> ctypes.CDLL:
    for name in ("srt-gnutls", "srt-openssl", "srt"):
        if (found := ctypes.util.find_library(name)) is not None:
            library = ctypes.CDLL(found)
            library.srt_getlasterror_str.restype = ctypes.c_char_p
            return library
    raise OSError(0, "srt:// needs libsrt, which is not installed (Debian: apt install libsrt1.5-gnutls)")


PROGRAM = Path(__file__)

if __name__ == "__main__":
    sys.exit(main())
