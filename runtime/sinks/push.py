"""A stream pushed to a receiver: RTSP, RTMP, SRT, UDP or TCP, encoded so that nothing waits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

from av.packet import Packet

from measnet.errors import OutputError, UsageError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.peer import tls_options, why_refused
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.containers import SENT
from measnet.runtime.sinks.encoded import EncodedSink, Outside
from measnet.runtime.sinks.encoder import PictureEncoding
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.sender import HEADER, LENGTH, PROGRAM
from measnet.runtime.sinks.target import Receiver
from measnet.runtime.sources.times import rebased

if TYPE_CHECKING:
    from av.stream import Stream

SCHEMES = tuple(SENT)
"""Schemes of addresses that streams can be pushed to."""

_MUXERS = {
    **{"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"},
    **{"srt": "mpegts", "udp": "mpegts", "tcp": "mpegts"},
}
_OPTIONS: dict[str, dict[str, str]] = {
    # UDP would lose parts of frames, and pass few firewalls.
    "rtsp": {"rtsp_transport": "tcp"},
    "flv": {"flvflags": "no_duration_filesize"},
    "mpegts": {},
}


def for_players(asked: Encoding, info: StreamInfo) -> Encoding:
    """Fills in the options that were not given, so that every browser and player decodes the stream and the
    engine keeps the processor: 8 bits, 4:2:0 where the size allows it, ``veryfast``.

    Raises UsageError for a codec that streams have no place for.
    """
    if asked.codec is not None and not asked.codec.startswith(("h264", "hevc")):
        raise UsageError(f"--codec {asked.codec} is for files; streams and playlists take h264 or hevc")
    even = info.width % 2 == 0 and info.height % 2 == 0
    filled = replace(asked, bits=asked.bits or 8)
    if asked.pixel_format is None and filled.bits == 8 and even:
        filled = replace(filled, pixel_format="yuv420p")
    if asked.codec in (None, "h264", "hevc"):
        filled = replace(filled, preset=asked.preset or "veryfast")
    return replace(filled, crf=23 if asked.crf is None else asked.crf)


class PushSink(EncodedSink):
    """Encodes frames, and sends them with the source's sound to a receiver; times count from the first frame.

    Frames of a file are sent at the pace they are shown at, those of a live source as they come.

    Args:
        address: ``rtsp://``, ``rtmp://``, both also with TLS, ``srt://``, ``udp://`` or ``tcp://``.
        info: what belongs to the source's stream and is to survive.
        encoding: asked for.
        insecure: takes any certificate of a receiver that speaks TLS.
        waits: says how long it has to take the stream, and what comes then.

    Raises:
        UsageError: nobody answers there, or they refuse; or the encoder cannot do what was asked.
        OutputError: the encoder refuses the picture.
    """

    def __init__(
        self,
        address: Receiver,
        info: StreamInfo,
        encoding: Encoding | None = None,
        *,
        insecure: bool = False,
        waits: Waits = USUAL,
    ) -> None:
        self._waits = waits
        self._paced = info.kind != "live"
        self._origin: Fraction | None = None
        self._began = 0.0
        asked = for_players(encoding or Encoding(), info)
        picture = PictureEncoding(address, SENT[address.scheme], info, asked)
        sent = _Sent(address, info, picture, waits, insecure=insecure)
        super().__init__(address, Outside(address), picture, sent)

    def write(self, frame: Frame) -> None:
        if self._origin is None:
            self._origin, self._began = frame.pts * frame.time_base, time.monotonic()
        since = frame.pts * frame.time_base - self._origin
        if self._paced:
            self._wait_until(float(since))
        super().write(replace(frame, pts=round(since / frame.time_base)))

    def copy(self, packet: Packet[Stream]) -> None:
        # Sound from before the first picture has nothing to go with.
        if self._origin is not None and rebased(packet, self._origin):
            super().copy(packet)

    def _wait_until(self, seconds: float) -> None:
        """Waits for the moment at which a picture is shown; a longer gap is taken for a clock that jumped."""
        ahead = self._began + seconds - time.monotonic()
        if ahead > self._waits.delivery:
            self._began -= ahead
        elif ahead > 0:
            time.sleep(ahead)


class _Sent(Muxer):
    """Packets on their way to the process that sends them. Its own container only describes the streams."""

    def __init__(
        self,
        address: Receiver,
        info: StreamInfo,
        encoding: PictureEncoding,
        waits: Waits,
        *,
        insecure: bool,
    ) -> None:
        description = io.BytesIO()
        self._sender: _Sender | None = None
        super().__init__(description, address, SENT[address.scheme], info, encoding)
        try:
            # NUT is read up to its first packet.
            nothing: Packet[Any] = Packet(b"\0")
            nothing.stream, nothing.pts, nothing.dts = self.stream, 0, 0
            nothing.time_base, nothing.is_keyframe = encoding.time_base, True
            super().put(nothing)
        finally:
            super().close_anyhow()
        self._sender = _Sender(address, description.getvalue(), waits, insecure=insecure)

    def put(self, packet: Packet[Any]) -> None:
        assert self._sender is not None
        self._sender.send(packet)

    def close(self) -> None:
        for converted in self._converted.values():
            self._mux_converted(converted, None)
        assert self._sender is not None
        self._sender.close()

    def losses(self, times_rounded: int) -> list[str]:
        return []  # of times, which are those of the moment here

    def close_anyhow(self) -> None:
        if self._sender is None:
            super().close_anyhow()
        else:
            self._sender.end()


class _Sender:
    """The process that has the connection; ``sender.py``. Raises UsageError where nobody takes the stream."""

    def __init__(self, address: Receiver, description: bytes, waits: Waits, *, insecure: bool) -> None:
        self._address = address
        self._waits = waits
        muxer = _MUXERS[address.scheme]
        # The address goes through the pipe: arguments of processes are there for all to see.
        asked = {"url": _in_full(address), "muxer": muxer, "options": _sending(muxer)}
        asked["tls"] = tls_options(address.url, insecure=insecure)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        os.set_blocking(self._pipe.fileno(), False)
        try:
            self._put(json.dumps(asked).encode() + b"\n" + LENGTH.pack(len(description)) + description)
            answer = self._line(waits.opening)
            if answer is None:
                raise OutputError(f"no answer within {waits.opening:.0f} s")
            if answer != "ok":
                raise OutputError(answer or "the sender ended")
        except OutputError as error:
            self.end()
            why = why_refused(address.url, waits, insecure=insecure)
            why = f": {why}" if why else f" ({error}); check the address and that the receiver is on"
            raise UsageError(f"{address} does not take the stream{why}") from None
        except BaseException:
            self.end()
            raise

    def send(self, packet: Packet[Any]) -> None:
        """Sends it. Raises OutputError where the receiver has gone, or takes nothing any more."""
        base = packet.time_base
        dts = packet.pts if packet.dts is None else packet.dts
        pts = dts if packet.pts is None else packet.pts
        if dts is None or pts is None:
            return
        head = HEADER.pack(
            packet.stream.index,
            dts,
            pts,
            packet.duration or 0,
            base.numerator,
            base.denominator,
            packet.is_keyframe,
        )
        data = bytes(packet)
        try:
            self._put(LENGTH.pack(len(head) + len(data)) + head + data)
        except OutputError as error:
            raise OutputError(f"{self._address}: {error}") from None

    def close(self) -> None:
        """Lets it end the stream as is due, if it does so soon."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._waits.delivery)
        self.end()

    def end(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _put(self, data: bytes) -> None:
        pipe, rest = self._pipe.fileno(), memoryview(data)
        while rest:
            try:
                rest = rest[os.write(pipe, rest) :]
            except BlockingIOError:
                if not select.select([], [pipe], [], self._waits.delivery)[1]:
                    raise OutputError(f"it takes nothing for {self._waits.delivery:g} s") from None
            except OSError:
                raise OutputError(self._line(1.0) or "the connection is gone") from None

    def _line(self, seconds: float) -> str | None:
        """Reads the next line that it says; None where it says nothing for so long."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        return self._process.stdout.readline().decode(errors="replace").strip()


def _in_full(address: Receiver) -> str:
    """With what FFmpeg is to be told: datagrams have whole packets of MPEG-TS in them."""
    if address.scheme != "udp" or "pkt_size=" in address.url:
        return address.url
    return f"{address.url}{'&' if '?' in address.url else '?'}pkt_size=1316"


def _sending(muxer: str) -> Mapping[str, str]:
    return {**_OPTIONS[muxer], "max_interleave_delta": "500000", "flush_packets": "1"}
