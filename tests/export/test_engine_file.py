"""An engine file is whole and ours, or refused in one sentence; nobody is handed part of one."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from measnet.config import VARIANTS
from measnet.description import GraphDescription
from measnet.engine_file import EngineFacts, read_engine, read_engine_facts, write_engine
from measnet.errors import EngineError
from measnet.sealed_file import FORMAT, HEADER, LONGEST_FACTS, MAGIC, write_sealed

FACTS = EngineFacts(
    graph_sha256="ab" * 32,
    graph=GraphDescription(VARIANTS["nano"], "cd" * 32, None).to_metadata(),
    calibration_sha256="",
    profiles=({"image": ((1, 3, 128, 128), (1, 3, 720, 1280), (1, 3, 1080, 1920))},),
    settings={"optimization_level": 3, "tf32": False},
    measnet_version="0.1.0",
    flavour="tensorrt-rtx",
    flavour_version="1.7.1.116",
    compute_capability="8.9",
    gpu="",
    driver="",
    cuda="",
)
PLAN = bytes(range(256)) * 40


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "x.engine"
    write_engine(path, FACTS, PLAN)
    return path


def refused(path: Path) -> str:
    with pytest.raises(EngineError) as caught:
        read_engine(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_back(engine: Path) -> None:
    facts, plan = read_engine(engine)
    assert facts == FACTS and plan == PLAN
    assert facts.key == FACTS.key
    assert read_engine_facts(engine) == FACTS
    assert facts.description.variant == "nano"


def test_a_flipped_bit_anywhere_is_found(engine: Path) -> None:
    sound = engine.read_bytes()
    for position in [*range(0, 1200, 7), *range(1200, len(sound), 997), len(sound) - 1]:
        damaged = bytearray(sound)
        damaged[position] ^= 0x10
        engine.write_bytes(damaged)
        refused(engine)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 55, 56, 57, 500, -1])
def test_a_file_cut_short_is_refused(engine: Path, length: int) -> None:
    engine.write_bytes(engine.read_bytes()[:length])
    refused(engine)


def test_a_file_with_something_behind_it_is_refused(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes() + b"\0")
    assert "something behind it" in refused(engine)


def test_a_plan_straight_from_tensorrt_is_told_apart(engine: Path) -> None:
    engine.write_bytes(b"ptrt" + PLAN)
    assert "not one straight from TensorRT" in refused(engine)


def test_a_sealed_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x", "timing cache", {}, b"")
    assert "is a timing cache of ours; expected: engine" in refused(tmp_path / "x")


def test_a_file_of_a_later_version_says_so(engine: Path) -> None:
    content = bytearray(engine.read_bytes())
    content[len(MAGIC)] = FORMAT + 1
    engine.write_bytes(content)
    assert f"has format {FORMAT + 1}, this version of measnet reads {FORMAT}" in refused(engine)


def sealed_by_hand(text: bytes, payload: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, FORMAT, len(text), hashlib.sha256(text).digest()) + text + payload


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 200_000,
        b'{"kind": "engine"}',
        b'{"kind": 1, "bytes": 0, "sha256": "", "facts": {}}',
        b'{"kind": "engine", "bytes": "0", "sha256": "", "facts": {}}',
    ],
)
def test_hostile_descriptions_with_sound_checksums_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.engine"
    path.write_bytes(sealed_by_hand(text))
    refused(path)


def test_a_claim_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    path.write_bytes(HEADER.pack(MAGIC, FORMAT, LONGEST_FACTS + 1, b"\0" * 32))
    assert "claims" in refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"graph": {}},
        {"graph": []},
        {"graph": {"measnet.format": 7}},
        {"profiles": 3},
        {"profiles": [{"image": [[1, 3, 0, 64]] * 3}]},
        {"profiles": [{"image": [[1, 3, 64, 64]] * 2}]},
        {"profiles": [{"image": [[1, 3, True, 64]] * 3}]},
        {"settings": "fast"},
        {"gpu": 5},
        {"unheard_of": ""},
    ],
)
def test_facts_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "x.engine"
    write_sealed(path, "engine", json.loads(json.dumps(asdict(FACTS))) | changes, PLAN)
    refused(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    refused(tmp_path / "absent")
    refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refused(tmp_path / "pipe")


@pytest.mark.parametrize(
    "change",
    [
        {"graph_sha256": "00" * 32},
        {"calibration_sha256": "11" * 32},
        {"settings": {"optimization_level": 4, "tf32": False}},
        {"measnet_version": "0.2.0"},
        {"flavour_version": "1.8"},
        {"gpu": "NVIDIA L4"},
        {"compute_capability": "8.6"},
        {"compute_capability": "8.6 8.9"},
        {"driver": "580.1"},
        {"cuda": "13.1"},
        {"profiles": ({"image": ((1, 3, 128, 128),) * 3},)},
    ],
)
def test_everything_that_decides_what_a_plan_is_changes_its_key(change: dict[str, object]) -> None:
    assert replace(FACTS, **change).key != FACTS.key  # type: ignore[arg-type]


def test_it_says_in_words_what_it_was_built_for() -> None:
    assert FACTS.built_for() == "TensorRT-RTX 1.7.1.116 on any GPU of compute capability 8.9"
    portable = replace(FACTS, compute_capability="8.0 8.9 12.0")
    assert portable.built_for().endswith("on any GPU of compute capability 8.0, 8.9 or 12.0")
    here = replace(FACTS, flavour="tensorrt", gpu="NVIDIA L4", driver="580.82", cuda="13.0")
    assert here.built_for() == (
        "TensorRT 1.7.1.116 on NVIDIA L4, compute capability 8.9, driver 580.82, CUDA 13.0"
    )
