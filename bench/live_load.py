"""Runs cameras for long, one of them coming and going, and says what became of memory and latency.

    python bench/live_load.py [--minutes 60] [--cameras 1] [--size 640x360] [--fps 10] [--threads 1]
        [--cut-every 180]

Senders are ffmpeg on the loopback, playing the sample clip over and over as H.264 in MPEG-TS;
``measnet-serve`` restores them, and its metrics are read every five seconds. The last camera is cut. Prints a
line for each tenth of the time. Fails (status 1) where the last tenth takes 16 MiB more memory than the
second, has more threads or open files, or frames that are twice as late.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import yaml

CLIP = Path(__file__).parents[1] / "examples" / "car-park.mp4"
EVERY = 5.0  # seconds between two looks
AWAY = 5.0  # seconds for which a sender that is cut stays away
MOST_GROWTH = 16.0  # MiB
PARTS = 10


@dataclass(frozen=True)
class Look:
    """Metrics at one moment, by name and labels as Prometheus writes them."""

    at: float
    values: dict[str, float]

    def of(self, name: str, **labels: str) -> list[float]:
        """Values of all series of this name that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return [
            value
            for series, value in self.values.items()
            if series.partition("{")[0] == name and all(one in series for one in wanted)
        ]


@dataclass
class Sender:
    """ffmpeg, playing to whoever comes."""

    url: str
    size: str
    fps: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        picture = f"scale={self.size.replace('x', ':')},fps={self.fps}"
        command = [
            "ffmpeg",
            "-v",
            "quiet",
            "-re",
            "-stream_loop",
            "-1",
            "-i",
            str(CLIP),
            "-an",
            "-vf",
            picture,
        ]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(self.fps)]
        self.process = subprocess.Popen(
            [*command, "-f", "mpegts", f"{self.url}?listen=1"], stdin=subprocess.DEVNULL
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def has_ended(self) -> bool:
        """Says whether whoever it played to has gone: ffmpeg then ends."""
        return self.process is None or self.process.poll() is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--temporal", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of the engine; the machine's cores by default")
    parser.add_argument("--cut-every", type=float, default=180, help="seconds; 0 never")
    options = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is missing")
    senders = [
        Sender(f"tcp://127.0.0.1:{_free_port()}", options.size, options.fps) for _ in range(options.cameras)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and what it started ends with it
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for sender in senders:
            sender.start()
            stack.callback(sender.kill)
        port = _free_port()
        shared = {"model": options.model, "temporal": options.temporal, "preset": "ultrafast", "parts": "60"}
        if options.threads:
            shared["threads"] = options.threads
        process = stack.enter_context(_serving(folder, senders, port, shared))
        seconds = options.minutes * 60
        well = _tell(_watch(process, port, senders, seconds, options.cut_every), seconds / PARTS)
    sys.exit(not well)


@contextmanager
def _serving(
    folder: Path, senders: list[Sender], port: int, shared: dict[str, str | int]
) -> Iterator[subprocess.Popen[bytes]]:
    cameras = [
        {"name": f"camera{number}", "source": sender.url, "sinks": [str(folder / f"{number}.mkv")]}
        for number, sender in enumerate(senders)
    ]
    (folder / "cameras.yaml").write_text(yaml.safe_dump({"all": shared, "cameras": cameras}))
    command = [str(Path(sys.executable).with_name("measnet-serve")), str(folder / "cameras.yaml")]
    process = subprocess.Popen([*command, "--metrics", str(port), "--quiet"])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _watch(
    process: subprocess.Popen[bytes], port: int, senders: list[Sender], seconds: float, cut_every: float
) -> Iterator[Look]:
    began = time.monotonic()
    cut = began + cut_every if cut_every else float("inf")
    while (now := time.monotonic()) < began + seconds:
        if process.poll() is not None:
            sys.exit(f"measnet-serve ended with status {process.returncode}")
        if now > cut:
            senders[-1].kill()
            time.sleep(AWAY)
            cut += cut_every
        for sender in senders:
            if sender.has_ended:
                sender.start()
        time.sleep(EVERY)
        try:
            values = _metrics(port)
            values["threads"] = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
            yield Look(time.monotonic() - began, values)
        except OSError:
            continue  # it has not begun to listen


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [re.fullmatch(r"([^#\s]\S*(?: [^{}\s]+\}|)) (\S+)", line) for line in lines]
    return {found[1]: float(found[2]) for found in pairs if found is not None}


def _tell(looks: Iterator[Look], length: float) -> bool:
    """Prints a line for each part of the time; says whether nothing has grown."""
    print(
        "| minutes | memory, MiB | threads | files | frames a second | p50, ms | p99, ms | largest, ms "
        "| left out | outages |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    rows: list[tuple[float, float, float, float]] = []
    for _, part in groupby(looks, lambda look: min(PARTS - 1, int(look.at / length))):
        rows.append(_row(list(part)))
    first, last = rows[min(1, len(rows) - 1)], rows[-1]
    print(f"memory {last[0] - first[0]:+.1f} MiB, p99 {first[1]:.0f} to {last[1]:.0f} ms")
    return last[0] - first[0] <= MOST_GROWTH and last[1] <= 2 * first[1] and last[2:] <= first[2:]


def _row(part: list[Look]) -> tuple[float, float, float, float]:
    """Prints what a part of the time was like; gives memory in MiB, p99 in ms, threads and open files."""

    def middle(name: str, **labels: str) -> float:
        return statistics.median([max(look.of(name, **labels), default=0.0) for look in part])

    memory = middle("process_resident_memory_bytes") / 2**20
    threads, files = middle("threads"), middle("process_open_fds")
    fps = statistics.median([sum(look.of("measnet_fps_out")) for look in part])
    late = [1000 * middle("measnet_latency_seconds", quantile=one) for one in ("0.5", "0.99", "1")]
    left_out, outages = (
        sum(part[-1].of(name)) for name in ("measnet_frames_dropped_total", "measnet_reconnects_total")
    )
    cells = [f"{part[-1].at / 60:.1f}", f"{memory:.1f}", f"{threads:.0f}", f"{files:.0f}", f"{fps:.1f}"]
    cells += [f"{one:.0f}" for one in late]
    print("| " + " | ".join([*cells, f"{left_out:.0f}", f"{outages:.0f}"]) + " |", flush=True)
    return memory, late[1], threads, files


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
