"""``measnet-run`` between two ffmpegs: pictures in the pipes, words on stderr, a tidy end in any case."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from .conftest import IDENTITY_COMMAND, Answer, MakeClip, decode, ffmpeg, probe, psnr
from .piped import pipe
from .test_video import UNEVEN

Run = Callable[..., Answer]


def sent(source: Path, *arguments: str) -> bytes:
    """Has ffmpeg make the bytes that it would send down a pipe."""
    command = ["ffmpeg", "-v", "error", "-i", str(source), *arguments, "-"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def received(data: bytes, target: Path) -> Path:
    """A file in which ffmpeg keeps, losslessly, what comes out of a pipe."""
    command = ["ffmpeg", "-v", "error", "-i", "-", "-c:v", "ffv1", str(target)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return target


@pytest.mark.parametrize("chroma", ["yuv420p", "yuv422p", "yuv444p"])
def test_between_two_ffmpegs(clip: MakeClip, tmp_path: Path, chroma: str) -> None:
    soft = ["-vf", "gblur=sigma=4,setsar=16/11", "-pix_fmt", chroma, "-color_range", "pc"]
    source = clip("soft.mkv", "-c:v", "ffv1", *soft, audio=False)
    given = sent(source, "-f", "yuv4mpegpipe")
    if chroma == "yuv420p":
        command = [*IDENTITY_COMMAND, "0", "-", "-o", "-", "--temporal", "0"]
        done = subprocess.run(command, input=given, capture_output=True, timeout=60)
        status, came, said = done.returncode, done.stdout, done.stderr.decode()
    else:
        piped = pipe("-", "-o", "-", "--temporal", "0", given=given)
        status, came, said = piped.status, piped.sent, piped.err
    assert status == 0 and "20 frames" in said, said
    result = received(came, tmp_path / "out.mkv")
    before, after = probe(source), probe(result)
    assert after.times == before.times
    for key in ("pix_fmt", "color_range", "sample_aspect_ratio", "r_frame_rate", "width", "height"):
        assert after.video[key] == before.video[key], key
    planes = [np.frombuffer(sent(f, "-f", "rawvideo"), np.uint8).astype(int) for f in (source, result)]
    assert np.abs(planes[0] - planes[1]).max() <= 2


@pytest.mark.parametrize("muxer", ["matroska", "mpegts", "nut"])
def test_containers_are_read_as_they_come_with_their_sound(
    clip: MakeClip, tmp_path: Path, muxer: str
) -> None:
    source = clip("plain.mkv", "-c:a", "mp2")
    done = pipe("-", "-o", tmp_path / "out.mkv", given=sent(source, "-c", "copy", "-f", muxer))
    assert done.status == 0, done.err
    before, after = probe(source), probe(tmp_path / "out.mkv")
    assert [t - after.times[0] for t in after.times] == [t - before.times[0] for t in before.times]
    assert after.copied == before.copied


def test_a_redirected_file_may_have_its_index_at_the_end(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("long.mp4", "-vf", "noise=alls=90:allf=t", "-crf", "1", size="320x240", seconds=1.0)
    command = [*IDENTITY_COMMAND, "0", "-", "-o", str(tmp_path / "out.mp4"), "--temporal", "0"]
    command += ["--preset", "ultrafast"]
    with source.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "out.mp4").times == probe(source).times


def test_raw_video_in_and_out(clip: MakeClip) -> None:
    source = clip("plain.mp4")
    given = sent(source, "-f", "rawvideo", "-pix_fmt", "bgr24")
    for wanted in ("rgb24", "bgr24"):
        raw = ["--raw", "96x64:bgr24@30000/1001", "--raw-out", wanted]
        done = pipe("-", *raw, "-o", "-", "--temporal", "0", given=given)
        assert done.status == 0, done.err
        pixels = np.frombuffer(done.sent, np.uint8).reshape(20, 64, 96, 3)
        as_given = pixels if wanted == "bgr24" else pixels[..., ::-1]
        assert as_given.tobytes() == given


def test_a_raw_file_is_read_with_its_rate(clip: MakeClip, measnet_run: Run, tmp_path: Path) -> None:
    raw = tmp_path / "clip.yuv"
    raw.write_bytes(sent(clip("plain.mp4"), "-f", "rawvideo", "-pix_fmt", "yuv420p"))
    answer = measnet_run(raw, "--raw", "96x64:yuv420p@12.5", "-o", tmp_path / "out.mp4")
    assert answer.status == 0, answer.err
    assert probe(tmp_path / "out.mp4").times == [Fraction(2 * n, 25) for n in range(20)]


def test_an_uneven_video_keeps_its_times_in_an_even_pipe(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("uneven.mkv", "-vf", UNEVEN, "-fps_mode", "vfr", "-r", "25", audio=False)
    done = pipe(source, "-o", "-")
    assert done.status == 0, done.err
    frames, times = decode(source), probe(source).times
    result = received(done.sent, tmp_path / "out.mkv")
    pictures, at = decode(result), probe(result).times
    assert len(pictures) > len(frames) and "repeated" in done.err
    for time_shown, picture in zip(at, pictures, strict=True):
        on_screen = max(n for n, t in enumerate(times) if t <= time_shown)
        best = max(range(len(frames)), key=lambda n: psnr(frames[n], picture))
        assert best == on_screen


def test_a_reader_that_leaves_early_is_one_line_and_status_1(clip: MakeClip) -> None:
    source = clip("long.mp4", size="320x240", seconds=2.0, audio=False)
    command = [*IDENTITY_COMMAND, "0.01", str(source), "-o", "-"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stdout.read(9) == b"YUV4MPEG2"
    running.stdout.close()
    running.stdout = None
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert err.decode().splitlines() == [
        "error: the program that reads standard output has gone; the rest was not restored"
    ]


def _seconds_of(process: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_writer_that_falls_silent_can_be_stopped(clip: MakeClip, tmp_path: Path) -> None:
    data = sent(clip("plain.mp4"), "-f", "yuv4mpegpipe")
    command = [*IDENTITY_COMMAND, "0", "-", "-o", str(tmp_path / "out.mkv"), "--preset", "ultrafast"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdin is not None
        running.stdin.write(data[: len(data) // 2])
        running.stdin.flush()
        seconds, until = 0.0, time.monotonic() + 60
        # It has begun, and then rests for half a second: all that came is done.
        while seconds < (seconds := _seconds_of(running.pid)) or not list(tmp_path.iterdir()):
            assert time.monotonic() < until
            time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 130
    assert 1 <= len(probe(tmp_path / "out.partial.mkv").times) <= 10


@pytest.mark.parametrize(
    ("arguments", "given", "reason"),
    [
        (["-", "-o", "-"], b"", "nothing that can be read"),
        (["-", "-o", "-"], b"neither video nor anything\n" * 99, "nothing that can be read"),
        (["-"], b"", "say where to write"),
        (["-", "-o", "-", "--raw", "96x64@25"], b"", "is not WxH:FORMAT@RATE"),
        (["-", "-o", "-", "--raw", "96x64:yuv999p@25"], b"", "no pixel format yuv999p"),
        (["-", "-o", "-", "--raw", "90000x90000:rgb24@25"], b"", "90000×90000"),
        (["{clip}", "-o", "out.mp4", "--raw-out", "rgb24"], b"", "goes with -o -"),
        (["{clip}", "{clip}", "-o", "-"], b"", "several inputs"),
        (["photo.png", "-o", "-"], b"", "only videos go to standard output"),
        (["{clip}", "-o", "-", "--compare", "side"], b"", "in a file"),
    ],
)
def test_mistakes_are_one_line_on_stderr(
    clip: MakeClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    given: bytes,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = clip("plain.mp4")
    ffmpeg("-i", source, "-frames:v", "1", tmp_path / "photo.png")
    if arguments == ["-"]:
        given = sent(source, "-f", "yuv4mpegpipe", "-frames:v", "1")
    done = pipe(*[argument.format(clip=source) for argument in arguments], given=given)
    assert done.status == 2 and done.sent == b""
    (line,) = set(done.err.splitlines())  # once for each input
    assert line.startswith("error: ") and reason in line
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
