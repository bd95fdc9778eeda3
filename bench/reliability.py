"""Cuts measnet-run off at random moments, takes each run up again, and compares results frame by frame.

    python bench/reliability.py [--signals 50] [--full-disks 20] [--seed 0]

The bundled nano restores a small cut of the sample clip, looped to three segments, at an uneven pace and with
its sound. It is cut off by SIGINT, SIGTERM and SIGKILL in turn, at moments spread evenly over the processor
time that an uninterrupted run takes (by the clock they would depend on what else the machine does), and by
disks (tmpfs, for which root is needed) that take an evenly spread number of pages. Linux alone.

After each the same command runs to its end; ``ffmpeg -f framemd5`` of its result, picture and sound, must be
that of the uninterrupted one, and nothing else may be left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "examples" / "car-park.mp4"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
RUN = [str(Path(sys.executable).with_name("measnet-run")), "--threads", "1", "--quiet"]
FRAMES = 204
PAGE = 4096  # bytes, by which a tmpfs counts


@dataclass
class Outcome:
    """``faults`` are what must not be, in words; ``kept`` frames were not restored again."""

    cause: str
    moment: str
    cut_off: bool
    kept: int
    faults: list[str]

    def __str__(self) -> str:
        verdict = "; ".join(self.faults).upper() or "identical"
        cut = f"went on at {self.kept}" if self.cut_off else "was done"
        return f"{self.cause:9} {self.moment}, {cut}: {verdict}"


class Trial:
    """A clip in a folder, and what its result must be."""

    def __init__(self, folder: Path) -> None:
        self.clip = folder / "clip.mp4"
        make_clip(self.clip)
        whole = folder / "whole.mp4"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*RUN, str(self.clip), "-o", str(whole)], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        self.pages = 2 * (-(-whole.stat().st_size // PAGE) + 5)
        """Twice the result, as it is joined from parts of its own size; and what belongs to the folder."""
        self.expected = frame_sums(whole)

    def signalled(self, place: Path, number: signal.Signals, moment: float) -> Outcome:
        """Cut off by a signal after ``moment`` seconds of computing, in ``place``, a new folder."""
        running = subprocess.Popen(self._command(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None and seconds_used(running.pid) < moment:
            time.sleep(0.002)
        running.send_signal(number)
        status = running.wait()
        return self._go_on(place, status, number.name, f"after {moment:5.1f} s")

    def filled(self, place: Path, pages: int) -> Outcome:
        """Cut off by a disk in ``place`` that takes so many pages; it goes on on a larger one."""
        with small_disk(place, pages):
            done = subprocess.run(self._command(place), capture_output=True, text=True)
            faults = []
            if done.returncode and (
                done.returncode != 1 or "no space left" not in " ".join(done.stderr.split())
            ):
                faults.append(f"status {done.returncode}, {done.stderr}")
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            outcome = self._go_on(place, done.returncode, "full disk", f"of {pages:3} pages")
            outcome.faults += faults
            return outcome

    def _command(self, place: Path) -> list[str]:
        return [*RUN, str(self.clip), "-o", str(place / "result.mp4")]

    def _go_on(self, place: Path, status: int, cause: str, moment: str) -> Outcome:
        result, report, faults, kept = place / "result.mp4", place / "report.json", [], 0
        finished = result.exists()
        if (status == 0) and not finished:
            faults.append("it said that it was done, yet there is no result")
        if finished and frame_sums(result) != self.expected:
            faults.append("what bears the result's name is another one")
        if not finished:
            (place / "result.partial.mp4").unlink(missing_ok=True)
            done = subprocess.run(
                [*self._command(place), "--report", str(report)], capture_output=True, text=True
            )
            if done.returncode:
                return Outcome(cause, moment, True, 0, [*faults, f"it did not go on: {done.stderr}"])
            kept = json.loads(report.read_text())["runs"][0]["resumed_at"]
            report.unlink()
            report.with_suffix(".svg").unlink(missing_ok=True)
            if frame_sums(result) != self.expected:
                faults.append("different")
        left = sorted(path.name for path in place.iterdir() if path != result)
        # A kill between naming the result and taking its folder away leaves the folder to the next run.
        if left and not (finished and status == -signal.SIGKILL):
            faults.append(f"left behind: {left}")
        return Outcome(cause, moment, not finished, kept, faults)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=50, metavar="N", help="runs cut off by a signal")
    parser.add_argument("--full-disks", type=int, default=20, metavar="N", help="runs cut off by a full disk")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcomes = list(try_all(Path(name), options.signals, options.full_disks, random.Random(options.seed)))
    print_tally(outcomes)
    sys.exit(1 if any(outcome.faults for outcome in outcomes) else 0)


def try_all(folder: Path, signals: int, full_disks: int, chance: random.Random) -> Iterator[Outcome]:
    trial = Trial(folder)
    print(f"{len(trial.expected)} frames and sound packets, {trial.seconds:.1f} s of computing", flush=True)
    for number in range(signals + full_disks):
        place = folder / str(number)
        place.mkdir()
        if number < signals:
            sent = SIGNALS[number % len(SIGNALS)]
            outcome = trial.signalled(place, sent, chance.uniform(0, trial.seconds))
        else:
            reason = why_no_small_disk(place)
            if reason is not None:
                print(f"no full disks: {reason}")
                return
            outcome = trial.filled(place, chance.randint(1, trial.pages))
        print(outcome, flush=True)
        yield outcome


def make_clip(path: Path) -> None:
    """64×48 of the sample clip, over and over, each third frame longer than the two before."""
    pace = "crop=64:48,setpts=(N+mod(N\\,3)/2)/12.5/TB"
    source = ["-stream_loop", "-1", "-i", str(SAMPLE), "-vf", pace, "-frames:v", str(FRAMES)]
    settings = ["-fps_mode", "vfr", "-video_track_timescale", "90000", "-c:a", "copy", "-shortest"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *settings, str(path)], check=True)


def seconds_used(process: int) -> float:
    """Processor time of all threads of a child that has not been waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def frame_sums(path: Path) -> list[str]:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


@contextlib.contextmanager
def small_disk(place: Path, pages: int) -> Iterator[None]:
    """A disk of so many pages in ``place``. Raises CalledProcessError where none may be mounted."""
    size = f"size={pages * PAGE}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def why_no_small_disk(place: Path) -> str | None:
    if os.geteuid() != 0:
        return "only root may mount one"
    try:
        with small_disk(place, 1):
            return None
    except FileNotFoundError:
        return "there is no mount command"
    except subprocess.CalledProcessError as error:
        return f"none may be mounted: {error.stderr.decode().strip()}"


def print_tally(outcomes: list[Outcome]) -> None:
    print("\n| cut off by | tried | came before the end | went on behind frame 0 | result identical |")
    print("|---|---|---|---|---|")
    for cause in dict.fromkeys(outcome.cause for outcome in outcomes):
        group = [outcome for outcome in outcomes if outcome.cause == cause]
        cut_off, kept = sum(o.cut_off for o in group), sum(o.kept > 0 for o in group)
        print(f"| {cause} | {len(group)} | {cut_off} | {kept} | {sum(not o.faults for o in group)} |")


if __name__ == "__main__":
    main()
