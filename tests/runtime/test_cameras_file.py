"""A list of cameras: what is wrong in it is named at once, with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from measnet.runtime.serve.cameras import Camera, CamerasError, read_cameras
from measnet.runtime.serve.cli import main

from .cameras_file import write

EXAMPLE = Path(__file__).parents[2] / "examples" / "cameras.yaml"
WRONG = """\
all:
  strenght: 0.5
  temporal: 99
cameras:
  - name: door
    source: rtsp://viewer:secret@10.0.0.5/stream
    sinks: [/nowhere/door.mkv]
    modle: nano
    crf: excellent
    start: 10
  - name: door
    source: camera:0
    sinks: []
  - name: yard
    sinks: [yard.mkv, yard.mkv]
    source: rtsp://viewer:${NO_SUCH_PASSWORD}@10.0.0.5/stream
  - source: camera:0
    sinks: one.mkv
    tile: off
    tile: 512
  - just a word
"""


def test_everything_that_is_wrong_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text(WRONG)
    result = CliRunner().invoke(main, ["--dry-run", str(path)])
    assert result.exit_code == 2
    said = [line.removeprefix(f"error: {path}:") for line in result.stderr.splitlines()]
    assert said == [
        "2: all cameras: nothing is called 'strenght'; did you mean strength?",
        "3: all cameras: temporal: 99 is not a whole number from 0 to 64",
        "8: camera door: nothing is called 'modle'; did you mean model?",
        "9: camera door: crf: excellent is not a whole number from 0 to 63",
        "10: camera door: start is not for cameras",
        "11: two cameras are called door, see line 5 too",
        "13: camera door: sinks is empty; name at least one place for its picture",
        "16: camera yard: source: the environment has no NO_SUCH_PASSWORD",
        "17: camera number 4 has no name",
        "20: camera number 4: tile stands here twice",
        "21: camera number 5: this is to be a list of 'key: value' lines",
        "5: camera door: the folder /nowhere does not exist; create it or choose another --out",
    ]
    assert "secret" not in result.output


def test_what_the_machine_has_not_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.mkv").touch()
    listed = [
        {"name": "a", "source": "camera:0", "sinks": ["/nowhere/a.mkv"]},
        {"name": "b", "source": "tcp://127.0.0.1:1", "sinks": ["there.mkv"], "model": "absent.onnx"},
        {"name": "c", "source": "rstp://u:secret@10.0.0.5/stream", "sinks": ["c.mkv"]},
        {"name": "d", "source": "camera:front", "sinks": ["d.mkv"]},
        {"name": "e", "source": "srt://127.0.0.1:1?pass=secret", "sinks": ["srt://h:1?passphrase=secret"]},
    ]
    result = CliRunner().invoke(main, [str(write(tmp_path / "c.yaml", listed, preset="veryfast"))])
    assert result.exit_code == 2
    said = result.stderr.splitlines()
    assert len(said) == 7 and "secret" not in result.stderr
    assert "camera e: srt://127.0.0.1:1?pass=*** is not an address: srt:// takes" in said[5]
    assert "camera e: srt://h:1?passphrase=*** is not an address: passphrase is to have 10 to 79" in said[6]
    assert "camera c: rstp://***@10.0.0.5/stream: addresses begin with rtsp://" in said[3]
    assert "camera d: camera:front: a camera is named by its number" in said[4]
    assert "camera a: the folder /nowhere does not exist" in said[0]
    assert "camera b: the model 'absent.onnx' is neither" in said[1]
    assert "camera b: there.mkv exists already" in said[2]


WRONG_FOR_A_RUN = """\
all: {preset: ultrafast, overwrite: yes}
cameras:
  - {name: a, source: "rtsp://h:99999/x", sinks: [a.mkv], task: nonsense}
  - {name: b, source: "tcp://", sinks: [b.xyz, b.m3u8], tile: 3}
  - {name: c, source: "tcp://h:1", sinks: [c.mkv], pixel-format: rgb99}
  - {name: d, source: "tcp://h:2", sinks: ["http://x/y", "rtmp://", "udp://h:1?listen=1", "tcp://h"]}
  - {name: e, source: "tcp://h:3", sinks: [e.mkv], codec: nonsense, checkpoint: absent.ckpt}
  - {name: f, source: "tcp://h:4", sinks: [f.webm, f.m3u8], codec: h264, bits: 16, crf: 99}
  - {name: g, source: "tcp://h:4", sinks: [g.webm], codec: h264}
  - {name: h, source: "absent.mp4", sinks: [h.mkv], preset: hasty}
  - {name: i, source: "tcp://h:5", sinks: [i.mkv, i.m3u8, "rtmp://h/x", "-"]}
  - {name: j, source: "tcp://h:6", sinks: [/nowhere/j.mkv, k.mkv], bits: 16, preset: hasty, parts: 0}
  - {name: k, source: photo.jpg, sinks: [photo.png]}
"""


def test_check_refuses_all_that_a_run_would_refuse_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(WRONG_FOR_A_RUN)
    Path("photo.jpg").touch()
    result = CliRunner().invoke(main, ["--dry-run", "c.yaml"])
    assert result.exit_code == 2 and {str(path) for path in Path().iterdir()} == {"c.yaml", "photo.jpg"}
    said = [line.removeprefix("error: c.yaml:") for line in result.stderr.splitlines()]
    expected = [
        "8: camera f: crf: 99",
        "12: camera j: --parts 0",
        "3: camera a: rtsp://h:99999/x is not an address",
        "3: camera a: the weights of nano do not know the task 'nonsense'",
        "4: camera b: tcp:// is not an address: it names no machine",
        "4: camera b: tiles of 3 pixels are too small",
        "4: camera b: b.xyz: cannot tell what to write",
        "5: camera c: --pixel-format rgb99 is not known",
        "6: camera d: http://x/y is nothing that a result can be sent to",
        "6: camera d: rtmp:// is not an address",
        "6: camera d: udp://h:1?listen=1: receivers are called",
        "6: camera d: tcp://h is not an address: it has no port",
        "7: camera e: the checkpoint absent.ckpt",
        "7: camera e: --codec nonsense is not known",
        "8: camera f: .webm files cannot hold libx264",
        "8: camera f: libx264 takes no 16 bits here",
        "9: camera g: .webm files cannot hold libx264",
        "10: camera h: absent.mp4 does not exist",
        "10: camera h: --preset hasty is none of libx264",
        "12: camera j: the folder /nowhere does not exist",
        "12: camera j: --preset hasty is none of libx264",
        "12: camera j: libx265 takes no 16 bits here",
        "13: camera k: photo.jpg is no camera and no video; pictures are restored by: measnet-run photo.jpg",
        "13: camera k: photo.png",
    ]
    assert [line[: len(words)] for line, words in zip(said, expected, strict=True)] == expected


def test_options_that_would_do_nothing_are_refused_unless_another_camera_uses_them(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    path = tmp_path / "c.yaml"
    path.write_text(
        "all:\n  insecure: yes\n  reconnect: 5\n  ladder: no\n"
        "cameras:\n"
        f"  - {{name: a, source: {clip}, sinks: [{tmp_path}/a.mkv], ladder: no}}\n"
        f"  - {{name: b, source: 'rtsp://h/s', sinks: [{tmp_path}/b.mkv]}}\n"
        f"  - {{name: c, source: {clip}, sinks: [{tmp_path}/c.mkv], reconnect: 7, insecure: yes}}\n"
    )
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2
    assert [line.removeprefix(f"error: {path}:") for line in result.stderr.splitlines()] == [
        "4: all cameras: --no-ladder goes with --max-latency; leave it away, or add that",
        "6: camera a: --no-ladder goes with --max-latency; leave it away, or add that",
        "8: camera c: --insecure is for addresses; leave it away, or add that",
        "8: camera c: --reconnect is for cameras and streams; leave it away, or add that",
    ]


@pytest.mark.parametrize("report", ["c.yaml", "./a.mkv", "clip.mp4"])
def test_a_report_replaces_nothing_that_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_text("a clip")
    write(Path("c.yaml"), [{"name": "a", "source": "clip.mp4", "sinks": ["a.mkv"]}])
    before = {path: path.read_bytes() for path in Path().iterdir()}
    result = CliRunner().invoke(main, ["c.yaml", "--report", report])
    assert result.exit_code == 2 and re.search("give it a(nother)? name", result.stderr)
    assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.read_bytes() for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "/dev/video0", ["y.mkv"])],
            "a and b both read /dev/video0, which only",
        ),
        ([("a", "-", ["x.mkv"]), ("b", "-", ["y.mkv"])], "a and b both read -, which only"),
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "camera:0", ["y.mkv"])],
            "a and b both read camera:0, which only",
        ),
        (
            [("a", "camera:0", ["x.mkv"]), ("b", "camera:1", ["./x.mkv"])],
            r"a and b both write to \./x\.mkv$",
        ),
        (
            [("a", "camera:0", ["rtmp://h/l/key"]), ("b", "camera:1", ["rtmp://h/l/key"])],
            r"a and b both write to rtmp://h/l/\*\*\*$",
        ),
        ([("a", "camera:0", ["x.mkv", "x.mkv"])], r"a writes twice to x\.mkv$"),
        ([("a\nb", "camera:0", ["x.mkv"])], "a name is one line"),
        ([], "there are no cameras"),
    ],
)
def test_cameras_that_are_in_each_others_way_are_refused(
    cameras: list[tuple[str, str, list[str]]], message: str, tmp_path: Path
) -> None:
    listed = [dict(zip(("name", "source", "sinks"), one, strict=True)) for one in cameras]
    with pytest.raises(CamerasError, match=message) as caught:
        read_cameras(write(tmp_path / "c.yaml", listed))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2",
        "cameras: 5",
        "- a\n- b",
        "cameras:\n  - [1]\n",
        "\x00",
        "a: &a [*a]",
        "[" * 5000,
        "{" * 5000,
    ],
)
def test_what_is_no_list_of_cameras_ends_in_a_line_and_status_2(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {path}")
    assert "Traceback" not in result.output


def test_options_are_those_of_measnet_run_and_a_cameras_own_go_before_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "p:w")
    path = tmp_path / "c.yaml"
    path.write_text(
        "all: {tile: off, strength: 0.5, bits: 8}\n"
        "cameras: [{name: a, source: 'rtsp://u:${PASSWORD}@h/s', sinks: a.mkv, strength: 1, on-fault: stop}]"
    )
    (camera,) = read_cameras(path)
    assert camera.source == "rtsp://u:p:w@h/s" and camera.sinks == ("a.mkv",)
    options = camera.options
    assert (options.engine.tile, options.strength, options.encoding.bits) == ("off", 1.0, 8)
    assert options.checks.on_fault == "stop"


def test_a_key_is_named_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "all:\n  on-fualt: stop\n  on_fault: maybe\n  max-latency: [1]\n  raw-out: rgb24\n"
        "cameras: [{name: a, source: 'tcp://h:1', sinks: a.mkv, pixel-format: a, pixel_format: b}]"
    )
    with pytest.raises(CamerasError) as caught:
        read_cameras(path)
    assert [line.partition(": ")[2] for line in caught.value.problems] == [
        "all cameras: nothing is called 'on-fualt'; did you mean on-fault?",
        "all cameras: on_fault: 'maybe' is not one of 'fallback', 'stop', 'ignore'.",
        "all cameras: max-latency needs one value",
        "all cameras: raw-out is not for cameras",
        "camera a: pixel_format stands here twice",
    ]


def test_the_example_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--dry-run", str(EXAMPLE)])
    assert result.exit_code == 0, result.output
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "door",
        "yard",
        "gate",
        "street",
    ]
    assert result.stdout.startswith("door: tcp://127.0.0.1:5001 by nano to door.mkv\n")
    assert all(isinstance(camera, Camera) for camera in read_cameras(EXAMPLE))


@pytest.mark.parametrize(
    ("report", "words"), [("cameras.yaml", "is what is read"), ("none/run.json", "does not exist")]
)
def test_a_report_without_a_place_is_said_with_all_else_that_is_wrong(
    report: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "cameras.yaml"
    path.write_text("cameras:\n  - {name: a, source: 'tcp://bob:s3cret@h:1', sinks: [none/a.mkv]}\n")
    result = CliRunner().invoke(main, ["--dry-run", str(path), "--report", str(tmp_path / report)])
    said = [" ".join(line.split()) for line in result.stderr.splitlines()]
    assert result.exit_code == 2 and len(said) == 2, result.output
    assert "camera a" in said[0] and said[1].startswith("error: ") and words in said[1]
    assert "s3cret" not in result.output
