"""Kills a receiver and starts it again, time after time, and says what that costs the stream.

    python bench/flapping_receiver.py [--times 20]

A camera of noise sends 20 frames a second of 160x96 to ffmpeg by TCP, and into a file.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from measnet.errors import UsageError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.watch import Watch
from measnet.runtime.sinks.patient import STEADY_SECONDS, PatientSink
from measnet.runtime.sinks.push import PushSink
from measnet.runtime.sinks.several import Several
from measnet.runtime.sinks.target import Receiver
from measnet.runtime.sinks.video import VideoSink

BASE = Fraction(1, 90_000)
INFO = StreamInfo("camera", "live", 160, 96, BASE, Fraction(20), pixel_format="yuv420p")


def main() -> None:
    """Runs it and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    times: int = parser.parse_args().times
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Receiver(f"tcp://127.0.0.1:{free.getsockname()[1]}")
    watch, end, missed, back = Watch("camera"), threading.Event(), [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.mkv"
        receiver = listen(address)
        away = PatientSink(address, opened(address), watch, lambda: PushSink(address, INFO))
        whole = PatientSink(file, VideoSink(file, INFO), watch)
        both = Several([away, whole])
        camera = threading.Thread(target=send, args=(both, end))
        camera.start()
        for number in range(times):
            time.sleep(STEADY_SECONDS + 1)
            if number in (2, times - 1):
                print(f"after {number} times: {held()}")
            receiver.kill()
            receiver.wait()
            missed.append(seconds_until(partial(said_more, watch, "is lost", number)))
            receiver = listen(address)
            back.append(seconds_until(partial(said_more, watch, "is back", number)))
        end.set()
        camera.join()
        both.finish()
        both.abort()
        receiver.kill()
        receiver.wait()
        with av.open(str(file)) as made:
            frames = sum(packet.size > 0 for packet in made.demux(video=0))
    for words, seconds in (("missed", missed), ("back", back)):
        print(f"{words} after {min(seconds):.2f} to {max(seconds):.2f} s")
    print(f"{frames} frames in the file", *both.figures(), sep="\n")


def listen(address: Receiver) -> subprocess.Popen[bytes]:
    """A receiver, once it is started."""
    command = ["ffmpeg", "-v", "quiet", "-i", f"{address.url}?listen=1", "-c", "copy", "-f", "null", "-"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def opened(address: Receiver) -> PushSink:
    """A sink, as soon as the receiver listens."""
    while True:
        try:
            return PushSink(address, INFO)
        except UsageError:
            time.sleep(0.1)


def send(sink: Several, end: threading.Event) -> None:
    """Frames of noise, until the end."""
    random, number = np.random.default_rng(0), 0
    while not end.wait(0.05):
        sink.write(Frame(random.integers(0, 256, (96, 160, 3), np.uint8), number * 4500, BASE))
        number += 1


def said_more(watch: Watch, words: str, times: int) -> bool:
    """Says whether more than ``times`` events contain ``words``."""
    return sum(words in event.words for event in watch.events.recent()) > times


def seconds_until(true: Callable[[], bool]) -> float:
    """Waits."""
    began = time.monotonic()
    while not true():
        time.sleep(0.01)
    return time.monotonic() - began


def held() -> str:
    """Memory, threads and open files of this process."""
    status = Path("/proc/self/status").read_text()
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return f"{int(memory) // 1024} MB, {threading.active_count()} threads, {files} open files"


if __name__ == "__main__":
    main()
