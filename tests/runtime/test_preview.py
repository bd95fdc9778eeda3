"""``--preview``: source and result on the screen, and never in the result's way."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from measnet.runtime.frame import Frame, PictureFile, PictureMetadata, Restoration, StreamInfo
from measnet.runtime.preview import PER_SECOND, SHARE, Preview, ScreenSpace, shown
from measnet.runtime.terminal import Terminal, half_blocks

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
    """Draws lines of half blocks as a terminal of true colours would."""
    rows: list[list[tuple[int, ...]]] = []
    for line in text:
        colours: dict[str, tuple[int, ...]] = {"3": (0, 0, 0), "4": (0, 0, 0)}
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
    text = half_blocks(picture, "truecolor")
    assert (seen(text) == picture).all() and all(line.endswith("\x1b[0m") for line in text)
    odd = seen(half_blocks(picture[:5], "truecolor"))
    assert (odd[:5] == picture[:5]).all() and (odd[5] == 0).all()


def test_a_terminal_of_256_colours_gets_the_nearest_of_them() -> None:
    (line,) = half_blocks(
        np.array([[[255, 0, 0], [59, 57, 58]], [[94, 136, 250], [0, 0, 0]]], np.uint8), "256"
    )
    assert line == "\x1b[38;5;196m\x1b[48;5;69m▀\x1b[38;5;237m\x1b[48;5;16m▀\x1b[0m"


def test_the_source_is_left_and_the_result_right() -> None:
    source, restored = frame(noise(30, 40)), frame(noise(30, 40) // 2)
    both = shown(source, restored, info(), "side", ScreenSpace(1000, 1000))
    assert (both == np.concatenate([source.pixels, restored.pixels], axis=1)).all()
    split = shown(source, restored, info(), "split", ScreenSpace(1000, 1000))
    assert (split[:, :19] == source.pixels[:, :19]).all() and (split[:, 21:] == restored.pixels[:, 21:]).all()


def test_a_picture_fits_and_keeps_its_noise() -> None:
    deep = noise(400, 800, np.uint16)
    both = shown(frame(deep), frame(deep), info(), "side", ScreenSpace(100, 90))
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
    both = shown(frame(pixels, exif), frame(pixels, exif), info(**properties), "side", ScreenSpace(160, 90))
    assert both.shape[:2] == shape
    assert both[0, 19 if shape == (40, 40) else 0].max() == 255


class Screen:
    """Notes what it is shown, and takes its time by a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.pictures: list[Any] = []

    def room(self) -> ScreenSpace:
        return ScreenSpace(100, 100)

    def show(self, picture: Any) -> None:
        self.now += self.seconds
        self.pictures.append(picture)


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_it_keeps_to_its_share_of_the_time(seconds: float) -> None:
    screen = Screen(seconds)
    preview = Preview(cast(Terminal, screen), "side", lambda: screen.now)
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
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    written = b""
    try:
        while True:
            written += os.read(ours, 1 << 16)
    except OSError:  # nobody writes there any more
        os.close(ours)
    return running.wait(timeout=60), written.decode()


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
    status, written = on_a_terminal(tmp_path / "grey.png", "--preview")
    before, result, _ = written.rpartition("grey.restored.png")
    assert status == 0 and result
    left = before.rpartition("\x1b[2K")[2]  # all that came before is wiped out
    assert left.count("▀") == 8 * 40 and "\x1b[38;2;90;90;90m" in left


def test_where_nothing_can_be_shown_one_line_says_so(
    measnet_run: Run, clip: MakeClip, tmp_path: Path
) -> None:
    arguments = [clip("plain.mp4"), "--preset", "ultrafast", "-y", "-o", tmp_path / "out.mp4"]
    answer = measnet_run(*arguments, "--preview")
    assert answer.status == 0 and answer.err.count("\n") == 1
    assert "no preview: the output goes to no terminal; --console 8080 shows it" in answer.err
    assert measnet_run(*arguments, "--preview", "--quiet").err == ""
