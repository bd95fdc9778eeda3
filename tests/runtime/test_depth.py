"""More than 8 bits stay more than 8 bits, and what HDR says about itself stays said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from measnet.runtime.colour import Chroma, RgbReader, YuvWriter
from measnet.runtime.frame import Colour, ContentLight, Hdr, MasteringDisplay
from measnet.runtime.side_data import WORDINGS, encoder_parameters, read_hdr
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sources.video import VideoFile

from . import started_once
from .conftest import Answer, MakeClip, probe, restore_unchanged

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[..., Answer]

MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""H.273's code points and the weights of red and blue."""

X265 = ["-c:v", "libx265", "-x265-params"]
HDR10 = (
    "log-level=error:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
)
HDR10_TAGS = ["-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", "smpte2084"]


def soft_picture(height: int = 48, width: int = 96) -> Array:
    """RGB, 0.02 to 0.98, in slow waves: 4:2:0 loses nothing of it."""
    y, x = np.mgrid[:height, :width] / 96
    waves = [x + y / 2, 1.5 * x - y, y - x / 2]
    return 0.5 + 0.48 * np.sin(2 * np.pi * np.stack(waves, -1))


def blocks(height: int = 48, width: int = 96) -> Array:
    """RGB, 0 to 1, in blocks of 8 by 8: black, white, the pure colours, and some between."""
    corners = np.random.default_rng(3).random((height // 8, width // 8, 3))
    corners[0, :8] = list(itertools.product((0, 1), repeat=3))
    return np.kron(corners, np.ones((8, 8, 1)))


def codes(rgb: Array, matrix: int, *, full: bool, bits: int) -> Array:
    """Y, Cb and Cr of RGB by the equations of H.273, rounded: H W 3."""
    red, blue = MATRICES[matrix]
    luma = rgb @ [red, 1 - red - blue, blue]
    to_blue = (rgb[..., 2] - luma) / (2 * (1 - blue))
    to_red = (rgb[..., 0] - luma) / (2 * (1 - red))
    step, top = 2 ** (bits - 8), 2**bits - 1
    spans, offset = ((top, top), 0) if full else ((219 * step, 224 * step), 16 * step)
    exact = [luma * spans[0] + offset, to_blue * spans[1] + 128 * step, to_red * spans[1] + 128 * step]
    return np.clip(np.rint(np.stack(exact, -1)), 0, top)


def colours(yuv: Array, matrix: int, *, full: bool, bits: int) -> Array:
    """The equations the other way round, not rounded: RGB, 0 to 1."""
    red, blue = MATRICES[matrix]
    step, top = 2 ** (bits - 8), 2**bits - 1
    spans, offset = ((top, top), 0) if full else ((219 * step, 224 * step), 16 * step)
    luma = (yuv[..., 0] - offset) / spans[0]
    r = luma + 2 * (1 - red) * (yuv[..., 2] - 128 * step) / spans[1]
    b = luma + 2 * (1 - blue) * (yuv[..., 1] - 128 * step) / spans[1]
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], -1), 0, 1)


def frame_of(yuv: Array, chroma: Chroma, bits: int) -> av.VideoFrame:
    """Chroma is the mean of the pixels it is for where the format has fewer samples: it lies between them."""
    frame = av.VideoFrame(yuv.shape[1], yuv.shape[0], f"yuv{chroma}p{bits}le")
    rows, columns = 2 if chroma == "420" else 1, 1 if chroma == "444" else 2
    cells = yuv.reshape(yuv.shape[0] // rows, rows, yuv.shape[1] // columns, columns, 3)
    fewer = np.rint(cells.mean((1, 3)))
    planes = [yuv[..., 0], fewer[..., 1], fewer[..., 2]]
    for plane, values in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size // 2), "<u2")
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    return frame


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.fixture
def hdr_clip(clip: MakeClip) -> Path:
    """PQ with a mastering display and content light level, 5 frames of 10 bits."""
    options = ["-pix_fmt", "yuv420p10le", *HDR10_TAGS, "-color_range", "tv", *X265, HDR10]
    return clip("hdr.mp4", *options, audio=False, seconds=0.2)


def write_lossless(path: Path, frame: av.VideoFrame) -> None:
    """One frame, as FFV1 stores it: exactly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
        context.color_range = 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def side_data(path: Path) -> dict[str, Any]:
    """Reads the first frame's side data from ffprobe, by name, without the encoder's own."""
    command = ["ffprobe", "-v", "quiet", "-of", "json", "-show_frames", "-select_streams", "v"]
    done = started_once.run(*command, str(path))
    found = json.loads(done.stdout)["frames"][0]["side_data_list"]
    return {data.pop("side_data_type"): data for data in found if len(data) > 1}


def planes_of(frame: av.VideoFrame) -> list[Array]:
    """The code values of each plane of a frame of more than 8 bits."""
    return [
        np.frombuffer(bytes(plane), "<u2").reshape(plane.height, -1)[:, : plane.width].astype(int)
        for plane in frame.planes
    ]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("bits", [10, 12])
def test_what_is_read_is_what_the_equations_give(matrix: int, full: bool, bits: int) -> None:
    yuv = codes(blocks(), matrix, full=full, bits=bits)
    reader = RgbReader(Colour(matrix=matrix, range=1 + full), 96, 48)
    pixels = reader.read(frame_of(yuv, "444", bits))
    assert pixels.dtype == np.uint16
    off = pixels / 65535 - colours(yuv, matrix, full=full, bits=bits)
    code = 2.0**-bits
    assert np.abs(off).max() < (0.1 if bits == 10 else 0.3) * code
    assert np.abs(off.mean((0, 1))).max() < 0.1 * code


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("chroma", "bits"), [("444", 10), ("444", 12), ("422", 10), ("420", 10)])
def test_code_values_come_back(matrix: int, full: bool, chroma: Chroma, bits: int) -> None:
    colour = Colour(matrix=matrix, range=1 + full)
    before = frame_of(codes(soft_picture(), matrix, full=full, bits=bits), chroma, bits)
    pixels = RgbReader(colour, 96, 48).read(before)
    after = YuvWriter(colour, 96, 48, chroma, "centre", bits).write(pixels)
    for was, became in zip(planes_of(before), planes_of(after), strict=True):
        off = np.abs(was - became)
        if chroma == "444":
            assert off.max() == 0
        else:
            # At the border there is nothing beyond to tell how a slope goes on.
            assert off[2:-2, 2:-2].max() <= 1
            assert off.mean() < 0.3


@pytest.mark.parametrize(
    ("chroma", "bits", "codec", "stays"),
    [
        ("420", 10, None, "yuv420p10le"),
        ("422", 10, None, "yuv422p10le"),
        ("444", 10, None, "yuv444p10le"),
        ("420", 12, None, "yuv420p12le"),
        ("444", 16, None, "yuv444p12le"),
        ("422", 10, "h264", "yuv422p10le"),
        ("444", 12, "h264", "yuv444p10le"),
        ("420", 10, "av1", "yuv420p10le"),
    ],
)
def test_a_deep_video_stays_deep(
    tmp_path: Path, chroma: Chroma, bits: int, codec: str | None, stays: str
) -> None:
    # Three greys, of code values that 8 bits have not.
    yuv = np.full((64, 96, 3), 2 ** (bits - 1))
    yuv[..., 0] = np.repeat([202, 403, 605], 32) * 2 ** (bits - 10)
    source = tmp_path / "in.mkv"
    write_lossless(source, frame_of(yuv, chroma, bits))
    preset = "12" if codec == "av1" else "ultrafast"
    outcome = restore_unchanged(source, tmp_path / "out.mkv", codec=codec, crf=2, preset=preset)
    (was,), (became, *_) = decoded(source), decoded(tmp_path / "out.mkv")
    assert became.format.name == stays
    written = int(stays.removesuffix("le")[-2:])
    off = planes_of(became)[0] - planes_of(was)[0] * 2.0 ** (written - bits)
    for stripe in (off[:, 4:28], off[:, 36:60], off[:, 68:92]):
        assert abs(stripe.mean()) < 0.5 * 2 ** (written - 10)
    assert any(f"written in {written} bits" in line for line in outcome.warnings) == (written < bits)


def test_a_clip_of_ten_bits_keeps_its_range_tag_and_its_times(clip: MakeClip, tmp_path: Path) -> None:
    options = ["-pix_fmt", "yuv420p10le", "-color_range", "tv", *X265, "log-level=error:range=limited"]
    source = clip("ten.mp4", *options, seconds=0.3)
    outcome = restore_unchanged(source, tmp_path / "out.mp4")
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert before.tags() == after.tags() == ("unknown", "unknown", "unknown", "tv")
    assert after.video["profile"] == "Main 10" and after.video["codec_tag_string"] == "hvc1"
    assert after.times == before.times and after.copied == before.copied
    assert outcome.warnings == []


def test_a_codec_of_eight_bits_is_said(hdr_clip: Path, tmp_path: Path) -> None:
    outcome = restore_unchanged(hdr_clip, tmp_path / "out.webm", preset="8")
    assert probe(tmp_path / "out.webm").video["pix_fmt"] == "yuv420p"
    assert probe(tmp_path / "out.webm").tags() == probe(hdr_clip).tags()
    assert any("written in 8 bits" in line and "--codec av1" in line for line in outcome.warnings)
    assert any("mastering display" in line for line in outcome.warnings)


def test_bits_are_as_asked_for(clip: MakeClip, hdr_clip: Path, tmp_path: Path, measnet_run: Run) -> None:
    plain = clip("plain.mp4")
    fast = ["--preset", "ultrafast", "-o"]
    assert measnet_run(plain, "--bits", 10, *fast, tmp_path / "up.mp4").status == 0
    assert probe(tmp_path / "up.mp4").video["pix_fmt"] == "yuv420p10le"
    assert measnet_run(hdr_clip, "--bits", 8, *fast, tmp_path / "down.mp4").status == 0
    assert probe(tmp_path / "down.mp4").video["pix_fmt"] == "yuv420p"
    assert probe(tmp_path / "down.mp4").video["codec_name"] == "h264"
    refused = measnet_run(plain, "--bits", 10, "--codec", "vp9", "-o", tmp_path / "no.mkv")
    assert refused.status == 2 and "libvpx-vp9 takes no 10 bits" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down.mp4", "up.mp4"]


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_keeps_its_tags_and_its_treatment_is_said(clip: MakeClip, tmp_path: Path, transfer: str) -> None:
    tags = [*HDR10_TAGS[:-1], transfer, "-color_range", "tv"]
    source = clip("h.mov", "-pix_fmt", "yuv420p10le", *tags, *X265, "log-level=error", seconds=0.2)
    outcome = restore_unchanged(source, tmp_path / "out.mov")
    assert probe(source).tags() == ("bt2020nc", "bt2020", transfer, "tv")
    assert probe(tmp_path / "out.mov").tags() == probe(source).tags()
    assert len(outcome.warnings) == 1 and "trained on SDR" in outcome.warnings[0]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_what_hdr_says_of_its_display_is_what_ffprobe_reads_again(
    hdr_clip: Path, tmp_path: Path, ending: str
) -> None:
    restore_unchanged(hdr_clip, tmp_path / f"out.{ending}")
    before, after = side_data(hdr_clip), side_data(tmp_path / f"out.{ending}")
    assert before == after
    assert before["Mastering display metadata"]["max_luminance"] == "10000000/10000"
    assert before["Content light level metadata"] == {"max_content": 1000, "max_average": 400}


def test_a_display_that_ffmpeg_doubts_is_passed_on_as_it_is(clip: MakeClip, tmp_path: Path) -> None:
    # A phone wrote 0.1 cd/m² as the most: too little for ST 2086, so that FFmpeg marks it as not known.
    doubtful = HDR10.replace("L(10000000,50)", "L(1000,50)")
    options = ["-pix_fmt", "yuv420p10le", *HDR10_TAGS, "-color_range", "tv", *X265, doubtful]
    source = clip("doubtful.mp4", *options, audio=False, seconds=0.2)
    restore_unchanged(source, tmp_path / "out.mp4")
    assert side_data(source)["Mastering display metadata"]["max_luminance"] == "1000/10000"
    assert side_data(tmp_path / "out.mp4") == side_data(source)


@pytest.mark.parametrize(("codec", "close"), [("h264", 0.0), ("av1", 1e-4)])
def test_other_codecs_say_it_too(hdr_clip: Path, tmp_path: Path, codec: str, close: float) -> None:
    preset = "12" if codec == "av1" else "ultrafast"
    restore_unchanged(hdr_clip, tmp_path / "out.mp4", codec=codec, preset=preset)
    before, after = (read_hdr(decoded(path)[0]) for path in (hdr_clip, tmp_path / "out.mp4"))
    assert before.display is not None and after.display is not None
    assert before.light == after.light == ContentLight(1000, 400)
    for colour in ("red", "green", "blue", "white"):
        assert getattr(after.display, colour) == pytest.approx(getattr(before.display, colour), abs=close)
    assert after.display.brightest == before.display.brightest == 1000
    assert after.display.darkest == pytest.approx(before.display.darkest, abs=close)


def test_an_encoder_is_told_in_its_own_words() -> None:
    third = Fraction(1, 3)
    place = (third, third)
    display = MasteringDisplay(place, (Fraction(0), Fraction(2)), place, place, third, third)
    hdr = Hdr(display, ContentLight(7, 5))
    places = "G(0,65535)B(16667,16667)R(16667,16667)WP(16667,16667)L(3333,3333)"
    assert encoder_parameters(hdr, WORDINGS["libx265"]) == [f"master-display={places}", "max-cll=7,5"]
    assert encoder_parameters(Hdr(), WORDINGS["libx264"]) == []


def test_what_changes_with_every_frame_is_said_to_be_lost(
    hdr_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = VideoFile(hdr_clip)
    video.close()
    info = replace(video.info, hdr=replace(video.info.hdr, dynamic=("HDR10+",)))
    sink = VideoSink(tmp_path / "out.mp4", info)
    sink.abort()
    assert sink.warnings == ["not carried over: HDR10+"]
