"""Does to live runs what networks, disks and senders do, and says what came of it.

    python bench/live_faults.py [senders sizes datagrams rtp stalled disk cameras]      all without a name

Linux; root for the disk, GStreamer's RTSP server for RTP. Senders are ffmpeg on the loopback, 96x64 at 10
frames a second; each fault is done to a real ``measnet-run`` or ``measnet-serve`` with the bundled nano.
Prints a row for each; status 1 where one of them did not end as docs/live.md and docs/sinks.md say.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from bad_road import BadRoad, rtsp_camera

TIMES = 20  # that a sender is killed
AWAY = 1.0  # seconds for which it stays away
Form: TypeAlias = tuple[str, int, str]
FORMS: list[Form] = [
    ("96x64", 10, "libx264"),
    ("128x96", 15, "mpeg2video"),
    ("64x96", 5, "libx265"),
    ("96x64", 10, "mpeg4"),
]
OPTIONS = ["--threads", "1", "--temporal", "0", "--preset", "ultrafast", "--reconnect", "300", "--quiet"]
PATIENCE = 300.0
MINUTE = 60.0


def _has_bytes(place: Path) -> bool:
    return place.exists() and place.stat().st_size > 0


class Sender:
    """ffmpeg with a moving picture, waiting for its viewer over TCP, or sending datagrams."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._process: subprocess.Popen[bytes] | None = None
        self._form = FORMS[0]

    def start(self, form: Form = FORMS[0]) -> None:
        self._form = size, fps, codec = form
        fast = ["-preset", "ultrafast", "-tune", "zerolatency"] if codec.startswith("libx") else []
        fast += ["-x265-params", "log-level=none"] if codec == "libx265" else []
        to = f"{self.url}?listen=1" if self.url.startswith("tcp") else f"{self.url}?pkt_size=1316"
        command = ["ffmpeg", "-v", "quiet", "-re", "-f", "lavfi", "-i", f"testsrc2=s={size}:r={fps}"]
        command += [
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            codec,
            *fast,
            "-b:v",
            "400k",
            "-g",
            str(fps),
            "-f",
            "mpegts",
            to,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stay(self) -> None:
        """Starts it again where it has ended: one that listens does with the first viewer that goes."""
        if self._process is None or self._process.poll() is not None:
            self.start(self._form)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def sending(url: str) -> Iterator[Sender]:
    sender = Sender(url)
    sender.start()
    try:
        yield sender
    finally:
        sender.kill()


class Program:
    """measnet-run or measnet-serve, at work. ``end`` interrupts it and gives its report."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._report = folder / "report.json"
        command = [str(Path(sys.executable).with_name(name)), *arguments, "--report", str(self._report)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @property
    def memory(self) -> float:
        """MiB that are resident."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/task").iterdir()))

    def when_it_writes(self, *places: Path) -> None:
        """Waits until pictures come, each time anew."""
        for place in places:
            wait_for(partial(_has_bytes, place))

    def when_it_goes_on(self, place: Path, sender: Sender) -> None:
        """Waits until more has come from the sender than was there."""
        size = place.stat().st_size

        def has_grown() -> bool:
            sender.stay()
            return place.stat().st_size > size

        wait_for(has_grown)

    def end(self) -> tuple[int, float, list[dict[str, Any]]]:
        """Status, seconds that ending took, and the reports of its runs."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            sys.exit("it did not end")
        return (
            self._process.returncode,
            time.monotonic() - began,
            json.loads(self._report.read_text())["runs"],
        )


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            sys.exit("it did not come to that in time")
        time.sleep(0.05)


def tcp() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def told(run: dict[str, Any]) -> str:
    live = run["live"]
    late = live["latency"]
    return (
        f"{live['decoded']} frames came, {run['frames']} restored; latency p50 {1000 * late['p50']:.0f} ms, "
        f"p99 {1000 * late['p99']:.0f} ms"
    )


def killed(folder: Path, forms: list[Form]) -> tuple[str, bool]:
    """Kills a sender ``TIMES`` times, each time starting it in the next of ``forms``."""
    out = folder / "out.mkv.part"
    with sending(tcp()) as sender:
        run = Program(folder, "measnet-run", sender.url, "-o", str(folder / "out.mkv"), *OPTIONS)
        run.when_it_writes(out)
        early = (0.0, 0)
        for number in range(1, TIMES + 1):
            sender.kill()
            time.sleep(AWAY)
            sender.start(forms[number % len(forms)])
            run.when_it_goes_on(out, sender)
            time.sleep(2)
            if number == TIMES // 4:
                early = run.memory, run.threads
        late = run.memory, run.threads
        status, _, (report,) = run.end()
    gone = sorted(outage["seconds"] for outage in report["live"]["outages"])
    middle, first = gone[len(gone) // 2], TIMES // 4
    words = (
        f"{len(gone)} outages, without a picture for {middle:.1f} s in the middle, {gone[-1]:.1f} s at most; "
        f"memory {early[0]:.0f} MiB after {first}, {late[0]:.0f} at the end, threads {early[1]} and "
        f"{late[1]}; {told(report)}"
    )
    return words, status == 0 and len(gone) >= TIMES and late[1] <= early[1] + 1


def senders(folder: Path) -> tuple[str, bool]:
    """A sender killed and started again 20 times"""
    return killed(folder, FORMS[:1])


def sizes(folder: Path) -> tuple[str, bool]:
    """The same, in another size, rate and codec each time"""
    words, held = killed(folder, FORMS)
    command = ["ffprobe", "-v", "error", "-show_entries", "frame=width,height", "-of", "csv=p=0"]
    found = set(subprocess.check_output([*command, str(folder / "out.mkv")], text=True).split())
    return f"{words}; all frames of the result are 96x64", held and {one.strip(",") for one in found} == {
        "96,64"
    }


def datagrams(folder: Path) -> tuple[str, bool]:
    """Datagrams on the way: 2 % lost, 2 % damaged, 2 % after the next one, for a minute"""
    port = int(tcp().rpartition(":")[2])
    with BadRoad(port) as road, sending(f"udp://127.0.0.1:{road.port}"):
        return spoiled(folder, f"udp://127.0.0.1:{port}", road)


def rtp(folder: Path) -> tuple[str, bool]:
    """The same with RTP, of an RTSP camera (GStreamer's server) that sends by UDP alone"""
    with rtsp_camera() as (url, road):
        return spoiled(folder, url, road)


def spoiled(folder: Path, url: str, road: BadRoad) -> tuple[str, bool]:
    """A minute of what came by the road."""
    out = folder / "out.mkv"
    run = Program(folder, "measnet-run", url, "-o", str(out), *OPTIONS)
    run.when_it_writes(out.with_name("out.mkv.part"))
    time.sleep(MINUTE / 4)
    early = run.memory, run.threads
    time.sleep(MINUTE * 3 / 4)
    late = run.memory, run.threads
    last = out.with_name("out.mkv.part").stat().st_size
    wait_for(lambda: out.with_name("out.mkv.part").stat().st_size > last)
    status, _, (report,) = run.end()
    words = (
        f"{road.spoiled} of {road.passed} datagrams; {report['damaged']} frames could not be decoded, "
        f"{report['live']['reconnects']} outages; memory {early[0]:.0f} MiB after a quarter, "
        f"{late[0]:.0f} at the end, threads {early[1]} and {late[1]}; {told(report)}"
    )
    return words, status == 0 and report["frames"] > 0 and late[1] <= early[1] + 1


def stalled(folder: Path) -> tuple[str, bool]:
    """A receiver that takes the connection and reads nothing, for 30 s, and a file"""
    with socket.socket() as mute, sending(tcp()) as sender:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        receiver = f"tcp://127.0.0.1:{mute.getsockname()[1]}?send_buffer_size=4096"
        sinks = ["-o", str(folder / "out.mkv"), "-o", receiver]
        run = Program(folder, "measnet-run", sender.url, *sinks, *OPTIONS, "--crf", "1")
        run.when_it_writes(folder / "out.mkv.part")
        time.sleep(30)
        status, seconds, (report,) = run.end()
    file, away = report["sinks"]
    words = (
        f"the file got {file['frames']} frames and lost {file['dropped']}; the receiver got "
        f"{away['frames']}, lost {away['dropped']}, failed {away['failures']} times; "
        f"ended in {seconds:.1f} s; {told(report)}"
    )
    return words, status == 0 and file["frames"] > 0 == file["failures"] and away["failures"] > 0


def disk(folder: Path) -> tuple[str, bool]:
    """A disk of 256 KiB that fills, and a file on another one"""
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=True)
    try:
        with sending(tcp()) as sender:
            sinks = ["-o", str(folder / "out.mkv"), "-o", str(small / "full.mkv")]
            run = Program(folder, "measnet-run", sender.url, *sinks, *OPTIONS, "--crf", "1")
            run.when_it_writes(small / "full.mkv.part")
            wait_for(lambda: bool(list(small.glob("full.partial*"))))
            time.sleep(10)
            status, _, (report,) = run.end()
            left = sum(one.stat().st_size for one in small.iterdir())
            played = subprocess.run(["ffmpeg", "-v", "error", "-i", next(small.iterdir()), "-f", "null", "-"])
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    other, full = report["sinks"]
    words = (
        f"it has {full['frames']} frames in {left / 1024:.0f} KiB, which play; the other file got "
        f"{other['frames']} and lost {other['dropped']}"
    )
    held = status == played.returncode == 0 and other["frames"] > full["frames"] and bool(full["error"])
    return words, held


def cameras(folder: Path) -> tuple[str, bool]:
    """Four cameras in one process, the last killed and started again 20 times"""
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(sending(tcp())) for _ in range(4)]
        outs = [folder / f"{number}.mkv" for number in range(4)]
        listed = [
            {"name": out.stem, "source": sender.url, "sinks": [str(out)]}
            for out, sender in zip(outs, all_of_them, strict=True)
        ]
        shared = {"threads": 1, "temporal": 0, "preset": "ultrafast"}
        (folder / "cameras.yaml").write_text(yaml.safe_dump({"all": shared, "cameras": listed}))
        run = Program(folder, "measnet-serve", str(folder / "cameras.yaml"), "--quiet")
        parts = [out.with_name(f"{out.name}.part") for out in outs]
        run.when_it_writes(*parts)
        for _ in range(TIMES):
            all_of_them[-1].kill()
            time.sleep(AWAY)
            all_of_them[-1].start()
            run.when_it_goes_on(parts[-1], all_of_them[-1])
            time.sleep(1)
        run.when_it_goes_on(parts[0], all_of_them[0])
        status, seconds, reports = run.end()
    words = "; ".join(
        f"{number}: {report['frames']} of {report['live']['decoded']} frames, p99 "
        f"{1000 * report['live']['latency']['p99']:.0f} ms, {len(report['live']['outages'])} outages"
        for number, report in enumerate(reports, 1)
    )
    held = status == 0 and all(report["frames"] for report in reports)
    others = any(report["live"]["outages"] for report in reports[:3])
    return f"{words}; ended in {seconds:.1f} s", held and not others


FAULTS = [senders, sizes, datagrams, rtp, stalled, disk, cameras]


def main() -> None:
    asked = sys.argv[1:]
    if unknown := set(asked) - {fault.__name__ for fault in FAULTS}:
        sys.exit(f"there is no {', '.join(unknown)}")
    well = True
    print("| | came of it | as said |\n|---|---|---|")
    for fault in FAULTS:
        if not asked or fault.__name__ in asked:
            with tempfile.TemporaryDirectory() as folder:
                words, held = fault(Path(folder))
            well = well and held
            print(f"| {fault.__doc__} | {words} | {'yes' if held else 'NO'} |", flush=True)
    sys.exit(not well)


if __name__ == "__main__":
    main()
