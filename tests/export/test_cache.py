"""The engine cache: what is kept is right or built again, whatever happened to its files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("filelock", reason="filelock is not installed; it comes with measnet[rtx]")

from measnet.config import VARIANTS
from measnet.description import GraphDescription
from measnet.engine_file import EngineFacts, read_engine, write_engine
from measnet.errors import BuildError, EngineError, OutputError
from measnet.export.cache import EngineCache, default_folder, read_timing_cache, write_timing_cache
from measnet.export.target import EngineTarget

FACTS = EngineFacts(
    graph_sha256="ab" * 32,
    graph=GraphDescription(VARIANTS["nano"], "cd" * 32, None).to_metadata(),
    calibration_sha256="",
    profiles=(),
    settings={"optimization_level": 3},
    measnet_version="0.1.0",
    flavour="tensorrt-rtx",
    flavour_version="1.7.1.116",
    compute_capability="8.9",
    gpu="",
    driver="",
    cuda="",
)
PLAN = bytes(range(256)) * 40
TARGET = EngineTarget("tensorrt", "11.4.0", "8.9", "NVIDIA L4", "580.82", "13.0")


class Builds:
    """Builds a plan, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return PLAN


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


@pytest.fixture
def builds() -> Builds:
    return Builds()


def test_a_second_wish_for_the_same_engine_builds_nothing(cache: EngineCache, builds: Builds) -> None:
    first = cache.plan_for(FACTS, builds)
    second = cache.plan_for(FACTS, builds)
    assert (first.was_cached, second.was_cached) == (False, True)
    assert first.plan == second.plan == PLAN and builds.count == 1


def test_another_engine_is_built(cache: EngineCache, builds: Builds) -> None:
    cache.plan_for(FACTS, builds)
    assert not cache.plan_for(replace(FACTS, flavour_version="1.8"), builds).was_cached
    steerable = replace(FACTS.description, steerable=True).to_metadata()
    assert not cache.plan_for(replace(FACTS, graph=steerable), builds).was_cached
    assert builds.count == 3


@pytest.mark.parametrize("position", [3, 18, 30, 300, -5])
def test_a_flipped_byte_is_healed_by_building_again(
    cache: EngineCache, builds: Builds, position: int
) -> None:
    cache.plan_for(FACTS, builds)
    path = cache.path(FACTS)
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 0xFF
    path.write_bytes(damaged)
    assert cache.plan_for(FACTS, builds).plan == PLAN
    assert builds.count == 2
    assert read_engine(path) == (FACTS, PLAN)


@pytest.mark.parametrize("content", [b"", b"MEASNet", b"\0" * 5000])
def test_rubbish_under_an_entrys_name_is_replaced(cache: EngineCache, builds: Builds, content: bytes) -> None:
    cache.folder.mkdir()
    cache.path(FACTS).write_bytes(content)
    assert cache.plan_for(FACTS, builds).plan == PLAN
    assert read_engine(cache.path(FACTS)) == (FACTS, PLAN)


def test_an_engine_of_another_version_under_this_name_is_replaced(cache: EngineCache, builds: Builds) -> None:
    cache.folder.mkdir()
    write_engine(cache.path(FACTS), replace(FACTS, flavour_version="1.6"), b"old")
    assert cache.plan_for(FACTS, builds).plan == PLAN
    assert read_engine(cache.path(FACTS))[0] == FACTS


def test_an_engine_that_does_not_load_is_built_again(cache: EngineCache, builds: Builds) -> None:
    cache.folder.mkdir()
    write_engine(cache.path(FACTS), FACTS, b"sound, and TensorRT does not take it")
    found = cache.plan_for(FACTS, builds, loads=lambda plan: plan == PLAN)
    assert found.plan == PLAN and not found.was_cached


def test_a_build_that_fails_keeps_nothing_and_frees_the_lock(cache: EngineCache, builds: Builds) -> None:
    def fails() -> bytes:
        raise BuildError("no")

    with pytest.raises(BuildError):
        cache.plan_for(FACTS, fails)
    assert cache.entries() == []
    assert cache.plan_for(FACTS, builds).plan == PLAN


CONTENDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_cache import FACTS, PLAN, EngineCache
def build():
    with open({log!r}, "a") as log:
        log.write("built\\n")
    time.sleep({seconds})
    return PLAN
print(EngineCache(Path({folder!r})).plan_for(FACTS, build).was_cached, flush=True)
"""


def contender(folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent)
    code = CONTENDER.format(tests=tests, folder=str(folder), log=str(log), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once(cache: EngineCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [contender(cache.folder, log, 1.0) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(answers) == ["False", "True"]
    assert log.read_text() == "built\n"


def test_a_process_killed_in_the_middle_of_a_build_is_in_nobodys_way(
    cache: EngineCache, builds: Builds, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with contender(cache.folder, log, 600) as process:
        until = time.monotonic() + 60
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert cache.plan_for(FACTS, builds).plan == PLAN


def test_a_full_disk_costs_the_entry_and_not_the_engine(builds: Builds, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        found = EngineCache(disk).plan_for(FACTS, builds)
        assert found.plan == PLAN
        assert "No space left" in found.notes[0]
        assert [path.name for path in disk.iterdir()] == ["locks"]
        with pytest.raises(OutputError, match="No space left"):
            write_engine(disk / "x.engine", FACTS, PLAN)
        assert [path.name for path in disk.iterdir()] == ["locks"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_to_costs_a_note(builds: Builds, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = EngineCache(tmp_path / "file" / "cache").plan_for(FACTS, builds)
    assert found.plan == PLAN and not found.was_cached
    assert "was not kept" in found.notes[0]
    assert EngineCache(tmp_path / "file" / "cache").entries() == []


def test_what_is_kept_can_be_listed_and_cleared(cache: EngineCache, builds: Builds) -> None:
    assert cache.entries() == [] and cache.clear() == 0
    cache.plan_for(FACTS, builds)
    write_timing_cache(cache.folder / "x.timing", TARGET, b"t")
    (cache.folder / "torn.engine.part").write_bytes(b"half")
    size = sum(path.stat().st_size for path in cache.folder.iterdir() if path.is_file())
    entries = cache.entries()
    assert entries[0].facts == FACTS and len(entries) == 3
    assert sum(entry.bytes for entry in entries) == size
    assert cache.clear() == size
    assert cache.entries() == []


def test_timings_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.timing"
    assert read_timing_cache(path, TARGET) == (b"", "")
    write_timing_cache(path, TARGET, b"kernels")
    assert read_timing_cache(path, TARGET) == (b"kernels", "")


def test_tensorrt_is_never_handed_damaged_timings(tmp_path: Path) -> None:
    path = tmp_path / "x.timing"
    write_timing_cache(path, TARGET, b"kernels")
    sound = path.read_bytes()
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        timings, note = read_timing_cache(path, TARGET, replace_any=True)
        assert timings == b"" and "timings begin anew" in note


@pytest.mark.parametrize("change", [{"driver": "590.1"}, {"gpu": "NVIDIA A10"}, {"flavour_version": "10.16"}])
def test_timings_of_another_machine_begin_anew(tmp_path: Path, change: dict[str, str]) -> None:
    write_timing_cache(tmp_path / "x.timing", TARGET, b"kernels")
    timings, note = read_timing_cache(tmp_path / "x.timing", replace(TARGET, **change))  # type: ignore[arg-type]
    assert timings == b"" and "another GPU, driver or TensorRT" in note


def test_a_file_of_somebody_elses_is_not_overwritten_with_timings(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(EngineError, match="not a file of ours"):
        read_timing_cache(tmp_path / "thesis.txt", TARGET)


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms have folders of their own")
def test_the_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == tmp_path / ".cache" / "measnet" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert default_folder() == tmp_path / ".cache" / "measnet" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "somewhere")
    assert default_folder() == Path(os.sep, "somewhere", "measnet", "engines")
