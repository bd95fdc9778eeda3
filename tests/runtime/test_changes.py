"""Streams whose size, colours or pixel shape change midway: pictures look as before, or a line says so."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from measnet.runtime.colour import RgbReader, read_colour

from .conftest import ffmpeg, restore_unchanged

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")


@pytest.mark.parametrize("direct", [False, True], ids=["in segments", "direct"])
@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("colormatrix=bt709", "coding of its colours changes on the way, from matrix 6 to 1 at 0.40 s"),
        ("fullrange=on", "coding of its colours changes on the way, from limited to full range at 0.40 s"),
        (
            "colorprim=bt709:transfer=bt709",
            "from primaries 6 to 1 and transfer 6 to 1 at 0.40 s: 4 frames are",
        ),
    ],
)
def test_colours_that_are_coded_otherwise_on_the_way_stay_the_same_and_it_is_said(
    tmp_path: Path, tags: str, said: str, direct: bool
) -> None:
    first = "colormatrix=smpte170m:colorprim=smpte170m:transfer=smpte170m:fullrange=off"
    matrix = "bt709" if "matrix" in tags else "bt601"
    signal = "full" if "range" in tags else "limited"
    parts = []
    for start, how, says in (
        (0, "out_color_matrix=bt601:out_range=limited", first),
        (0.4, f"out_color_matrix={matrix}:out_range={signal}", f"{first}:{tags}"),
    ):
        part = tmp_path / f"{start}.ts"
        picture = ["-f", "lavfi", "-i", "color=c=0xbd2c1e:s=96x64:r=10:d=0.4"]
        coded = ["-vf", f"scale={how}", *H264, "-qp", "1"]
        ffmpeg(*picture, *coded, "-x264-params", says, "-output_ts_offset", start, part)
        parts.append(part.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    outcome = restore_unchanged(tmp_path / "a.ts", tmp_path / "out.mkv", crf=1, direct=direct)
    with av.open(str(tmp_path / "out.mkv")) as result:
        frames = list(result.decode(video=0))
    assert len({(frame.colorspace, frame.color_range, frame.color_primaries) for frame in frames}) == 1
    reader = RgbReader(read_colour(frames[0]), 96, 64)
    for frame in frames:
        assert np.abs(reader.read(frame)[32, 48].astype(int) - (0xBD, 0x2C, 0x1E)).max() <= 3
    (line,) = outcome.warnings
    assert said in line and "4 frames" in line


def test_pixels_that_change_their_shape_on_the_way_are_said(tmp_path: Path) -> None:
    for start, shape in ((0, "1/1"), (1, "4/3")):
        picture = ["-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d=1,setsar={shape}"]
        ffmpeg(*picture, *H264, "-output_ts_offset", start, tmp_path / f"{start}.ts")
    (tmp_path / "a.ts").write_bytes(b"".join((tmp_path / f"{n}.ts").read_bytes() for n in (0, 1)))
    (line,) = restore_unchanged(tmp_path / "a.ts", tmp_path / "out.mkv").warnings
    assert "pixels change their shape on the way, from 1:1 to 4:3 at" in line and "first shape" in line
