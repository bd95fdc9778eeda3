"""Streams that PyAV's FFmpeg has no protocol for (SRT), taken in through this machine's ``ffmpeg``."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time

from measnet.errors import InputError
from measnet.runtime.live.address import shown
from measnet.runtime.live.interrupt import is_called_off

_LOOK_EVERY = 0.1


class Relay:
    """The stream at ``url`` as MPEG-TS, nothing of it decoded: a file that PyAV can read.

    The address goes to ``ffmpeg`` through a pipe, as others can read its arguments.

    Args:
        url: the address.
        patience: seconds in which the first byte has to come.

    Raises:
        InputError: there is no ``ffmpeg`` here.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.name = shown(url)
        scheme = url.partition(":")[0].lower()
        program = shutil.which("ffmpeg")
        if program is None:
            raise InputError(
                f"{self.name}: {scheme}:// is taken in by the program ffmpeg, which is not here; install it"
            )
        command = [program, "-v", "error", "-f", "concat", "-safe", "0"]
        command += ["-protocol_whitelist", f"pipe,udp,{scheme}", "-i", "pipe:0"]
        command += [
            "-map",
            "0:v:0?",
            "-map",
            "0:a?",
            "-c",
            "copy",
            "-f",
            "mpegts",
            "-flush_packets",
            "1",
            "pipe:1",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._output = self._process.stdout
        quoted = url.replace("\n", "").replace("'", "'\\''")
        self._process.stdin.write(f"ffconcat version 1.0\nfile '{quoted}'\n".encode())
        self._process.stdin.close()
        self._until: float | None = time.monotonic() + patience

    def read(self, size: int) -> bytes:
        """Waits for up to ``size`` bytes; none at the end, when nothing came in time, or when called off."""
        while not is_called_off():
            if select.select([self._output], [], [], _LOOK_EVERY)[0]:
                self._until = None
                return os.read(self._output.fileno(), size)
            if self._until is not None and time.monotonic() > self._until:
                break
        return b""

    def close(self) -> None:
        """Ends ``ffmpeg``."""
        self._process.kill()
        self._process.wait()
        self._output.close()
