"""Puts every video of a folder through measnet-run's reading and writing; its engine changes nothing.

    python bench/clips.py FOLDER

Source and result are compared by ffprobe: the times of all frames, the display matrix, the colour tags, and
the hashes of all packets of sound. Prints a table and what was said of each; the exit status is 1 where
something differs of which nothing was said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

from measnet.errors import MEASNetError
from measnet.runtime.frame import Mark, Restoration
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.containers import ending_of_video
from measnet.runtime.sinks.part_folder import Header
from measnet.runtime.sinks.segmented import SegmentedVideoSink
from measnet.runtime.sources.video import VideoFile
from measnet.runtime.stream import run

TAGS = ("color_space", "color_primaries", "color_transfer", "color_range")
COLUMNS = ("frames", "times", "rotation", "colour", "sound")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| clip |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    silent = False
    for clip in sorted(path for path in folder.iterdir() if path.is_file()):
        ending = ending_of_video(clip.suffix)
        with tempfile.TemporaryDirectory() as place:
            target = Path(place) / f"result{ending}"
            try:
                said = restore(clip, target)
            except MEASNetError as error:
                print(f"| {clip.name} | refused: {error} |")
                continue
            found = compared(clip, target)
        print(f"| {clip.name} |", " | ".join(found[column] for column in COLUMNS), "|", flush=True)
        for line in said:
            print(f"    {line}", flush=True)
        differs = any(not found[column].startswith(("equal", "none")) for column in COLUMNS[1:])
        silent = silent or (differs and not said)
    sys.exit(1 if silent else 0)


class Unchanged:
    """The step of an engine that changes nothing."""

    name = "restore"

    def take(self, passing: Restoration) -> None:
        """See Step.take."""

    def mark(self, mark: Mark) -> Mark:
        """See Step.mark."""
        return mark


def restore(clip: Path, target: Path) -> list[str]:
    """Lines that were said on the way."""
    source = VideoFile(clip)
    try:
        preset = "8" if target.suffix == ".webm" else "ultrafast"
        sink = SegmentedVideoSink(target, source.info, clip, source.copied_packets, Encoding(preset=preset))
        sink.begin(Header({}, {"encoder_threads": 1}), restart=False)
        try:
            run(source, (Unchanged(),), sink)
            sink.finish()
        finally:
            sink.abort()
    finally:
        source.close()
    return [*source.warnings, *sink.warnings]


def compared(clip: Path, target: Path) -> dict[str, str]:
    before, after = looked_at(clip), looked_at(target)
    found = {}
    for key in COLUMNS[1:]:
        there = before[key] or after[key]
        found[key] = "none" if not there else "equal" if before[key] == after[key] else "differ"
    was, became = before["times"], after["times"]
    found["frames"] = str(len(was)) if len(was) == len(became) else f"{len(was)}, {len(became)} written"
    if found["times"] == "differ" and len(was) == len(became):
        most = max(abs(a - b) for a, b in zip(was, became, strict=True))
        found["times"] = f"within {float(most) * 1000:.1f} ms"
    *tags, kind = before["colour"]
    if found["colour"] == "differ" and kind == "unknown" and after["colour"] == [*tags, "tv"]:
        # An unknown range is taken for this one; HEVC and VP9 have to say it.
        found["colour"] = "equal, range said"
    elif found["colour"] == "differ":
        found["colour"] = f"{'/'.join(before['colour'])}, became {'/'.join(after['colour'])}"
    return found


def looked_at(path: Path) -> dict[str, Any]:
    parts = ["-show_streams", "-show_packets", "-show_frames", "-show_data_hash", "md5"]
    command = ["ffprobe", "-v", "quiet", "-of", "json", *parts, str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    video = next(stream for stream in found["streams"] if stream["codec_type"] == "video")
    both, unit = found["packets_and_frames"], Fraction(video["time_base"])
    matrices = (data.get("displaymatrix") for data in video.get("side_data_list", []))
    return {
        "times": [
            item["best_effort_timestamp"] * unit
            for item in both
            if item["type"] == "frame" and item["stream_index"] == video["index"]
        ],
        "rotation": next((matrix for matrix in matrices if matrix), ""),
        "colour": [video.get(tag, "unknown") for tag in TAGS],
        "sound": [
            item["data_hash"] for item in both if item["type"] == "packet" and item["codec_type"] == "audio"
        ],
    }


if __name__ == "__main__":
    main()
