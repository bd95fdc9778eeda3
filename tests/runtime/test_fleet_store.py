"""Archives in an object store: a real S3 server on the loopback, and workers of a real local cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from measnet.errors import MissingPackageError, UsageError
from measnet.runtime import cli
from measnet.runtime.fleet import nearby
from measnet.runtime.fleet import store as stores
from measnet.runtime.fleet.archive import find
from measnet.runtime.fleet.store import Remote, place_of

from .resuming import FRAMES, frame_sums, short_segments
from .s3_server import SECRET, server, store
from .test_fleet import COMMON, LENGTH, PROGRAM, check_runs, check_started, needs_ray, video

__all__ = ["server", "short_segments", "store"]


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what one test has opened from the next one."""
    stores._store.cache_clear()


def opened() -> Any:
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def listed(files: Any, prefix: str) -> list[str]:
    return [key.removeprefix(f"{prefix}/") for key in files.find(prefix)]


def worker_at(result: str) -> int:
    """The process that holds the lock of a result's folder in a folder of its own; other tests, which run
    beside this one, restore files of the same name."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if any("/measnet-ray-" in link and link.endswith(f"{result}.part/lock") for link in links):
            return int(process.name)
    pytest.fail(f"nobody is at {result}")


def until_true(done: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while not done():
        check_runs(running, until)
        time.sleep(0.2)


def test_a_worker_is_killed_and_another_brings_its_segments(store: str, tmp_path: Path) -> None:
    needs_ray()
    source, files = tmp_path / "in", opened()
    (source / "deep").mkdir(parents=True)
    video(source / "a.mp4")
    cv2.imwrite(str(source / "deep" / "shot.png"), np.full((40, 60, 3), 90, np.uint8))
    files.put(f"{source}/", "archive/in", recursive=True)
    files.pipe_file("archive/in/readme.txt", b"no picture")
    report = tmp_path / "report.json"
    command = ["--ray", "local:1", f"{store}/in", "-o", f"{store}/out", *COMMON]
    go_on = tmp_path / "go on"
    running = subprocess.Popen(
        [*PROGRAM, go_on, *command, "--report", report],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until_true(lambda: files.exists("archive/out/a.restored.mp4.part/manifest.jsonl"), running)
        killed = worker_at("a.restored.mp4")
        assert killed != running.pid
        os.kill(killed, signal.SIGKILL)
        go_on.touch()
        said, _ = running.communicate(timeout=250)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0, said
    assert "1 files are neither videos nor pictures" in said and SECRET not in said
    runs = {Path(run["input"]).name: run for run in json.loads(report.read_text())["runs"]}
    assert runs["a.mp4"]["input"] == "s3://archive/in/a.mp4" and "s3://archive/in/a.mp4" in said
    assert runs["a.mp4"]["output"] == "s3://archive/out/a.restored.mp4"
    assert runs["a.mp4"]["resumed_at"] == FRAMES, said
    # The segments are gone, and what the killed worker left on its machine.
    assert listed(files, "archive/out") == ["a.restored.mp4", "deep/shot.restored.png"]
    left = Path("/tmp").glob(f"measnet-ray-{killed}-*")
    assert not list(left)
    plain, brought = tmp_path / "plain.mp4", tmp_path / "brought.mp4"
    done = CliRunner().invoke(cli.main, [str(source / "a.mp4"), "-o", str(plain), *COMMON])
    assert done.exit_code == 0, done.stderr
    files.get_file("archive/out/a.restored.mp4", str(brought))
    assert frame_sums(brought) == frame_sums(plain)
    again = CliRunner().invoke(cli.main, command)
    assert again.exit_code == 0 and "2 files have been restored before" in again.stderr
    assert "workers" not in again.stderr


def test_ctrl_c_leaves_segments_with_which_the_same_command_goes_on(store: str, tmp_path: Path) -> None:
    needs_ray()
    files = opened()
    video(tmp_path / "a.mp4")
    go_on = tmp_path / "go on"
    source = str(tmp_path / "a.mp4")
    command = [*PROGRAM, str(go_on), "--ray", "local:1", source, "-o", f"{store}/out", *COMMON]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until_true(lambda: files.exists("archive/out/a.restored.mp4.part/manifest.jsonl"), running)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert not files.exists("archive/out/a.restored.mp4")
    report = tmp_path / "report.json"
    go_on.touch()
    done = subprocess.run([*command, "--report", str(report)], capture_output=True, text=True, timeout=200)
    check_started(done.stderr)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(report.read_text())["runs"]
    assert run["resumed_at"] == FRAMES and run["frames"] == LENGTH
    assert listed(files, "archive/out") == ["a.restored.mp4"]


def test_what_is_restored_of_a_store_is_as_of_a_folder(store: str, tmp_path: Path) -> None:
    files = opened()
    for name in (
        "a.mp4",
        "x/b.wmv",
        "x/.hidden/c.mp4",
        "d.mp4.part/segment-00000",
        "a.restored.mp4",
        "e.txt",
    ):
        files.pipe_file(f"archive/in/{name}", b"x")
    files.pipe_file("archive/in/out/a.restored.mp4", b"x")
    found = find([f"{store}/in"], Remote("archive/in/out"), overwrite=False)
    assert [(str(item.source), str(item.target)) for item in found.items] == [
        ("s3://archive/in/x/b.wmv", "s3://archive/in/out/x/b.restored.mp4")
    ]
    assert [str(item.source) for item in found.done] == ["s3://archive/in/a.mp4"] and found.others == 1
    assert len(find([f"{store}/in"], Remote("archive/in/out"), overwrite=True).items) == 2
    (one,) = find([f"{store}/in/a.mp4"], tmp_path, overwrite=False).items
    assert one.target == tmp_path / "a.restored.mp4"


def refused(*arguments: str) -> str:
    stores._store.cache_clear()
    done = CliRunner().invoke(cli.main, ["--ray", "local:1", *arguments])
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
    assert SECRET not in done.stderr
    return " ".join(done.stderr.split())


def test_what_the_store_refuses_is_one_line_before_anything_starts(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().pipe_file("archive/in/a.mp4", b"x")
    out = str(tmp_path / "out")
    assert "no such bucket or key" in refused("s3://absent/in", "-o", out)
    assert "no such bucket" in refused(f"{store}/in", "-o", "s3://absent/out")
    assert "neither a file nor a folder" in refused(f"{store}/nothing", "-o", out)
    with monkeypatch.context() as without:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            without.delenv(name)
        without.setenv("HOME", str(tmp_path))
        assert "lets nobody in" in refused(f"{store}/in", "-o", out)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "check AWS_ENDPOINT_URL" in refused(f"{store}/in", "-o", out)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (f"s3://me:{SECRET}@bucket/in", r"s3://\*\*\*@bucket/in has credentials in it"),
        ("s3://", "names no bucket"),
        ("gs://bucket/in", "folders and s3://BUCKET/KEY"),
    ],
)
def test_addresses_that_are_none_are_refused(address: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        place_of(address)
    assert SECRET not in str(caught.value)


def test_without_its_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingPackageError, match=r"measnet\[s3\]"):
        find(["s3://archive/in"], tmp_path, overwrite=False)


def test_what_is_listed_while_a_segment_ends_waits_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a manifest could stand in the store whose last segment nobody can go on behind."""
    target = tmp_path / "a.mp4"
    here = tmp_path / "a.mp4.part"
    here.mkdir()
    (here / "manifest.jsonl").write_text("header\nfirst\n")
    for name in ("segment-00000", "past-00000"):
        (here / name).write_bytes(b"x")
    put: dict[str, bytes] = {}
    monkeypatch.setattr(stores, "put", lambda path, place: put.update({place.name: path.read_bytes()}))
    monkeypatch.setattr(stores, "put_bytes", lambda content, place: put.update({place.name: content}))
    kept = nearby._Kept(target, Remote("archive/a.mp4"))
    honest = Path.iterdir

    def meanwhile(folder: Path) -> Iterator[Path]:
        with (here / "manifest.jsonl").open("a") as file:
            file.write("second\n")
        (here / "past-00000").unlink()
        for name in ("segment-00001", "past-00001"):
            (here / name).write_bytes(b"y")
        return honest(folder)

    with monkeypatch.context() as once:
        once.setattr(Path, "iterdir", meanwhile)
        kept._pass()
    assert put == {}
    kept._pass()
    assert set(put) == {"manifest.jsonl", "segment-00000", "segment-00001", "past-00001"}
