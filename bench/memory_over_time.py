"""Shows whether measnet-run's memory stays level over a long run.

    python bench/memory_over_time.py [--frames 20000] [--source file|pipe|folder] [--verify 500]

Restores so many frames of 128x128 with the bundled nano, with --report and every 500th frame verified. Reads
the resident memory of the process four times a second: from the 500th frame on, or the tenth part if sooner,
when all is loaded. Prints what the first and the last tenth of the samples take on average, and the slope of
the line through all of them. Ends with status 1 if the run fails, or if the last tenth takes --most MiB (16)
more than the first.
``pipe`` is raw video on standard input into one file, as a stream is; ``folder`` is still images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIDE = 128
EVERY = 0.25  # seconds
WARM_UP = 500  # frames
RUN = [sys.executable, "-c", "from measnet.runtime.cli import main; main()", "--threads", "1", "--quiet"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--source", choices=["file", "pipe", "folder"], default="file")
    parser.add_argument("--verify", type=int, default=500, metavar="N", help="one frame in N")
    parser.add_argument("--most", type=float, default=16.0, metavar="MiB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        samples, report = run(Path(name), options.frames, options.source, options.verify)
    if report["frames"] != options.frames or len(samples) < 20:
        sys.exit(f"{report['frames']} frames, {len(samples)} samples: {report['error']}")
    sys.exit(0 if show(samples, report) <= options.most else 1)


def run(
    folder: Path, frames: int, source: str, every: int
) -> tuple[list[tuple[float, int]], dict[str, object]]:
    """Seconds and bytes, and the run's own report."""
    report = folder / "report.json"
    command = [*RUN, "--report", str(report), "--verify", f"1/{every}", "--verify-share", "1"]
    command += ["--preset", "ultrafast"]
    made = None
    if source == "pipe":
        made = subprocess.Popen(generated(frames, "-f", "rawvideo", "-"), stdout=subprocess.PIPE)
        command += ["-", "--raw", f"{SIDE}x{SIDE}:yuv420p@25", "-o", str(folder / "out.mkv")]
    elif source == "folder":
        (folder / "in").mkdir()
        subprocess.run(generated(frames, str(folder / "in" / "%06d.bmp")), check=True)
        command += [str(folder / "in"), "-o", str(folder / "out")]
    else:
        subprocess.run(generated(frames, "-preset", "ultrafast", str(folder / "in.mkv")), check=True)
        command += [str(folder / "in.mkv"), "-o", str(folder / "out.mkv")]
    running = subprocess.Popen(command, stdin=made.stdout if made else subprocess.DEVNULL)
    if made and made.stdout:
        made.stdout.close()
    samples: list[tuple[float, int]] = []
    watcher = threading.Thread(target=watch, args=(running, samples))
    watcher.start()
    status = running.wait()
    watcher.join()
    if status:
        sys.exit(f"measnet-run ended with status {status}")
    figures = json.loads(report.read_text())["runs"][0]
    # How far a run is cannot be seen from outside; its pace is even enough.
    loading = samples[-1][0] - figures["seconds"]["total"] if samples else 0.0
    begin = loading + figures["seconds"]["total"] * min(0.1, WARM_UP / frames)
    return [sample for sample in samples if sample[0] >= begin], figures


def generated(frames: int, *target: str) -> list[str]:
    picture = f"testsrc2=s={SIDE}x{SIDE}:r=25,noise=alls=10:allf=t"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, "-frames:v", str(frames)]
    return [*command, "-pix_fmt", "bgr24" if target[-1].endswith("bmp") else "yuv420p", *target]


def watch(running: subprocess.Popen[bytes], samples: list[tuple[float, int]]) -> None:
    started = time.monotonic()
    while running.poll() is None:
        try:
            text = Path(f"/proc/{running.pid}/status").read_text()
        except OSError:
            return
        line = next((line for line in text.splitlines() if line.startswith("VmRSS:")), None)
        if line is not None:
            samples.append((time.monotonic() - started, int(line.split()[1]) * 1024))
        time.sleep(EVERY)


def show(samples: list[tuple[float, int]], report: dict[str, object]) -> float:
    """Prints the figures; MiB that the last tenth takes more than the first."""
    times, sizes = np.array(samples).T
    mebibytes = sizes / 2**20
    tenth = max(1, len(samples) // 10)
    first, last = mebibytes[:tenth].mean(), mebibytes[-tenth:].mean()
    slope = np.polyfit(times / times[-1], mebibytes, 1)[0]
    verify = report["verify"]
    assert isinstance(verify, dict)
    print(
        f"{report['frames']} frames, {verify['frames']} verified, {times[-1]:.0f} s: first tenth {first:.1f} "
        f"MiB, last tenth {last:.1f} MiB ({last - first:+.1f}), slope {slope:+.1f} MiB over the run, "
        f"most {mebibytes.max():.1f} MiB"
    )
    return float(last - first)


if __name__ == "__main__":
    main()
