"""The process that sends a stream on: it gets packets through a pipe and puts them into the network.

It stands apart because FFmpeg may wait for the network for minutes, with Python's lock held, when it connects
and when it ends. A process can be ended at any moment. It imports next to nothing of this package, so that it
starts quickly.

On standard input: a line of JSON (``url``, ``muxer``, ``options``, ``tls``), then blocks, each a length and
so many bytes. The first one is NUT that describes the streams, every further one a packet behind its
``HEADER``. On standard output: the line ``ok`` once the receiver has taken the streams; what fails is told in
one line.
"""

from __future__ import annotations

import io
import json
import signal
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

LENGTH = struct.Struct("<I")

HEADER = struct.Struct("<IqqqqqB")
"""A packet's stream, decoding time, presentation time, duration, time base (two numbers), is key frame."""

# A description is complete as it is: nothing of it has to be guessed from packets.
_NO_GUESSING = {"fpsprobesize": "0", "max_ts_probe": "0"}


def main() -> int:
    """Sends until standard input ends."""
    import av

    from measnet.runtime.live.srt import SrtSocket

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


PROGRAM = Path(__file__)

if __name__ == "__main__":
    sys.exit(main())
