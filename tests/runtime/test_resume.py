"""A run that was cut off, at whatever moment, goes on and ends as if it had not been."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.errors import BackendError, UsageError
from measnet.image import Pixels
from measnet.onnx_file import read_metadata
from measnet.runtime.cli import main
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Encoding, Reading
from measnet.runtime.restorer import RestoredFrame
from measnet.runtime.side_data import read_hdr
from measnet.runtime.sinks.containers import CONTAINERS
from measnet.runtime.sinks.encoder import PictureEncoding, decoding_times
from measnet.runtime.tiles import Tile
from measnet.weights import bundled

from .conftest import (
    IDENTITY_COMMAND,
    MakeClip,
    ffmpeg,
    probe,
    restore_unchanged,
)
from .identity import IdentityRestorer, given_back
from .resuming import (
    ALONE,
    FAILS,
    FRAMES,
    LENGTH,
    NEVER,
    OPTIONS,
    WHOLE,
    FailingRestorer,
    Run,
    Steerable,
    frame_sums,
    joining_fails,
    names,
    once,
    part,
    result,
    resumed_at,
    sent_at_a_step,
    short_segments,
    source,
    video,
    whole,
)

__all__ = ["once", "part", "short_segments", "source", "video", "whole"]


# Counted: the header's line; of every segment its file, its name, the same of the frames before, its folder's
# names, its line; the joined file, its name.
@pytest.mark.parametrize(("moment", "done"), [(3, 0), (5, 0), (6, 0), (7, FRAMES), (9, FRAMES), (21, LENGTH)])
def test_killed_at_any_step_it_goes_on_to_the_same_result(
    measnet_run: Run, video: Path, whole: list[str], moment: int, done: int
) -> None:
    killed = sent_at_a_step(signal.SIGKILL, moment, IDENTITY_COMMAND[1], "0", video, *OPTIONS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not result(video).exists()
    report = video.with_name("report.json")
    answer = measnet_run(video, *OPTIONS, "--report", report)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == done
    assert (f"going on at frame {done} of {LENGTH}" in " ".join(answer.err.split())) == (done > 0)
    assert frame_sums(result(video)) == whole
    picture = ["report.svg"] if done < LENGTH else []  # nobody restored anything in this run
    assert names(video.parent) == ["clip.mp4", "clip.restored.mp4", "report.json", *picture]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_it_goes_on_to_the_same_result(
    measnet_run: Run, video: Path, whole: list[str], number: signal.Signals
) -> None:
    part, partial = (video.with_name(f"clip.restored.{rest}") for rest in ("mp4.part", "partial.mp4"))
    stopped = sent_at_a_step(number, 7, IDENTITY_COMMAND[1], "0.02", video, *OPTIONS)
    assert stopped.returncode == 130, stopped.stderr
    assert f"the same command goes on at frame {FRAMES}" in " ".join(stopped.stdout.split())
    assert names(part) == ["lock", "manifest.jsonl", "past-00000", "segment-00000"]
    assert probe(partial).times == probe(video).times[: len(probe(partial).times)]
    answer = measnet_run(video, *OPTIONS)
    assert answer.status == 0, answer.err
    assert frame_sums(result(video)) == whole


def test_the_program_with_the_real_network_is_killed_and_goes_on_to_the_same_result(tmp_path: Path) -> None:
    length, source = FRAMES + 9, tmp_path / "clip.mp4"
    sample = Path(__file__).parents[2] / "examples" / "car-park.mp4"
    ffmpeg(
        *["-stream_loop", "-1", "-i", sample, "-vf", "crop=64:64,setpts=(N+mod(N\\,3)/2)/12.5/TB"],
        *["-frames:v", str(length), "-fps_mode", "vfr", "-c:a", "copy", "-shortest", source],
    )
    once, again, report = (tmp_path / name for name in ("once.mp4", "again.mp4", "report.json"))
    program = str(Path(sys.executable).with_name("measnet-run"))
    options = ["--threads", "1", "--preset", "veryfast"]
    whole = CliRunner().invoke(main, [str(source), "-o", str(once), *options])
    assert whole.exit_code == 0, whole.stderr
    killed = sent_at_a_step(signal.SIGKILL, 8, program, source, "-o", again, *options)
    assert killed.returncode == -signal.SIGKILL and not again.exists(), killed.stderr
    on = sent_at_a_step(signal.SIGKILL, NEVER, program, source, "-o", again, *options, "--report", report)
    assert on.returncode == 0, on.stderr
    assert f"going on at frame {FRAMES} of {length}" in " ".join(on.stderr.split())
    (run,) = json.loads(report.read_text())["runs"]
    assert run["resumed_at"] == FRAMES and run["frames"] == length
    assert run["engine"]["backend"] == "onnxruntime" and run["engine"]["weights_sha256"]
    assert frame_sums(again) == frame_sums(once)


def test_a_run_that_goes_on_reports_where_and_tells_of_the_frames_it_restored_itself(
    measnet_run: Run, video: Path, part: Path
) -> None:
    report = video.with_name("report.json")
    assert measnet_run(video, *OPTIONS, "--report", report).status == 0
    (run,) = json.loads(report.read_text())["runs"]
    assert (run["resumed_at"], run["frames"]) == (WHOLE, LENGTH)
    experts, times = run["experts"], probe(video).times
    assert (experts["first_frame"], experts["frames"]) == (WHOLE, LENGTH - WHOLE)
    assert experts["unit"] == "seconds"
    bins = experts["over_time"]["bins"]
    assert len(bins) == LENGTH - WHOLE and bins[0]["from"] == pytest.approx(float(times[WHOLE]), abs=1e-4)
    assert "flicker" in bins[0] and bins[0]["flicker"] is None  # the frame before it was another run's
    assert experts["flicker_pairs"] == LENGTH - WHOLE - 1


def test_matroska_goes_on_to_the_same_result_too(measnet_run: Run, video: Path) -> None:
    whole, target = video.with_name("whole.mkv"), video.with_name("out.mkv")
    assert measnet_run(video, *ALONE, "-o", whole).status == 0
    assert measnet_run(video, *ALONE, "-o", target, engine=FailingRestorer).status == 1
    assert measnet_run(video, *ALONE, "-o", target).status == 0
    assert frame_sums(target) == frame_sums(whole)


def test_sound_ends_with_the_last_frame_asked_for(measnet_run: Run, video: Path) -> None:
    assert measnet_run(video, *ALONE, "--frames", "20").status == 0
    found = probe(result(video))
    assert len(found.times) == 20
    sound = [stream for stream in found.copied if stream[0] == "audio"]
    assert 0 < len(sound) < len(probe(video).copied)


@pytest.mark.parametrize(
    ("shown", "reordering"),
    [
        ([0, 2, 1, 4, 3], 1),
        ([0, 40, 10, 20, 900, 50, 60], 0),
        ([5], 2),
        ([0, 1, 2], 2),
        ([-90, 300, -60, -10], 1),
    ],
)
def test_decoding_times_rise_and_come_before_the_picture_is_shown(shown: list[int], reordering: int) -> None:
    decoded = decoding_times(shown, reordering)
    assert all(before < after for before, after in itertools.pairwise(decoded))
    assert all(dts <= pts for dts, pts in zip(decoded, shown, strict=True))


@pytest.mark.parametrize(
    ("codec", "preset"),
    [("h264", "medium"), ("h264", "veryfast"), ("hevc", "ultrafast"), ("vp9", "8"), ("av1", "12")],
)
def test_encoders_make_the_same_of_the_same(codec: str, preset: str) -> None:
    info = StreamInfo("x", "video", 128, 96, Fraction(1, 25), Fraction(25))
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 160, (96, 128, 3), np.uint8)
    pictures = [np.roll(noise, (3 * n, 5 * n), (0, 1)) for n in range(24)]
    sums = set()
    for _ in range(4):
        try:
            encoding = PictureEncoding(
                Path("x.mkv"), CONTAINERS[".mkv"], info, Encoding(codec=codec, preset=preset)
            )
        except UsageError as error:
            pytest.skip(str(error))
        encoding.repeat_with(3)
        encoder = encoding.open_alone(0)
        digest = hashlib.sha256()
        for number, pixels in enumerate(pictures):
            for packet in encoder.encode(pixels.copy(), number, 1):
                digest.update(bytes(packet))
        for packet in encoder.flush():
            digest.update(bytes(packet))
        sums.add(digest.hexdigest())
    assert len(sums) == 1


INTERRUPTED_AT = FRAMES + 10


def _cut_off_and_gone_on(measnet_run: Run, source: Path, out: Path, *options: str) -> None:
    """``out`` of a run whose engine failed on the way, and of the same command again."""
    failed = measnet_run(source, "-o", out, *options, engine=partial(FailingRestorer, INTERRUPTED_AT))
    assert failed.status == 1 and f"goes on at frame {FRAMES}" in " ".join(failed.err.split()), failed.err
    answer = measnet_run(source, "-o", out, *options)
    assert answer.status == 0, answer.err
    assert f"going on at frame {FRAMES}" in " ".join(answer.err.split())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_piece_of_a_video_goes_on_with_its_own_sound_and_subtitles(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, ending: str
) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,300 --> 00:00:01,200\nacross\n\n2\n00:00:02,500 --> 00:00:03,200\nafter\n")
    arguments = ["-g", "16", "-c:v", "libx264", "-bf", "2", "-c:a", "aac", "-b:a", "16k"]
    plain = clip("long.mkv", *arguments, size="64x48", seconds=3.6)
    source = tmp_path / f"in.{'ts' if ending == 'ts' else 'mkv'}"
    if ending == "ts":
        ffmpeg("-i", plain, "-c", "copy", source)
    else:
        ffmpeg("-i", plain, "-i", words, "-c", "copy", "-c:s", "srt", source)
    options = ["--start", "0.78", "--duration", "2", *ALONE]
    once, again = tmp_path / f"once.{ending}", tmp_path / f"again.{ending}"
    assert measnet_run(source, "-o", once, *options).status == 0
    _cut_off_and_gone_on(measnet_run, source, again, *options)
    assert frame_sums(again) == frame_sums(once)
    assert probe(again).copied == probe(once).copied
    found, direct = probe(once), tmp_path / f"direct.{ending}"
    assert len(found.times) == 50
    outcome = restore_unchanged(
        source, direct, direct=True, reading=Reading(start=Fraction("0.78"), duration=Fraction(2))
    )
    assert outcome.figures.frames == 50
    assert found.copied and found.copied == probe(direct).copied


def test_ten_bits_and_hdr_are_the_same_in_every_segment(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    display = "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,1)"
    source = clip(
        "hdr.mkv",
        *[
            "-c:v",
            "libx265",
            "-pix_fmt",
            "yuv420p10le",
            "-color_primaries",
            "bt2020",
            "-colorspace",
            "bt2020nc",
        ],
        *[
            "-color_trc",
            "smpte2084",
            "-x265-params",
            f"log-level=error:hdr10=1:master-display={display}:max-cll=900,300",
        ],
        size="64x48",
        seconds=1.5,
    )
    for codec in ("h264", "hevc"):
        options = ["--codec", codec, "--preset", "ultrafast", "--temporal", "0"]
        once, again = tmp_path / f"{codec}.mp4", tmp_path / f"{codec}.again.mp4"
        assert measnet_run(source, "-o", once, *options).status == 0
        _cut_off_and_gone_on(measnet_run, source, again, *options)
        assert frame_sums(again) == frame_sums(once)
        with av.open(str(again)) as container:
            frames = list(container.decode(video=0))
        keys = [frame for frame in frames if frame.key_frame]
        assert {frame.format.name for frame in frames} == {"yuv420p10le"} and len(keys) >= 2
        for frame in keys:
            assert read_hdr(frame) == read_hdr(keys[0]) and read_hdr(frame).display is not None


def test_a_deinterlaced_video_goes_on_to_the_same_result(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    source = clip(
        "fields.mp4",
        *["-vf", "tinterlace=interleave_top,fieldorder=tff", "-c:v", "libx264", "-x264-params", "tff=1"],
        *["-flags", "+ildct+ilme"],
        size="64x48",
        seconds=3.0,
    )
    once, again = tmp_path / "once.mp4", tmp_path / "again.mp4"
    first = measnet_run(source, "-o", once, *ALONE)
    assert first.status == 0 and "deinterlaced" in first.err
    _cut_off_and_gone_on(measnet_run, source, again, *ALONE)
    assert frame_sums(again) == frame_sums(once)


def test_standard_input_is_not_taken_for_a_file_of_that_name(
    monkeypatch: pytest.MonkeyPatch, clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "-").write_bytes(b"a file called -")
    script = Path(__file__).parent / "identity_run.py"
    source = clip("plain.ts")
    with source.open("rb") as file:
        done = subprocess.run(
            [sys.executable, str(script), "0", "-", "-o", "out.ts"],
            stdin=file,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert len(probe(tmp_path / "out.ts").times) == len(probe(source).times)
    assert probe(tmp_path / "out.ts").copied


def test_tiles_are_those_the_run_began_with(measnet_run: Run, video: Path) -> None:
    class Tiling(FailingRestorer):
        held: list[Tile] | None = None

        def __init__(self, free: int) -> None:
            super().__init__()
            self.free = free

        def tiles_for(self, height: int, width: int) -> list[Tile]:
            return [Tile(0, 0, height, self.free), Tile(0, self.free, height, width - self.free)]

        def use_tiles(self, height: int, width: int, tiles: list[Tile]) -> None:
            Tiling.held = tiles

    assert measnet_run(video, *ALONE, engine=partial(Tiling, 24)).status == 1
    assert measnet_run(video, *ALONE, engine=partial(Tiling, 30)).status == 0
    assert Tiling.held == [Tile(0, 0, 48, 24), Tile(0, 24, 48, 40)]


def test_what_a_steady_video_remembers_goes_on_too(measnet_run: Run, video: Path) -> None:
    once, again = video.with_name("once.mp4"), video.with_name("again.mp4")
    whole, cut_off = partial(Steerable, LENGTH), partial(Steerable, FAILS)
    assert measnet_run(video, "-o", once, *ALONE, engine=whole).status == 0
    assert measnet_run(video, "-o", again, *ALONE, engine=cut_off).status == 1
    assert measnet_run(video, "-o", again, *ALONE, engine=whole).status == 0
    assert frame_sums(again) == frame_sums(once)


def test_what_a_steady_video_remembers_is_known_behind_the_last_frame_too(
    measnet_run: Run, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = partial(Steerable, LENGTH)
    joining_fails(monkeypatch, measnet_run, video, engine)
    answer = measnet_run(video, *OPTIONS, engine=engine)
    assert answer.status == 0 and f"going on at frame {LENGTH}" in answer.err, answer.err
    assert len(probe(result(video)).times) == LENGTH


def test_a_run_that_had_fallen_back_goes_on_with_the_engine_it_fell_back_to(
    measnet_run: Run, video: Path
) -> None:
    weights = read_metadata(bundled("nano", ".onnx"))["measnet.weights_sha256"]

    class Safe(FailingRestorer):
        description = IdentityRestorer.description | {"backend": "safe", "weights_sha256": weights}

        def restore(self, pixels: Pixels) -> RestoredFrame:
            return given_back(255 - super().restore(pixels).pixels)

    class Faulty(FailingRestorer):
        description = Safe.description | {"backend": "fast", "precision": "fp16"}

        def __init__(self, safe_fails: int) -> None:
            super().__init__()
            self.safe_fails = safe_fails

        def like(self, model: str, backend: str) -> Safe:
            assert (model, backend) == ("nano", "onnxruntime-cpu")
            return Safe(self.safe_fails)

        def restore(self, pixels: Pixels) -> RestoredFrame:
            if self.frames == 12:
                raise BackendError("out of memory")
            return super().restore(pixels)

    once, again, report = (video.with_name(name) for name in ("once.mp4", "again.mp4", "report.json"))
    whole, cut_off = partial(Faulty, LENGTH), partial(Faulty, FRAMES)
    assert measnet_run(video, "-o", once, *ALONE, engine=whole).status == 0
    assert measnet_run(video, "-o", again, *ALONE, engine=cut_off).status == 1
    answer = measnet_run(video, "-o", again, *ALONE, "--report", report, engine=whole)
    assert answer.status == 0, answer.err
    assert resumed_at(report) == FRAMES and frame_sums(again) == frame_sums(once)
    assert "frame 12 came back wrong: out of memory; from there on safe" in " ".join(answer.err.split())
