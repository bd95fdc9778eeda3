"""Source and result beside each other: what lies where, times and sound, and the page in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.errors import InputError, UsageError
from measnet.runtime.comparison import (
    Comparison,
    Layout,
    check_page,
    compare_pictures,
    compare_videos,
    laid_out,
    write_page,
)
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Encoding, RunOptions
from measnet.runtime.sources.video import VideoFile

from .conftest import MakeClip, decode, ffmpeg, probe, restore_unchanged

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


def filled(value: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_side_has_both_whole_and_split_a_half_of_each() -> None:
    side = laid_out(filled(50), filled(200), "side")
    assert side.shape == (8, 24, 3)
    assert (side[:, :12] == 50).all() and (side[:, 12:] == 200).all()
    split = laid_out(filled(50), filled(200), "split")
    assert split.shape == (8, 12, 3)
    assert (split[:, :5] == 50).all() and (split[:, 5:7] == 255).all() and (split[:, 7:] == 200).all()


def test_pictures_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(InputError, match="12×8 and 6×8 pixels"):
        laid_out(filled(0), filled(0, width=6), "side")


def test_a_video_of_both_has_the_times_and_the_sound_of_the_source(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("uneven.mp4", "-vf", "select=not(eq(mod(n\\,5)\\,2))", "-fps_mode", "vfr")
    restored = tmp_path / "restored.mp4"
    restore_unchanged(source, restored, lambda pixels: 255 - pixels)
    seen: list[int] = []
    target = tmp_path / "both.mp4"
    assert compare_videos(
        VideoFile(source), restored, target, "side", Encoding(crf=4), on_progress=seen.append
    )
    before, after = probe(source), probe(target)
    assert after.times == before.times and after.copied == before.copied
    assert seen == list(range(1, len(before.times) + 1))
    both = decode(target).astype(int)
    assert both.shape[1:] == (64, 192, 3)
    left, right = both[:, :, :96], both[:, :, 96:]
    assert np.abs(left - decode(source)).mean() < 10  # another frame, or side: about 100
    assert np.abs(255 - left - right).mean() < 20


def test_frames_that_the_result_lacks_are_left_out(clip: MakeClip, tmp_path: Path) -> None:
    source = clip("plain.mp4")
    shorter = tmp_path / "shorter.mkv"
    ffmpeg("-i", source, "-t", "0.4", "-c:v", "libx264", "-c:a", "copy", shorter)
    target = tmp_path / "both.mp4"
    compare_videos(VideoFile(source), shorter, target, "split")
    assert len(probe(target).times) == 10


def test_a_turned_video_is_compared_the_way_it_is_shown(clip: MakeClip, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", clip("plain.mp4", audio=False), "-c", "copy", "-metadata:s:v", "rotate=90", turned)
    restored, target = tmp_path / "restored.mp4", tmp_path / "both.mp4"
    restore_unchanged(turned, restored)
    compare_videos(VideoFile(turned), restored, target, "side")
    both = probe(target)
    assert (both.video["width"], both.video["height"], both.rotation) == (128, 96, 0)


def test_a_stopped_comparison_leaves_nothing(clip: MakeClip, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    source = clip("plain.mp4")
    assert not compare_videos(VideoFile(source), source, tmp_path / "both.mp4", "split", stop=stop)
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_compared_as_a_viewer_shows_them(tmp_path: Path) -> None:
    source, restored, target = (tmp_path / f"{name}.png" for name in ("source", "restored", "both"))
    cv2.imwrite(str(source), filled(50))
    cv2.imwrite(str(restored), filled(200))
    compare_pictures(source, restored, target, "side")
    both = cv2.imread(str(target))
    assert both is not None and both.shape == (8, 24, 3)
    assert (both[:, :12] == 50).all() and (both[:, 12:] == 200).all()


def test_a_live_source_is_not_compared(tmp_path: Path) -> None:
    live = StreamInfo("camera:0", "live", 64, 48, Fraction(1, 25))
    with pytest.raises(UsageError, match="a live source is gone"):
        Comparison("camera:0", live, [tmp_path / "out.mp4"], RunOptions(compare="side"))


def test_a_page_is_refused_for_what_browsers_do_not_show() -> None:
    check_page(Path("a.mp4"), Path("b.PNG"))
    with pytest.raises(UsageError, match=r"\.avi files \(b\.avi\): use --compare side, or an --out"):
        check_page(Path("a.mp4"), Path("b.avi"))
    with pytest.raises(UsageError, match=r"\(a\.avi\): use --compare side$"):
        check_page(Path("a.avi"), Path("b.mp4"))


def test_names_in_a_page_are_text_and_not_code(tmp_path: Path) -> None:
    strange = tmp_path / "<img src=x onerror=alert(1)>\"'&.mp4"
    page = tmp_path / "page.html"
    write_page(strange, strange, page)
    text = page.read_text()
    assert "<img src=x" not in text and "%3Cimg%20src%3Dx" in text


def in_browser(page: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")
def test_a_browser_shows_the_source_left_of_the_slider_and_the_result_right(tmp_path: Path) -> None:
    sides = {}
    for name, colour in (("source", "red"), ("restored #2", "blue")):
        sides[name] = tmp_path / f"{name}.webm"
        ffmpeg("-f", "lavfi", "-i", f"color={colour}:s=320x240:r=10:d=0.5", "-c:v", "libvpx-vp9", sides[name])
    page = tmp_path / "page.html"
    write_page(sides["source"], sides["restored #2"], page, rate=10)
    picture = tmp_path / "seen.png"
    in_browser(page, "--window-size=320,400", "--virtual-time-budget=8000", f"--screenshot={picture}")
    seen = cv2.imread(str(picture))
    assert seen is not None
    blue, _, red = cv2.split(seen[60:180])
    assert red[:, 20:140].min() > 200 and blue[:, 20:140].max() < 60
    assert blue[:, 180:300].min() > 200 and red[:, 180:300].max() < 60
    (tmp_path / "restored #2.webm").unlink()
    said = in_browser(page, "--virtual-time-budget=8000", "--dump-dom")
    assert "This browser cannot show restored" in said and 'data-state="ready"' not in said


@pytest.mark.parametrize("layout", ["side", "split"])
def test_an_eight_bit_result_stands_beside_a_deeper_source_in_its_own_light(layout: Layout) -> None:
    source, restored = np.full((4, 20, 3), 20_000, np.uint16), np.full((4, 20, 3), 100, np.uint8)
    picture = laid_out(source, restored, layout)
    assert picture.dtype == np.uint16
    assert picture[0, 0, 0] == 20_000 and picture[0, -1, 0] == 100 * 257
    assert picture.max() == (65535 if layout == "split" else 100 * 257)
