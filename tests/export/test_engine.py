"""Engines are built by NVIDIA's own builder, TensorRT-RTX, ahead of time: no GPU is needed, none is used.

These are TensorRT-RTX builds, not TensorRT builds. Loading and running a plan needs a GPU; it is not tested.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from conftest import settled, thin_graph
from onnx import TensorProto, helper

from measnet.engine_file import read_engine
from measnet.errors import BuildError, GraphError, MissingPackageError, OutputError, UsageError
from measnet.export.build_settings import BuildSettings, Profile
from measnet.export.graph import Graph
from measnet.weights import bundled

ABSENT = [
    name for name in ("tensorrt_rtx", "polygraphy", "filelock") if importlib.util.find_spec(name) is None
]
needs_rtx = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; pip install 'measnet[rtx]'"
)
if "filelock" not in ABSENT:
    from measnet.export.builder_process import build_plan, flavour_version
    from measnet.export.cache import EngineCache
    from measnet.export.engine import Built, build_engines, graph_profiles
    from measnet.export.graph import read_graph
    from measnet.export.target import EngineTarget, find_targets

# How long a builder looks for what is fastest is no matter here.
QUICK = BuildSettings(optimization_level=0)
SMALL = replace(QUICK, profiles=(Profile.parse("128x128:128x192:256x256"),))


@pytest.fixture(scope="module")
def sm89() -> list[EngineTarget]:
    return find_targets(("tensorrt-rtx",), ("sm89",))


NANO = bundled("nano", ".onnx")


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graph for any size."""
    path = tmp_path_factory.mktemp("graphs") / "thin.onnx"
    thin_graph().write(path)
    return path


@pytest.fixture(scope="module")
def one_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graph for one size, 368x640."""
    path = tmp_path_factory.mktemp("graphs") / "thin-368x640.onnx"
    settled(thin_graph(), 368, 640).write(path)
    return path


def check_engine(built: Built, capability: str) -> None:
    facts, plan = read_engine(built.path)
    assert facts == built.facts and len(plan) == built.plan_bytes > 100_000
    assert facts.flavour == "tensorrt-rtx" and facts.compute_capability == capability
    assert facts.gpu == "" and facts.description.variant == "nano"
    assert built.notes == ()
    assert not list(built.path.parent.glob("*.part"))


@needs_rtx
def test_the_bundled_graph_for_any_size_builds_ahead_of_time(
    sm89: list[EngineTarget], tmp_path: Path
) -> None:
    (built,) = build_engines([NANO], sm89, tmp_path / "new" / "folder", BuildSettings(), cache=None)
    assert built.path.name == "nano.rtx-sm89.engine"
    check_engine(built, "8.9")
    smallest, usual, largest = built.facts.profiles[0]["image"]
    assert (smallest, usual, largest) == ((1, 3, 128, 128), (1, 3, 720, 1280), (1, 3, 1088, 1920))


@needs_rtx
def test_a_graph_of_one_size_builds_for_the_newest_cards(one_size: Path, tmp_path: Path) -> None:
    targets = find_targets(("tensorrt-rtx",), ("sm120",))
    (built,) = build_engines([one_size], targets, tmp_path, QUICK, cache=None)
    assert built.path.name == "thin-368x640.rtx-sm120.engine"
    check_engine(built, "12.0")
    assert built.facts.profiles[0]["image"] == ((1, 3, 368, 640),) * 3


@needs_rtx
def test_several_profiles_batches_and_a_timing_cache_go_into_one_engine(
    thin: Path, sm89: list[EngineTarget], tmp_path: Path
) -> None:
    settings = BuildSettings(
        profiles=(Profile.parse("1x128x128:2x128x192:4x256x256"), Profile.parse("120x150")),
        workspace_mib=2048,
        optimization_level=1,
        aux_streams=0,
        tf32=True,
    )
    timing, words = tmp_path / "t.timing", list[str]()
    (built,) = build_engines(
        [thin],
        sm89,
        tmp_path,
        settings,
        cache=None,
        timing_cache=timing,
        progress=lambda _, said: words.append(said),
    )
    facts, _ = read_engine(built.path)
    assert facts.profiles[0]["image"] == ((1, 3, 128, 128), (2, 3, 128, 192), (4, 3, 256, 256))
    assert facts.profiles[1]["image"] == ((1, 3, 128, 160),) * 3
    assert facts.settings["workspace_mib"] == 2048 and facts.settings["tf32"] is True
    assert timing.stat().st_size > 0
    assert any("cloning network graph" in said for said in words)


@needs_rtx
def test_an_operator_without_a_kernel_ends_in_a_sentence_and_no_file(
    one_size: Path, sm89: list[EngineTarget], tmp_path: Path
) -> None:
    model = onnx.load(one_size)
    model.graph.node.append(
        helper.make_node("NonZero", ["restored"], ["where"], name="encoder1.0.attention/NonZero")
    )
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, [4, None]))
    Graph.described(model).write(tmp_path / "x.onnx")
    with pytest.raises(GraphError) as caught:
        build_engines([tmp_path / "x.onnx"], sm89, tmp_path / "out", BuildSettings(), cache=None)
    message = str(caught.value)
    assert message.startswith("TensorRT-RTX for compute capability 8.9 does not take this graph: module ")
    assert "module encoder1.0.attention, operator NonZero" in message and "plugin" in message
    assert "\n" not in message
    assert list((tmp_path / "out").iterdir()) == []


@needs_rtx
def test_a_build_that_fails_leaves_no_file_and_says_what_to_change(
    one_size: Path, sm89: list[EngineTarget], tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path / "cache")
    here = replace(sm89[0], gpu="a card that is not there")
    with pytest.raises(BuildError, match=r"built nothing.*build on the target machine"):
        build_engines([one_size], [here], tmp_path / "out", BuildSettings(), cache=cache)
    assert list((tmp_path / "out").iterdir()) == []
    assert cache.entries() == []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a module called ``tensorrt`` for builders to import."""
    folder = tmp_path / "packages"
    folder.mkdir()
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{inherited}" if inherited else str(folder))

    def make(code: str) -> None:
        (folder / "tensorrt.py").write_text(code)

    return make


AS_TENSORRT = "from tensorrt_rtx_bindings import *\n__version__ = '11.4.0'\n"


def build_as_tensorrt(graph: Path, settings: BuildSettings) -> tuple[bytes, tuple[str, ...]]:
    read = read_graph(graph)
    target = EngineTarget("tensorrt", "11.4.0", "8.9", gpu="a stand-in")
    profiles, problems = graph_profiles(read, settings, target)
    assert problems == []
    plan = build_plan(
        read.content,
        "tensorrt",
        ["8.9"],
        ahead_of_time=False,
        profiles=profiles,
        settings=settings,
        timing_cache=b"",
        progress=lambda _words: None,
    )
    return plan.plan, plan.warnings


@needs_rtx
def test_the_way_to_tensorrt_itself_runs_against_the_bindings_of_rtx(
    stand_in: Callable[[str], None], one_size: Path
) -> None:
    stand_in(AS_TENSORRT)
    settings = replace(QUICK, hardware_compatible="ampere-plus", workspace_mib=1024)
    plan, warnings = build_as_tensorrt(one_size, settings)
    assert len(plan) > 100_000
    assert any("setHardwareCompatibilityLevel" in warning for warning in warnings)  # it did arrive


@needs_rtx
def test_a_version_compatible_plan_without_the_lean_runtime_says_so(
    stand_in: Callable[[str], None], one_size: Path
) -> None:
    stand_in(AS_TENSORRT)
    with pytest.raises(BuildError, match=r"libnvinfer_lean.*leave --version-compatible away"):
        build_as_tensorrt(one_size, BuildSettings(version_compatible=True))


@needs_rtx
def test_a_builder_that_aborts_does_not_take_us_with_it(
    stand_in: Callable[[str], None], one_size: Path
) -> None:
    stand_in("import os\nos.abort()\n")
    with pytest.raises(BuildError, match=r"TensorRT's builder was ended by signal 6 \(SIGABRT\)"):
        build_as_tensorrt(one_size, BuildSettings())


@needs_rtx
def test_a_package_that_cannot_load_its_libraries_says_so(stand_in: Callable[[str], None]) -> None:
    stand_in("raise ImportError('libnvinfer.so.11: cannot open shared object file')\n")
    with pytest.raises(BuildError, match=r"TensorRT is installed and cannot be loaded: libnvinfer\.so\.11"):
        flavour_version("tensorrt")


@needs_rtx
def test_without_the_package_its_extra_is_named(stand_in: Callable[[str], None]) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    with pytest.raises(MissingPackageError, match=r"measnet\[tensorrt\]"):
        flavour_version("tensorrt")


@pytest.fixture
def building(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a build."""
    code = (
        "import signal\n"
        "from pathlib import Path\n"
        "from measnet.export.engine import *\n"
        "from measnet.export.target import find_targets\n"
        "from measnet.weights import bundled\n"
        # A shell that runs the tests in the background has it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"out = Path({str(tmp_path / 'out')!r})\n"
        "build_engines([bundled('nano', '.onnx')], find_targets(('tensorrt-rtx',), ('sm89',)), out,\n"
        "    BuildSettings(), cache=EngineCache(out / 'cache'), progress=lambda _, w: print(w, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def builders_of(tmp_path: Path) -> list[str]:
    """The builders that run now for a process with this temporary folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if "measnet.export.builder" in words and any(word.startswith(str(tmp_path)) for word in words):
                found.append(str(path.parent))
    return found


@needs_rtx
def test_ctrl_c_ends_a_build_at_once_and_leaves_nothing(
    building: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.killpg(building.pid, signal.SIGINT)  # as a terminal does: the builder hears it too
    errors = building.communicate(timeout=60)[1]
    assert building.returncode != 0 and "KeyboardInterrupt" in errors
    assert not list((tmp_path / "out").rglob("*.engine*"))
    assert not list(tmp_path.glob("measnet-*"))
    assert builders_of(tmp_path) == []


@needs_rtx
def test_a_builder_whose_caller_was_killed_ends_too(building: subprocess.Popen[str], tmp_path: Path) -> None:
    assert builders_of(tmp_path)
    building.kill()
    building.communicate(timeout=60)
    until = time.monotonic() + 60
    while builders_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert builders_of(tmp_path) == []
    assert not list((tmp_path / "out").rglob("*.engine*"))


@needs_rtx
def test_two_engines_of_one_name_are_refused(sm89: list[EngineTarget], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 engines would be called .*nano\.rtx-sm89\.engine"):
        build_engines([NANO, NANO], sm89, tmp_path, SMALL, cache=None)


@needs_rtx
def test_a_full_disk_under_the_output_leaves_no_half_engine(
    one_size: Path, sm89: list[EngineTarget], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        with pytest.raises(OutputError, match="No space left"):
            build_engines([one_size], sm89, disk, QUICK, cache=None)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@needs_rtx
def test_everything_wrong_is_said_before_the_first_build(
    one_size: Path, sm89: list[EngineTarget], tmp_path: Path
) -> None:
    settings = BuildSettings(
        profiles=(Profile.parse("64x64:256x256:512x512"),),
        version_compatible=True,
        hardware_compatible="ampere-plus",
    )
    with pytest.raises(UsageError) as caught:
        build_engines([one_size, NANO], sm89, tmp_path / "out", settings, cache=None)
    message = str(caught.value)
    assert "no version-compatible plans" in message and "no hardware compatibility" in message
    assert "other sizes than the graph's 368x640" in message
    assert not (tmp_path / "out").exists()


@needs_rtx
@pytest.mark.parametrize(
    ("flavours", "cards", "message"),
    [
        (("tensorrt-rtx",), ("sm90", "sm89", "4090"), "no GPU called 'sm90'.*no GPU called '4090'"),
        (("tensorrt",), ("sm89",), "--gpu goes with --with tensorrt-rtx"),
    ],
)
def test_an_unknown_card_is_told_which_are_known(
    flavours: tuple[str, ...], cards: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_targets(flavours, cards)


@needs_rtx
def test_a_file_that_is_no_graph_of_ours_is_refused(sm89: list[EngineTarget], tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(GraphError, match="is not a sound ONNX file"):
        build_engines([tmp_path / "x.onnx"], sm89, tmp_path, BuildSettings(), cache=None)
    with pytest.raises(GraphError, match="cannot read"):
        build_engines([tmp_path / "absent.onnx"], sm89, tmp_path, BuildSettings(), cache=None)
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), tmp_path / "other.onnx")
    with pytest.raises(GraphError, match="has no MEASNet description"):
        build_engines([tmp_path / "other.onnx"], sm89, tmp_path, BuildSettings(), cache=None)
