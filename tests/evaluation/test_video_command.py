"""``measnet-eval --video``: figures alone and fused, as a table, a report and a picture."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from evaluation.small_sequences import moving, write_folder, write_lossless

from measnet.evaluation import cli
from measnet.evaluation.panels import GAP, LINE
from measnet.evaluation.video.figures import DEGRADED, MethodFigures, SequenceFigures, VideoFigures
from measnet.evaluation.video.measure import CLEAN
from measnet.evaluation.video.sheet import SIDE, ZOOM, VideoSheet

ALONE, FUSED = "nano, each frame alone", "nano, fused"


def evaluate(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def rows(text: str, begin: str) -> list[list[str]]:
    return [
        [field.strip() for field in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {begin}")
    ]


def report_of(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_a_folder_of_sequences_is_measured_alone_and_fused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = list[str](), ort.InferenceSession

    def session(path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", session)
    done = evaluate(
        *("--video", clips, "--degrade", "sensor:18,h264:26", "--limit", 4, "--threads", 1),
        *("--report", tmp_path / "x.json", "--contact-sheet", tmp_path / "x.png"),
    )
    assert done.exit_code == 0, done.output
    assert [Path(path).name for path in opened] == ["nano.steerable.onnx"]  # frames are held steady: no other
    assert "Video: degraded by sensor:18, then h264:26; whole frames" in done.output
    assert "Video: 2 sequences of 4 frames, 64×48" in done.output
    for method in (DEGRADED, ALONE, FUSED):
        assert len(rows(done.output, f"{method} ")) == 1
    assert rows(done.output, "moving") and rows(done.output, "still")

    video = report_of(tmp_path / "x.json")["video"]
    assert video["degrade"] == ["sensor:18", "h264:26"] and video["temporal"] == 12
    assert list(video["methods"]) == [DEGRADED, ALONE, FUSED]
    still = video["sequences"][1]
    assert (still["name"], still["frames"], still["width"], still["height"]) == ("still", 4, 64, 48)
    assert still["clean_warping_steps"] == pytest.approx(0, abs=1e-3)
    of_fused = still["methods"][FUSED]
    assert len(of_fused["per_frame"]["psnr_db"]) == 4
    assert of_fused["psnr_db"] == pytest.approx(np.mean(of_fused["per_frame"]["psnr_db"]))
    assert of_fused["worst_frame"]["number"] in range(4)
    assert still["methods"][ALONE]["worst_frame"] is None
    assert video["methods"][FUSED]["fps"] > 0 and video["methods"][DEGRADED]["fps"] is None
    sheet = cv2.imread(str(tmp_path / "x.png"))
    assert sheet is not None and sheet.shape[1] == 4 * ZOOM * SIDE + 3 * GAP  # nano twice, degraded, clean


def test_noise_on_a_scene_that_stands_is_measured_as_fusing_mends_it(tmp_path: Path) -> None:
    clean = write_folder(tmp_path / "still", moving(8, step=0, height=96, width=128))
    done = evaluate("--video", clean, "--degrade", "sensor:20", "--report", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    (still,) = report_of(tmp_path / "x.json")["video"]["sequences"]
    alone, fused = (still["methods"][name] for name in (ALONE, FUSED))
    assert fused["psnr_db"] > alone["psnr_db"]
    assert fused["warping_steps"] < alone["warping_steps"] < still["methods"][DEGRADED]["warping_steps"]


def test_without_fusing_each_frame_alone_is_all_there_is(clips: Path, tmp_path: Path) -> None:
    words = ("--video", clips / "moving", "--degrade", "noise:25", "--limit", 2, "--temporal", 0)
    done = evaluate(*words, "--report", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    assert "each frame alone; seed 0" in done.output and "fused" not in done.output
    assert list(report_of(tmp_path / "x.json")["video"]["methods"]) == [DEGRADED, ALONE]


def test_a_degraded_video_is_held_against_its_clean_one(tmp_path: Path) -> None:
    clean = moving(3)
    dark = [frame // 2 for frame in clean]
    places = write_lossless(tmp_path / "dark.mkv", dark), write_folder(tmp_path / "clean", clean)
    done = evaluate("--video", places[0], "--video-target", places[1], "--report", tmp_path / "x.json")
    assert done.exit_code == 0, done.output
    video = report_of(tmp_path / "x.json")["video"]
    error = np.mean([np.square(a.astype(float) - b).mean() for a, b in zip(dark, clean, strict=True)])
    expected = 10 * np.log10(255**2 / error)
    assert video["degrade"] == []
    assert video["methods"][DEGRADED]["psnr_db"] == pytest.approx(expected, abs=0.05)


def test_two_models_and_pictures_go_into_one_run(clips: Path, tmp_path: Path) -> None:
    done = evaluate(
        *("--clean", clips / "still", "--sigma", 25, "--limit", 2, "--against", "nano"),
        *("--video", clips / "moving", "--degrade", "noise:25", "--report", tmp_path / "x.json"),
    )
    assert done.exit_code == 0, done.output
    report = report_of(tmp_path / "x.json")
    assert [one["name"] for one in report["sets"]] == ["still"]
    methods = report["video"]["methods"]
    assert [name for name in methods if name != DEGRADED] == [
        f"{letter} nano, {how}" for letter in "AB" for how in ("each frame alone", "fused")
    ]
    assert methods["A nano, fused"]["psnr_db"] == methods["B nano, fused"]["psnr_db"]


def test_the_tools_of_video_stand_in_the_same_table(clips: Path, tmp_path: Path) -> None:
    done = evaluate(
        *("--video", clips / "moving", "--degrade", "sensor:15,h264:22", "--limit", 2, "--classical"),
        *("--threads", 1, "--report", tmp_path / "x.json", "--contact-sheet", tmp_path / "x.jpg"),
    )
    assert done.exit_code == 0, done.output
    video = report_of(tmp_path / "x.json")["video"]
    assert {"nlmeans", "atadenoise", "bm3d"} <= set(video["settings_tried"])
    for tried in video["settings_tried"].values():
        best = max(tried, key=lambda one: one["gain_db"])["setting"]
        assert len(rows(done.output, f"{best} ")) == 1
        assert video["methods"][best]["core_seconds_per_frame"] is not None


def test_a_set_of_another_task_is_left_out(clips: Path) -> None:
    words = ("--video", clips / "moving", "--degrade", "noise:25", "--limit", 1)
    refused = evaluate(*words, "--tasks", "derain")
    assert refused.exit_code == 2 and "no set was given for derain" in refused.output
    done = evaluate(*words, "--tasks", "denoise")
    assert done.exit_code == 0, done.output


def test_the_sheet_shows_a_still_and_a_row_over_time() -> None:
    clean = moving(12, height=160, width=156)
    sheet = VideoSheet()
    for frame in clean:
        sheet.add(0, {DEGRADED: frame // 2, CLEAN: frame})
    figures = MethodFigures((), None, None, None)
    one = SequenceFigures("x", (156, 160), None, {DEGRADED: figures})
    drawn = sheet.draw(VideoFigures([with_frames(one, len(clean))]))
    panel, gap = ZOOM * SIDE, GAP
    assert drawn.shape[1] == 2 * panel + gap
    over_time = drawn[2 * LINE + panel + gap :, :panel]
    times = round(200 / 12)
    lines = over_time[: 12 * times : times, ::ZOOM]
    inner = slice(4, SIDE - 4)  # the still's line has marks at its ends
    assert (lines[:, 0] == (255, 0, 0)).all(axis=1).sum() == 1
    matches = [
        any(np.array_equal(row[x:][inner], line[inner]) for row in frame // 2 for x in range(156 - SIDE + 1))
        for frame, line in zip(clean, lines, strict=True)
    ]
    assert all(matches)


def test_the_still_has_frames_before_it_and_is_the_same_for_all() -> None:
    clean = [np.full((40, 40, 3), 100, np.uint8) for _ in range(9)]
    for number, contrast in ((2, 90), (6, 50)):  # the first has too few frames before it
        clean[number][:, 20:] += np.uint8(contrast)
    sheet = VideoSheet()
    for frame in clean:
        sheet.add(0, {DEGRADED: frame, CLEAN: frame})
    for frame in clean:  # a later pass, of a tool
        sheet.add(0, {"nlmeans": frame + np.uint8(3)})
    stills = sheet._stills[0]
    assert [stills[name].still_number for name in (DEGRADED, CLEAN, "nlmeans")] == [6, 6, 6]


def with_frames(one: SequenceFigures, count: int) -> SequenceFigures:
    from measnet.evaluation.measure import Quality

    figures = MethodFigures((Quality(20, 0.5),) * count, None, None, None)
    return SequenceFigures(one.name, one.size, None, dict.fromkeys(one.methods, figures))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--video still", "--video needs the clean one too: --video-target CLEAN"),
        ("--video gone --degrade noise:5", "the video gone does not exist"),
        ("--video still --degrade snow:5", "there is no degradation 'snow'; there are noise:SIGMA"),
        ("--video still --video-target moving --degrade noise:5", "--degrade makes a clean --video degraded"),
        ("--clean still --degrade noise:5", "--degrade goes with --video"),
        ("--clean still --video-target still", "--video-target goes with --video"),
        ("--video still --degrade noise:5 --video-task snow", "there is no task 'snow'"),
        ("--video still --degrade noise:5 --contact-sheet still/sheet.png", "is a file of still"),
        ("--video still --degrade noise:5 --report still/x.json", "is a file of still"),
        ("--video empty --degrade noise:5", "holds neither frames nor folders of frames"),
        ("--video text --degrade noise:5", "not a video or an image"),
        ("--video still --video-target short", "have not the same number of frames"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "still", moving(3, step=0))
    write_folder(tmp_path / "moving", moving(3))
    write_folder(tmp_path / "short", moving(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no video")
    done = evaluate(*words.split())
    assert done.exit_code == 2
    assert message in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")


def test_nothing_is_left_behind_by_ctrl_c(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, number: int, results: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(VideoSheet, "add", interrupted)
    done = evaluate(
        *("--video", clips, "--degrade", "h264:28", "--contact-sheet", tmp_path / "x.png"),
        *("--report", tmp_path / "x.json"),
    )
    assert done.exit_code == 130 and done.stderr.endswith("stopped; nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []
