"""``--preview``: source and result on the screen, and never in the result's way."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from measnet.runtime.frame import Frame, PictureFile, PictureMetadata, Restoration, StreamInfo
from measnet.runtime.preview import PER_SECOND, SHARE, Preview, Room, shown
from measnet.runtime.screens import lines

from .conftest import IDENTITY_COMMAND, Answer, MakeClip

Run = Callable[..., Answer]
COLOUR = re.compile(r"\x1b\[([34])8;2;(\d+);(\d+);(\d+)m")


def info(**properties: Any) -> StreamInfo:
    return StreamInfo("clip.mp4", "video", 0, 0, Fraction(1, 25), **properties)


def frame(pixels: Any, exif: bytes | None = None) -> Frame:
    picture = PictureFile(Path("a.jpg"), metadata=PictureMetadata(exif=exif)) if exif else None
    return Frame(np.asarray(pixels), 0, Fraction(1, 25), picture=picture)


def noise(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype)


def seen(text: list[str]) -> np.ndarray[Any, Any]:
    """What a terminal of true colours shows for lines of half blocks."""
    rows: list[list[tuple[int, ...]]] = []
    for line in text:
        colours = {"3": (0, 0, 0), "4": (0, 0, 0)}
        upper, lower = [], []
        for code, red, green, blue, block in re.findall(COLOUR.pattern + "|(▀)", line):
            if block:
                upper.append(colours["3"])
                lower.append(colours["4"])
            else:
                colours[code] = int(red), int(green), int(blue)
        rows += [upper, lower]
    return np.array(rows)


def test_half_blocks_show_every_pixel() -> None:
    picture = noise(6, 9)
    picture[2:4, 3:6] = 77
    text = lines(picture, "truecolor")
    assert (seen(text) == picture).all() and all(line.endswith("\x1b[0m") for line in text)
    odd = seen(lines(picture[:5], "truecolor"))
    assert (odd[:5] == picture[:5]).all() and (odd[5] == 0).all()


def test_a_terminal_of_256_colours_gets_the_nearest_of_them() -> None:
    (line,) = lines(np.array([[[255, 0, 0], [59, 57, 58]], [[94, 136, 250], [0, 0, 0]]], np.uint8), "256")
    assert line == "\x1b[38;5;196m\x1b[48;5;69m▀\x1b[38;5;237m\x1b[48;5;16m▀\x1b[0m"


def test_the_source_is_left_and_the_result_right() -> None:
    source, restored = frame(noise(30, 40)), frame(noise(30, 40) // 2)
    both = shown(source, restored, info(), "side", Room(1000, 1000))
    assert (both == np.concatenate([source.pixels, restored.pixels], axis=1)).all()
    split = shown(source, restored, info(), "split", Room(1000, 1000))
    assert (split[:, :19] == source.pixels[:, :19]).all() and (split[:, 21:] == restored.pixels[:, 21:]).all()


def test_a_picture_fits_and_keeps_its_noise() -> None:
    deep = noise(400, 800, np.uint16)
    both = shown(frame(deep), frame(deep), info(), "side", Room(100, 90))
    assert both.shape == (25, 100, 3) and both.dtype == np.uint8
    # Averaged, it would spread by no more than a tenth of this.
    assert both.std() > 0.9 * (deep / 257).std()


@pytest.mark.parametrize(
    ("properties", "exif", "shape"),
    [
        ({"sample_aspect": Fraction(2)}, None, (20, 160)),
        ({"display_matrix": (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)}, None, (40, 40)),
        ({}, b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", (40, 40)),
        ({}, b"MM\0*\0\0\0\x08\0\x01\x01\x12", (20, 80)),
    ],
    ids=["oblong pixels", "turned video", "turned photo", "broken EXIF"],
)
def test_it_is_shown_as_players_and_viewers_do(
    properties: dict[str, Any], exif: bytes | None, shape: tuple[int, int]
) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[0, 0] = 255  # stored top left; by a quarter turn clockwise it comes to the top right
    both = shown(frame(pixels, exif), frame(pixels, exif), info(**properties), "side", Room(160, 90))
    assert both.shape[:2] == shape
    assert both[0, 19 if shape == (40, 40) else 0].max() == 255


class Screen:
    """Notes what it is shown, and takes its time by a clock of its own."""

    open = True
    outlasts = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.pictures: list[Any] = []

    def room(self) -> Room:
        return Room(100, 100)

    def show(self, picture: Any) -> None:
        self.now += self.seconds
        self.pictures.append(picture)

    def attend(self) -> None:
        pass

    def close(self) -> None:
        self.open = False


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_it_keeps_to_its_share_of_the_time(seconds: float) -> None:
    screen = Screen(seconds)
    preview = Preview(screen, "side", lambda: screen.now)
    preview.begin(info())
    while screen.now < 60:
        preview.finished(Restoration(frame(noise(8, 8)), noise(8, 8)))
        preview.draw()
        screen.now += 0.01
    most = 60 * min(PER_SECOND, SHARE / seconds if seconds else PER_SECOND)
    assert 0.8 * most < len(screen.pictures) <= most + 1
    last = frame(np.full((8, 8, 3), 9, np.uint8))
    preview.finished(Restoration(last, last.pixels))
    preview.end()
    assert (screen.pictures[-1] == 9).all()
    stop = threading.Event()
    stop.set()
    preview.linger(stop)  # would wait for ever


def on_a_terminal(
    *words: str | Path, seconds: str = "0", rows: int = 24, columns: int = 80
) -> tuple[int, str]:
    """The exit status of ``measnet-run`` on a terminal, and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment.pop("DISPLAY", None)
    running = subprocess.Popen(
        [*IDENTITY_COMMAND, seconds, *map(str, words)],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=environment,
    )
    os.close(theirs)
    written = b""
    try:
        while True:
            written += os.read(ours, 1 << 16)
    except OSError:  # nobody writes there any more
        os.close(ours)
    return running.wait(timeout=20), written.decode()


def test_a_terminal_shows_both_and_the_result_is_the_same(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("plain.mp4")
    for name, options in (("with.mp4", ["--preview"]), ("without.mp4", [])):
        status, written = on_a_terminal(
            source, "-o", tmp_path / name, "--preset", "ultrafast", *options, seconds="0.02"
        )
        assert status == 0, written
        assert ("▀" in written) == bool(options)
        assert "/20  " in written and "input 1" not in written  # a bar, and none over all
    assert (tmp_path / "with.mp4").read_bytes() == (tmp_path / "without.mp4").read_bytes()


def test_the_last_picture_stays_on_the_terminal(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((16, 20, 3), 90, np.uint8))
    status, written = on_a_terminal(tmp_path / "grey.png", "--preview", "terminal")
    before, result, _ = written.rpartition("grey.restored.png")
    assert status == 0 and result
    left = before.rpartition("\x1b[2K")[2]  # all that came before is wiped out
    assert left.count("▀") == 8 * 40 and "\x1b[38;2;90;90;90m" in left


def test_where_nothing_can_be_shown_one_line_says_so(
    measnet_run: Run, clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    arguments = [clip("plain.mp4"), "--preset", "ultrafast", "-y", "-o", tmp_path / "out.mp4"]
    for where, why in (("window", "no preview: "), ("terminal", "the output goes to no terminal")):
        answer = measnet_run(*arguments, "--preview", where)
        assert answer.status == 0 and why in answer.err and answer.err.count("\n") == 1
    # Alone, it does not take what follows for its own.
    answer = measnet_run("--preview", *arguments)
    assert answer.status == 0 and "no terminal, and for a window" in answer.err
    assert measnet_run(*arguments, "--preview", "--quiet").err == ""


@pytest.fixture
def display(tmp_path: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """A display without a screen, and the file in which its picture is."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb to have windows on")
    ours, theirs = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "400x300x24", "-fbdir", str(tmp_path)],
        pass_fds=[theirs],
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    with os.fdopen(ours) as told:
        number = told.readline().strip()
    try:
        yield {**os.environ, "DISPLAY": f":{number}"}, tmp_path / "Xvfb_screen0"
    finally:
        server.terminate()
        server.wait()


def screenshot(file: Path) -> np.ndarray[Any, Any]:
    """H×W×3 RGB of an X window dump of 32 bits per pixel."""
    data = file.read_bytes()
    header = struct.unpack(">25I", data[:100])
    width, height, colours = header[4], header[5], header[19]
    start = header[0] + 12 * colours
    pixels = np.frombuffer(data, np.uint8, width * height * 4, start).reshape(height, width, 4)
    return pixels[:, :, 2::-1]


PERSON = """
import pathlib, sys, tkinter
seen, here = pathlib.Path(sys.argv.pop(1)), sys.argv.pop(1)
class Tk(tkinter.Tk):
    def __init__(self, **options):
        super().__init__(**options)
        self.after(50, self.press)
    def press(self):
        if not seen.exists():
            self.after(50, self.press)
            return
        self.focus_force()
        self.update()
        self.event_generate("<q>")
tkinter.Tk = Tk
sys.path.insert(0, here)
import identity_run
"""
"""``measnet-run`` in front of a person who presses q once there is a certain file."""


def test_a_window_shows_both_until_the_person_closes_it(
    display: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    environment, screen = display
    halves = np.full((60, 80, 3), (200, 60, 20), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), halves[:, :, ::-1])
    here = str(Path(__file__).parent)
    seen = tmp_path / "seen"
    person = [sys.executable, "-c", PERSON, str(seen), here, "0"]
    running = subprocess.Popen([*person, str(tmp_path / "photo.png"), "--preview", "window"], env=environment)
    for _ in range(400):
        if (screenshot(screen) == halves[0, 0]).all(axis=2).sum() == 2 * 60 * 80:
            break
        time.sleep(0.05)
    else:
        running.kill()
        pytest.fail("the window does not show both")
    assert running.poll() is None
    seen.touch()
    assert running.wait(timeout=20) == 0


def test_a_run_goes_on_when_its_window_is_closed(
    display: tuple[dict[str, str], Path], clip: MakeClip, tmp_path: Path
) -> None:
    environment, _ = display
    here = Path(__file__).parent
    person = [sys.executable, "-c", PERSON, str(here), str(here), "0.05"]
    arguments = [str(clip("plain.mp4")), "-o", str(tmp_path / "out.mp4"), "--preview", "window"]
    done = subprocess.run([*person, *arguments], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "20 frames" in done.stdout, done.stderr
    assert done.stderr == ""


def test_ctrl_c_ends_a_run_that_waits_with_its_window(
    display: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((16, 20, 3), np.uint8))
    running = subprocess.Popen(
        [*IDENTITY_COMMAND, "0", str(tmp_path / "photo.png"), "--preview"],
        env=display[0],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert "photo.restored.png" in running.stdout.readline()
    time.sleep(0.2)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 0
