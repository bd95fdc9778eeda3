"""Sequences: wherever they lie, frames are those that measnet-run restores, and few of them are in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from evaluation.small_sequences import moving, write_folder, write_lossless

from measnet.errors import InputError, UsageError
from measnet.evaluation.video.as_run import read_frames
from measnet.evaluation.video.degrade import parse_chain
from measnet.evaluation.video.sequences import Footage, SequenceFiles, find_sequences
from measnet.runtime.frame import Frame
from measnet.runtime.sources.video import VideoFile

ROOT = Path(__file__).parents[2]


def footage(place: SequenceFiles, folder: Path, chain: str = "", limit: int | None = None) -> Footage:
    return Footage(place, parse_chain(chain) if chain else (), seed=0, limit=limit, folder=folder)


def test_frames_are_those_that_measnet_run_restores() -> None:
    """PyAV's own conversion to RGB, which is none of measnet-run's, darkens this clip by one level."""
    path = ROOT / "examples" / "car-park.mp4"
    source = VideoFile(path)
    theirs = next(item.pixels for item in source.read() if isinstance(item, Frame))
    source.close()
    assert np.array_equal(next(read_frames(path)), theirs)


def test_a_file_a_folder_and_a_folder_of_folders_are_sequences(clips: Path, tmp_path: Path) -> None:
    file = write_lossless(tmp_path / "a.mkv", moving(2))
    assert find_sequences([file], []) == [SequenceFiles("a.mkv", file)]
    assert find_sequences([clips / "still"], []) == [SequenceFiles("still", clips / "still")]
    assert [place.name for place in find_sequences([clips], [])] == ["moving", "still"]
    both = find_sequences([clips, file], [])
    assert [place.name for place in both] == ["moving", "still", "a.mkv"]


def test_degraded_and_clean_sequences_are_paired_by_name(clips: Path, tmp_path: Path) -> None:
    for name in ("moving", "still"):
        write_folder(tmp_path / "noisy" / name, moving(5))
    found = find_sequences([tmp_path / "noisy"], [clips])
    assert [(p.name, p.clean) for p in found] == [(n, clips / n) for n in ("moving", "still")]
    assert found[0].degraded == tmp_path / "noisy" / "moving"
    lone = find_sequences([tmp_path / "noisy" / "still"], [clips / "moving"])
    assert lone == [SequenceFiles("still", clips / "moving", tmp_path / "noisy" / "still")]
    (tmp_path / "noisy" / "still").rename(tmp_path / "noisy" / "stil")
    with pytest.raises(InputError, match="the sequence stil is not both in"):
        find_sequences([tmp_path / "noisy"], [clips])
    with pytest.raises(UsageError, match="2 videos have 1 targets"):
        find_sequences([clips, clips], [clips])


def test_what_is_no_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_sequences([tmp_path / "gone"], [])
    with pytest.raises(InputError, match="neither frames nor folders of frames"):
        find_sequences([tmp_path], [])
    (tmp_path / "x.mp4").write_bytes(b"no video at all")
    with pytest.raises(InputError, match="not a video"):
        footage(SequenceFiles("x", tmp_path / "x.mp4"), tmp_path)


def test_names_like_cameras_and_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("camera:0", "12:30.mkv", "-"):
        write_lossless(tmp_path / "x.mkv", moving(2)).rename(tmp_path / name)
        assert len(list(read_frames(Path(name)))) == 2


def test_a_folder_and_a_file_of_the_same_frames_give_the_same_pairs(tmp_path: Path) -> None:
    frames = moving(4)
    places = [
        SequenceFiles("x", write_folder(tmp_path / "x", frames)),
        SequenceFiles("x", write_lossless(tmp_path / "x.mkv", frames)),
    ]
    found = [list(footage(place, tmp_path, "sensor:20").pairs()) for place in places]
    assert np.array_equal(found[0], found[1])
    assert [clean.tolist() for _, clean in found[0]] == [frame.tolist() for frame in frames]


def test_a_limit_takes_the_first_frames_of_both(tmp_path: Path) -> None:
    place = SequenceFiles(
        "x", write_folder(tmp_path / "x", moving(6)), write_folder(tmp_path / "y", moving(6))
    )
    one = footage(place, tmp_path, limit=4)
    assert one.frames == 4 and len(list(one.pairs())) == 4


def test_a_coder_gets_even_sides_and_the_clean_frames_are_cut_alike(tmp_path: Path) -> None:
    place = SequenceFiles("x", write_folder(tmp_path / "x", moving(3, height=51, width=67)))
    for degraded, clean in footage(place, tmp_path, "sensor:5,h264:20,noise:3").pairs():
        assert degraded.shape == clean.shape == (50, 66, 3)


def test_sequences_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    three, two = write_folder(tmp_path / "3", moving(3)), write_folder(tmp_path / "2", moving(2))
    wide = write_folder(tmp_path / "wide", moving(3, width=80))
    for clean, degraded in ((three, two), (two, three)):
        with pytest.raises(InputError, match=r"have not the same number of frames: \d and \d"):
            footage(SequenceFiles("x", clean, degraded), tmp_path)
    file = write_lossless(tmp_path / "3.mkv", moving(3))
    with pytest.raises(InputError, match="have not the same number of frames"):
        list(footage(SequenceFiles("x", two, file), tmp_path).pairs())
    with pytest.raises(InputError, match=r"64 x 48 pixels and .*80 x 48: not the same video"):
        list(footage(SequenceFiles("x", wide, three), tmp_path).pairs())


def test_frames_that_change_their_size_or_are_tiny_or_damaged_are_refused(tmp_path: Path) -> None:
    mixed = write_folder(tmp_path / "mixed", [*moving(2), *moving(1, width=80)])
    with pytest.raises(InputError, match="frame 2 has 80 x 48 pixels, those before it 64 x 48"):
        list(footage(SequenceFiles("x", mixed), tmp_path).clean())
    tiny = write_folder(tmp_path / "tiny", moving(2, height=16))
    with pytest.raises(InputError, match="64 x 16 pixels; a sequence needs 32 x 32"):
        list(footage(SequenceFiles("x", tiny), tmp_path).clean())
    (mixed / "001.png").write_bytes((mixed / "001.png").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be decoded, and a measure leaves none out"):
        list(footage(SequenceFiles("x", mixed), tmp_path).clean())


def test_few_frames_are_in_memory_however_long_a_sequence_is(tmp_path: Path) -> None:
    few, many = (write_folder(tmp_path / str(count), moving(count, height=128)) for count in (2, 60))
    assert sum(1 for _ in footage(SequenceFiles("x", few), tmp_path, "sensor:10").pairs()) == 2
    tracemalloc.start()  # now that all is imported
    try:
        assert sum(1 for _ in footage(SequenceFiles("x", many), tmp_path, "sensor:10").pairs()) == 60
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Noise is of doubles, eight times as large as bytes.
    assert peak < 30 * moving(1, height=128)[0].nbytes


def test_filters_get_the_planes_that_lie_in_a_coded_file(clips: Path, tmp_path: Path) -> None:
    place = SequenceFiles("x", clips / "moving")
    (tmp_path / "a").mkdir()
    (coded,) = {frame.format.name for frame in footage(place, tmp_path / "a", "sensor:9,h264:20").planes()}
    (other,) = {frame.format.name for frame in footage(place, tmp_path, "sensor:9").planes()}
    assert (coded, other) == ("yuv420p", "yuv444p")
    colours = SequenceFiles("x", clips / "moving", write_lossless(tmp_path / "x.mkv", moving(5)))
    assert {frame.format.name for frame in footage(colours, tmp_path).planes()} == {"yuv444p"}


@pytest.mark.parametrize(("chain", "intra"), [("", True), ("sensor:9", False), ("h264:30", False)])
def test_frames_are_fused_as_of_the_file_that_they_come_from(tmp_path: Path, chain: str, intra: bool) -> None:
    with av.open(tmp_path / "clip.avi", "w") as container:
        stream = container.add_stream("mjpeg", 25, width=64, height=48, pix_fmt="yuvj420p")
        for pixels in moving(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    assert footage(SequenceFiles("clip", tmp_path / "clip.avi"), tmp_path, chain).intra == intra
