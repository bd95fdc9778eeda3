"""Sound copied into AVI files is heard when it should be, by any player."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest

from measnet.errors import UsageError

from .conftest import MakeClip, probe, restore_unchanged

# What ffmpeg makes it with, and how long a packet is, in samples.
SOUNDS = {
    "aac": (["-c:a", "aac"], 1024),
    "ac3": (["-c:a", "ac3"], 1536),
    "mp2": (["-c:a", "mp2"], 1152),
    "mp3": (["-c:a", "libmp3lame", "-q:a", "5"], 1152),
    "adpcm_ima_wav": (["-c:a", "adpcm_ima_wav"], 2041),
    "adpcm_ms": (["-c:a", "adpcm_ms"], 2036),
    "adpcm_yamaha": (["-c:a", "adpcm_yamaha"], 2048),
}


def sound_header(path: Path) -> tuple[Fraction, int, int]:
    """Seconds that each of its counts lasts, how many there are, and the bytes of each; 0 if they vary."""
    data = path.read_bytes()
    start = data.index(b"auds", data.index(b"hdrl"))
    scale, rate, _, length, _, _, size = struct.unpack_from("<7I", data, start + 20)
    return Fraction(scale, rate), length, size


@pytest.mark.parametrize(
    ("codec", "rate", "direct"),
    [*((codec, 32_000, False) for codec in SOUNDS), ("aac", 44_100, True), ("adpcm_ms", 44_100, True)],
)
def test_sound_copied_from_one_avi_to_another_is_counted_as_it_was(
    clip: MakeClip, tmp_path: Path, codec: str, rate: int, direct: bool
) -> None:
    arguments, _ = SOUNDS[codec]
    source = clip("plain.avi", "-c:v", "mpeg4", "-ar", str(rate), *arguments)
    outcome = restore_unchanged(source, tmp_path / "out.avi", direct=direct)
    (step, *counts), (step_after, *counts_after) = map(sound_header, (source, tmp_path / "out.avi"))
    assert counts_after == counts
    assert abs(step_after / step - 1) < Fraction(1, 40_000)  # a second in eleven hours
    assert probe(tmp_path / "out.avi").copied == probe(source).copied
    assert outcome.warnings == []


@pytest.mark.parametrize("codec", SOUNDS)
def test_sound_copied_into_an_avi_from_elsewhere_is_counted_by_its_packets(
    clip: MakeClip, tmp_path: Path, codec: str
) -> None:
    arguments, samples = SOUNDS[codec]
    source = clip("plain.mkv", *arguments, "-ar", "44100")
    outcome = restore_unchanged(source, tmp_path / "out.avi")
    step, length, size = sound_header(tmp_path / "out.avi")
    assert abs(step / Fraction(samples, 44_100) - 1) < Fraction(1, 40_000)
    assert length == len(probe(tmp_path / "out.avi").copied) and bool(size) == codec.startswith("adpcm")
    assert not any("left out" in line for line in outcome.warnings)


@pytest.mark.parametrize("codec", ["eac3", "flac", "libvorbis"])
def test_sound_that_an_avi_would_play_out_of_time_is_refused_or_converted(
    clip: MakeClip, tmp_path: Path, codec: str
) -> None:
    source = clip("plain.mkv", "-c:a", codec, seconds=0.4)
    with pytest.raises(UsageError, match=r"\.avi files cannot hold .*\.mkv.*--sound convert"):
        restore_unchanged(source, tmp_path / "out.avi")
    restore_unchanged(source, tmp_path / "out.avi", sound="convert")
    assert abs(float(probe(tmp_path / "out.avi").format["duration"]) - 0.4) < 0.05
