"""measnet-run cut off at random moments, each time taken up again, and the results compared frame by frame.

    python bench/reliability.py [--runs 50] [--seed 0]

SIGINT, SIGTERM and SIGKILL in turn, at moments spread evenly over what an uninterrupted run takes. After
each one the same command runs to its end; ``ffmpeg -f framemd5`` of its result (picture and sound) must be
that of the uninterrupted one.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
RUN = [sys.executable, "-c", "from measnet.runtime.cli import main; main()", "--threads", "1", "--quiet"]


@dataclass
class Outcome:
    number: signal.Signals
    cut_off: bool
    resumed_at: int
    same: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcomes = try_all(Path(name), options.runs, random.Random(options.seed))
    print_tally(outcomes)
    sys.exit(0 if all(outcome.same for outcome in outcomes) else 1)


def try_all(folder: Path, runs: int, chance: random.Random) -> list[Outcome]:
    clip, whole = folder / "clip.mp4", folder / "whole.mp4"
    make_clip(clip)
    started = time.monotonic()
    subprocess.run([*RUN, str(clip), "-o", str(whole)], check=True)
    seconds = time.monotonic() - started
    expected = frame_sums(whole)
    print(f"{len(expected)} frames and sound packets, {seconds:.1f} s uninterrupted", flush=True)
    outcomes = []
    for number in range(runs):
        moment = chance.uniform(0, seconds)
        outcome = try_once(clip, SIGNALS[number % len(SIGNALS)], moment, expected)
        verdict = "identical" if outcome.same else "DIFFERENT"
        print(
            f"{outcome.number.name:8} after {moment:5.1f} s, went on at {outcome.resumed_at:3}: {verdict}",
            flush=True,
        )
        outcomes.append(outcome)
    return outcomes


def make_clip(path: Path) -> None:
    """320 noisy frames at an uneven pace, and a tone."""
    picture = "testsrc2=s=48x32:r=25:d=12.8,noise=alls=20:allf=t,setpts=(N+mod(N\\,3)/2)/25/TB"
    source = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=d=12.8"]
    settings = ["-fps_mode", "vfr", "-video_track_timescale", "90000", "-preset", "veryfast"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *settings, str(path)], check=True)


def try_once(clip: Path, number: signal.Signals, moment: float, expected: list[str]) -> Outcome:
    result, report = clip.with_name("result.mp4"), clip.with_name("report.json")
    command = [*RUN, str(clip), "-o", str(result)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running.wait(moment)
    except subprocess.TimeoutExpired:
        running.send_signal(number)
    status = running.wait()
    finished = result.exists()
    if finished != (status == 0) and number != signal.SIGKILL:
        print(f"status {status}, yet the result is {'there' if finished else 'not there'}", flush=True)
    resumed_at = 0
    if not finished:
        subprocess.run([*command, "--report", str(report)], check=True)
        resumed_at = json.loads(report.read_text())["runs"][0]["resumed_at"]
    same = frame_sums(result) == expected
    for path in (result, report, result.with_name("result.partial.mp4")):
        path.unlink(missing_ok=True)
    return Outcome(number, not finished, resumed_at, same)


def frame_sums(path: Path) -> list[str]:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


def print_tally(outcomes: list[Outcome]) -> None:
    print(
        "\n| signal | sent | run cut off | went on behind frame 0 | result identical |\n|---|---|---|---|---|"
    )
    groups = collections.defaultdict(list)
    for outcome in outcomes:
        groups[outcome.number.name].append(outcome)
    for name, group in [*groups.items(), ("all", outcomes)]:
        cut_off, resumed = sum(o.cut_off for o in group), sum(o.resumed_at > 0 for o in group)
        print(f"| {name} | {len(group)} | {cut_off} | {resumed} | {sum(o.same for o in group)} |")


if __name__ == "__main__":
    main()
