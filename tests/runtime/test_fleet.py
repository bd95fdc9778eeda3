"""Archives restored by workers of a real local cluster of Ray: what one leaves another takes up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.errors import MissingPackageError, UsageError
from measnet.runtime import cli
from measnet.runtime.fleet.archive import find
from measnet.runtime.fleet.cluster import Cluster

from .conftest import ffmpeg, probe
from .resuming import FRAMES, frame_sums, short_segments

__all__ = ["short_segments"]

PROGRAM = [sys.executable, str(Path(__file__).parent / "fleet_run.py")]
COMMON = ["--threads", "1", "--preset", "ultrafast", "--temporal", "2"]

LENGTH = 3 * FRAMES + 9
"""Frames of a video that is cut off."""


def needs_ray() -> None:
    pytest.importorskip("ray", reason="ray is not installed")


def video(path: Path, frames: int = LENGTH) -> None:
    noise = "testsrc2=s=64x48:r=25,noise=alls=20:allf=t"
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-frames:v", str(frames)]
    ffmpeg("-f", "lavfi", "-i", noise, *codec, path)


def archive(folder: Path) -> Path:
    """A video of more than a segment, short ones, a picture, and what is no video, in folders."""
    (folder / "in" / "deep").mkdir(parents=True)
    for name, frames in (("a.mp4", LENGTH), ("deep/b.mkv", 7), ("deep/short.mp4", 5)):
        video(folder / "in" / name, frames)
    cv2.imwrite(str(folder / "in" / "shot.png"), np.full((40, 60, 3), 90, np.uint8))
    (folder / "in" / "readme.txt").write_text("no picture")
    (folder / "in" / "broken.mp4").write_text("no video")
    return folder / "in"


def workers_at(part: Path) -> Iterator[int]:
    """Processes that hold the lock of a result's folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(part / "lock") in opened:
            yield int(process.name)


def lines_of(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def check_runs(running: subprocess.Popen[str], until: float) -> None:
    if running.poll() is not None:
        said = "".join(text for text in running.communicate() if text)
        check_started(said)
        pytest.fail(said)
    assert time.monotonic() < until


def check_started(said: str) -> None:
    if "when this machine is less busy" in said:
        pytest.skip("this machine is so busy that Ray did not start within its 30 seconds")


def test_a_worker_is_killed_and_all_that_can_be_restored_is_as_by_one_process(tmp_path: Path) -> None:
    needs_ray()
    source, out, report = archive(tmp_path), tmp_path / "out", tmp_path / "report.json"
    command = ["--ray", "local:2", str(source), "-o", str(out), "--report", str(report), *COMMON]
    go_on = tmp_path / "go on"
    running = subprocess.Popen(
        [*PROGRAM, go_on, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        # The header and one whole segment: the second one is under way.
        part = out / "a.restored.mp4.part"
        until = time.monotonic() + 120
        while lines_of(part / "manifest.jsonl") < 2:
            check_runs(running, until)
            time.sleep(0.05)
        (worker,) = workers_at(part)
        assert worker != running.pid
        os.kill(worker, signal.SIGKILL)
        go_on.touch()
        said, _ = running.communicate(timeout=200)
    finally:
        running.kill()
        running.wait()
    # The file that cannot be restored is said, and the rest is restored.
    assert running.returncode == 2 and "broken.mp4" in said and "Traceback" not in said, said
    assert not (out / "broken.restored.mp4").exists()
    assert "5 files, 2 workers" in said and "1 files are neither videos nor pictures" in said
    runs = {Path(run["input"]).name: run for run in json.loads(report.read_text())["runs"]}
    assert runs["a.mp4"]["resumed_at"] == FRAMES and runs["b.mkv"]["resumed_at"] == 0
    plain = tmp_path / "plain"
    plain.mkdir()
    names = ["a.mp4", "deep/b.mkv", "deep/short.mp4", "shot.png"]
    done = CliRunner().invoke(cli.main, [*(str(source / name) for name in names), "-o", str(plain), *COMMON])
    assert done.exit_code == 0, done.stderr
    for name in names:
        path = Path(name).with_stem(f"{Path(name).stem}.restored")
        if path.suffix == ".png":
            assert np.array_equal(cv2.imread(str(out / path)), cv2.imread(str(plain / path.name)))
        else:
            assert frame_sums(out / path) == frame_sums(plain / path.name)
    # The same command has nothing left to do, and starts no cluster.
    (source / "broken.mp4").unlink()
    again = CliRunner().invoke(cli.main, command)
    assert again.exit_code == 0 and "4 files have been restored before" in again.stderr
    assert "workers" not in again.stderr


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_an_archive_is_its_videos_and_pictures_where_they_lie(tmp_path: Path) -> None:
    top, out = tmp_path / "in", tmp_path / "in" / "out"
    files(top, "a.mp4", "x/b.wmv", "x/y/c.jpeg", "x/d.srt", ".hidden/e.mp4", "f.mp4.part/segment-00000")
    files(top, "a.restored.mp4", "out/a.restored.mp4", "out/x/other.mp4", "g.heic")
    found = find([str(top)], out, overwrite=False)
    assert [
        (str(item.source.relative_to(top)), str(item.target.relative_to(out))) for item in found.items
    ] == [
        ("g.heic", "g.restored.png"),
        ("x/b.wmv", "x/b.restored.mp4"),
        ("x/y/c.jpeg", "x/y/c.restored.jpeg"),
    ]
    assert [item.source.name for item in found.done] == ["a.mp4"] and found.others == 1
    assert len(find([str(top)], out, overwrite=True).items) == 4


def test_two_files_with_one_result_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "in/a.wmv", "in/a.asf")
    with pytest.raises(UsageError, match="would both become"):
        find([str(tmp_path / "in")], tmp_path / "out", overwrite=False)
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        find([str(tmp_path / "no")], tmp_path / "out", overwrite=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs one folder for the results"),
        (["-o", "file"], "is a file; with --ray"),
        (["-o", "s3://me:secret@bucket/out"], "s3://***@bucket/out has credentials in it"),
        (["-o", "out", "--compare", "side"], "--compare does not go with --ray"),
        (["-o", "out", "--verify", "1/9"], "--verify does not go with --ray"),
        (["-o", "out", "--console", "0"], "--console does not go with --ray"),
        (["-o", "out", "--parts", "60"], "--parts does not go with --ray"),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused_at_once(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files(tmp_path, "in/a.mp4", "file")
    result = CliRunner().invoke(cli.main, ["--ray", "local", "in", *options])
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "local:none", "ray://127.0.0.1:1", "gs://u:secret@h"])
def test_a_cluster_that_is_not_there_is_one_line(address: str, tmp_path: Path) -> None:
    needs_ray()
    files(tmp_path, "in/a.mp4")
    done = CliRunner().invoke(cli.main, ["--ray", address, str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "secret" not in done.stderr


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"measnet\[ray\]"):
        Cluster("local", 1)


def test_a_node_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_ray()
    import ray

    def late(*arguments: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(UsageError, match=r"timed out during startup.*less busy") as caught:
        Cluster("local", 1)
    assert "\n" not in str(caught.value)


def test_ctrl_c_keeps_whole_segments_with_which_one_process_goes_on(tmp_path: Path) -> None:
    needs_ray()
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    video(source / "a.mp4")
    never = str(tmp_path / "never")
    command = [*PROGRAM, never, "--ray", "local:1", str(source), "-o", str(out), *COMMON]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    manifest = out / "a.restored.mp4.part" / "manifest.jsonl"
    until = time.monotonic() + 120
    while lines_of(manifest) < 2:
        check_runs(running, until)
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert lines_of(manifest) == 2 and not (out / "a.restored.mp4").exists()
    result = out / "a.restored.mp4"
    alone = CliRunner().invoke(cli.main, [str(source / "a.mp4"), "-o", str(result), *COMMON])
    said = " ".join(alone.stderr.split())
    assert alone.exit_code == 0 and f"going on at frame {FRAMES} of {LENGTH}" in said, said
    assert len(probe(result).times) == LENGTH
